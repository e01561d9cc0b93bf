"""What counts as spoken, by the detector's edges."""

from __future__ import annotations

import pytest

pytest.importorskip("pipecat")

from nemotron_voice.pipecat.speech_gate import MAX_SPANS, Backlog, SpeechGate


def test_without_a_detector_everything_passes() -> None:
    gate = SpeechGate(has_detector=False)
    assert gate.speaking
    assert gate.heard_speech(0.0, 1.0)


def test_words_count_that_touch_a_stretch_of_speech() -> None:
    gate = SpeechGate(has_detector=True)
    assert not gate.speaking
    gate.started(10.2, 0.2)
    assert gate.speaking
    gate.stopped(12.0)
    assert not gate.speaking
    assert [gate.heard_speech(at, at + 0.2) for at in (8.0, 9.4, 11.0, 12.4, 12.6)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_edges_that_come_twice_change_nothing_and_memory_is_bounded() -> None:
    gate = SpeechGate(has_detector=True)
    for second in range(1000):
        gate.started(second + 0.2, 0.2)
        gate.started(second + 0.4, 0.2)
        gate.stopped(second + 0.5)
        gate.stopped(second + 0.6)
    assert len(gate._spans) == MAX_SPANS
    assert gate.heard_speech(999.4, 999.5)


def test_audio_at_the_speed_of_speech_leaves_no_backlog() -> None:
    backlog = Backlog()
    for packet in range(500):
        backlog.note(packet * 0.02, packet * 0.02)
    assert backlog.at(10.0, 10.0) == pytest.approx(0.0, abs=0.02)
    assert len(backlog._marks) < 50


def test_audio_that_came_at_once_is_the_detectors_backlog() -> None:
    backlog = Backlog()
    for packet in range(100):  # two seconds in 10 ms, after a stall
        backlog.note(5.0 + packet * 0.0001, packet * 0.02)
    assert backlog.at(5.1, 2.0) == pytest.approx(1.9, abs=0.02)
    for packet in range(200):  # the detector has had time since
        backlog.note(5.1 + packet * 0.02, 2.0 + packet * 0.02)
    assert backlog.at(9.1, 6.0) == pytest.approx(0.0, abs=0.02)
