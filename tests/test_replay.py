"""Audio kept for a stream that may break: on the clock, and bounded."""

from __future__ import annotations

import pytest

from nemotron_voice.replay import ReplayBuffer

SECOND = b"\1\0" * 8_000


def test_it_keeps_what_no_final_has_covered() -> None:
    buffer = ReplayBuffer(8_000)
    for _ in range(4):
        buffer.append(SECOND)
    buffer.drop_until(2.5)
    assert (buffer.start_s, buffer.end_s) == (2.0, 4.0)
    assert buffer.packets() == [SECOND, SECOND]
    buffer.drop_until(9.0)
    assert (buffer.start_s, buffer.end_s, buffer.packets()) == (4.0, 4.0, [])


def test_it_is_bounded_and_forgets_the_oldest() -> None:
    buffer = ReplayBuffer(8_000, max_s=3.0, start_s=10.0)
    for _ in range(100):
        buffer.append(SECOND)
    assert len(buffer.packets()) == 3
    assert buffer.end_s == pytest.approx(110.0)
    assert buffer.start_s == pytest.approx(107.0)
