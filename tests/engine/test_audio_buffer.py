"""Samples keep their absolute index, whatever was dropped."""

from __future__ import annotations

import numpy as np
import pytest

from nemotron_voice.engine.audio_buffer import AudioBuffer


def test_reads_what_was_appended_and_zeros_outside() -> None:
    buffer = AudioBuffer()
    signal = np.arange(1, 1001, dtype=np.float32)
    buffer.append(signal[:300])
    buffer.append(signal[300:])
    assert buffer.end == 1000
    np.testing.assert_array_equal(buffer.read(100, 200), signal[100:200])
    np.testing.assert_array_equal(buffer.read(-5, 3), [0, 0, 0, 0, 0, 1, 2, 3])
    np.testing.assert_array_equal(buffer.read(998, 1002), [999, 1000, 0, 0])


def test_indices_stay_absolute_over_an_hour_and_memory_stays_flat() -> None:
    buffer = AudioBuffer()
    block = 16_000
    sizes = set()
    for second in range(3600):
        buffer.append(np.full(block, second, np.float32))
        buffer.drop_before(buffer.end - 4 * block)
        sizes.add(buffer._samples.size)
    assert buffer.end == 3600 * block
    assert max(sizes) <= 16 * block
    np.testing.assert_array_equal(buffer.read(3598 * block, 3598 * block + 2), [3598, 3598])


def test_reading_what_was_dropped_is_an_error_not_silence() -> None:
    buffer = AudioBuffer()
    buffer.append(np.ones(64_000, np.float32))
    buffer.drop_before(60_000)
    with pytest.raises(IndexError, match="dropped"):
        buffer.read(10, 20)
    np.testing.assert_array_equal(buffer.read(60_000, 60_002), [1, 1])


def test_dropping_past_the_end_keeps_the_clock() -> None:
    buffer = AudioBuffer()
    buffer.append(np.ones(100, np.float32))
    buffer.drop_before(500)
    buffer.append(np.full(2, 7, np.float32))
    assert buffer.end == 102
    np.testing.assert_array_equal(buffer.read(100, 102), [7, 7])
