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


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("packet_ms", [10, 20, 30, 32, 40, 60])
def test_not_even_a_packet_more_than_the_bound_is_kept(rate: int, packet_ms: int) -> None:
    buffer = ReplayBuffer(rate)
    packet = b"\1\0" * (rate * packet_ms // 1000)
    for _ in range(40_000 // packet_ms):
        buffer.append(packet)
        kept_s = sum(map(len, buffer.packets())) / 2 / rate
        assert kept_s <= 30.0
        assert buffer.end_s - buffer.start_s == pytest.approx(kept_s)
        assert buffer.room_s == pytest.approx(30.0 + kept_s)
    assert kept_s > 29.9


def test_it_is_bounded_and_forgets_the_oldest() -> None:
    buffer = ReplayBuffer(8_000, max_s=3.0, start_s=10.0)
    for _ in range(100):
        buffer.append(SECOND)
    assert len(buffer.packets()) == 3
    assert buffer.end_s == pytest.approx(110.0)
    assert buffer.start_s == pytest.approx(107.0)
