"""What a trial proves: a good engine holds, a slow one fails, a late load proves nothing."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from nemotron_voice import Engine
from nemotron_voice.bench import callers, trial
from nemotron_voice.bench.callers import Load
from nemotron_voice.bench.trial import TrialOptions, try_callers, verdict
from nemotron_voice.engine.engine import StepReport

SHORT = TrialOptions(latency_ms=80, duration_s=2.5, stagger_s=0.5)


def slow_down(engine: Engine, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    run = engine._runner.run

    def slowly(works: Any) -> Any:
        time.sleep(seconds)
        return run(works)

    monkeypatch.setattr(engine._runner, "run", slowly)


async def test_an_engine_that_keeps_up_holds_and_every_chunk_is_counted(engine, pausing):
    seen = await try_callers(engine, SHORT, 4)
    for part, late in ((seen["chunks"], "late"), (seen["load"], "late_packets")):
        assert part[late] <= 5  # a few may be, on a busy machine
        part[late] = 0
    assert verdict(seen, 1000.0) == ("holds", "")
    assert seen["load"]["packets"] == seen["load"]["expected_packets"] == 125 + 118 + 112 + 106
    # A chunk of 1,280 samples is complete 1,080 samples early: 40,000 samples hold 32.
    assert seen["chunks"]["pushed"] == seen["chunks"]["decoded"] == 32 + 30 + 28 + 27
    assert seen["finals"] >= 4
    assert seen["final_ms"]["p50"] < 500


async def test_an_engine_that_is_too_slow_fails(engine, pausing, monkeypatch):
    slow_down(engine, monkeypatch, 0.12)
    seen = await try_callers(engine, SHORT, 2)
    said, why = verdict(seen, 10_000.0)
    assert (said, "waited longer than a chunk" in why) == ("fails", True)
    assert seen["chunks"]["decoded"] == seen["chunks"]["pushed"]


async def test_finals_that_come_too_late_fail_although_every_chunk_is_in_time(
    engine, pausing, monkeypatch
):
    slow_down(engine, monkeypatch, 0.03)
    seen = await try_callers(engine, SHORT, 1)
    seen["chunks"]["late"] = 0  # one may be, on a busy machine
    assert verdict(seen, 1000.0)[0] == "holds"
    said, why = verdict(seen, 10.0)
    assert (said, "p95 final" in why) == ("fails", True)


async def test_a_load_that_cant_keep_up_is_refused_and_proves_nothing(engine, pausing, monkeypatch):
    monkeypatch.setattr(callers, "_TICK_S", 0.4)
    said, why = verdict(await try_callers(engine, SHORT, 2), 1000.0)
    assert (said, "could not keep up" in why) == ("refused", True)


GOOD: dict[str, Any] = {
    "callers": 2,
    "duration_s": 120.0,
    "final_ms": {"p50": 20.0, "p95": 80.0, "p99": 90.0},
    "finals": 100,
    "drain_s": 0.01,
    "chunks": {"pushed": 10_000, "decoded": 10_000, "late": 10},
    "load": {
        "packets": 12_000,
        "expected_packets": 12_000,
        "late_packets": 12,
        "refused_packets": 0,
        "lasted_s": 120.3,
    },
}


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("", None, "holds"),
        ("chunks.late", 11, "fails"),
        ("final_ms.p95", 101.0, "fails"),
        ("drain_s", None, "fails"),
        ("load.refused_packets", 1, "fails"),
        ("load.late_packets", 13, "refused"),
        ("load.packets", 11_999, "refused"),
        ("load.lasted_s", 125.0, "refused"),
        ("chunks.decoded", 9_999, "refused"),
        ("finals", 0, "refused"),
        ("error", "StepFailedError: it broke", "fails"),
    ],
)
def test_each_rule_decides_alone(place, value, said):
    seen = copy.deepcopy(GOOD)
    *path, name = place.split(".")
    section = seen
    for part in path:
        section = section[part]
    if name:
        section[name] = value
    assert verdict(seen, 100.0)[0] == said


def test_a_backlog_shows_although_each_reported_wait_is_short():
    """A stream offers a chunk after the one before it, so a report's wait begins then."""
    chunk_s = 0.08
    load = Load(chunks_at=[chunk_s * number for number in range(1, 101)])
    step_s = 0.101  # longer than the chunk: the engine falls behind by 21 ms a step
    steps = []
    for number in range(100):
        began = chunk_s + step_s * number
        report = StepReport(80, step_s, (0.0,), (step_s - chunk_s,))
        steps.append((began + step_s, report))
    seen = trial._chunks(load, steps, chunk_s)
    assert seen["decoded"] == 100
    assert seen["late"] == 96  # from the fifth on: 4 x 21 ms are more than a chunk


def test_steps_of_flushes_are_no_chunks():
    load = Load(chunks_at=[1.0])
    chunk = StepReport(80, 0.01, (0.001,), (0.011 - 0.08,))
    flush = StepReport(80, 0.01, (0.02,), (0.03,))
    seen = trial._chunks(load, [(1.011, chunk), (1.1, flush)], 0.08)
    assert (seen["pushed"], seen["decoded"], seen["late"]) == (1, 1, 0)


def test_chunks_that_were_never_begun_are_late():
    seen = trial._chunks(Load(chunks_at=[1.0, 2.0]), [], 0.08)
    assert (seen["decoded"], seen["late"]) == (0, 2)
