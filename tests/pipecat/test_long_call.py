"""Calls with mutes, interruptions and changes of settings and rate leave nothing behind."""

from __future__ import annotations

import pytest

pytest.importorskip("pipecat")

from benchmarks.pipecat_long_call import measure
from nemotron_voice import Engine


async def test_after_a_call_and_after_a_cancelled_call_nothing_is_left() -> None:
    with Engine.load("demo", threads=1) as engine:
        figures = await measure(engine, minutes=0.7)
    for moment in ("before", "after", "after_a_cancelled_call"):
        left = figures[moment]
        assert (left["tasks"], left["streams"], left["services"]) == (0, 0, 0), moment
    assert figures["happened"]["finals"] > 0
    assert sum(figures["happened"]["events"].values()) >= 5
