"""A fork hears exactly the stream's audio up to the flush, then silence, in few steps."""

from __future__ import annotations

import numpy as np
import pytest

from nemotron_voice.engine.audio_buffer import AudioBuffer
from nemotron_voice.engine.fork import Fork, window_bounds
from nemotron_voice.model.features import FRAME_SAMPLES, window_samples

LOOKAHEADS = (0, 1, 3, 6, 13)


def buffer_of(samples: int) -> AudioBuffer:
    buffer = AudioBuffer()
    buffer.append(np.random.default_rng(0).standard_normal(samples).astype(np.float32))
    return buffer


@pytest.mark.parametrize("frame", [0, 1, 7, 40])
@pytest.mark.parametrize("extra", [0, 1, 900, 1279, 5000, 17_000])
def test_a_fork_hears_the_stream_then_silence(frame: int, extra: int) -> None:
    end = window_bounds(frame, 1)[1] + extra if frame else extra
    buffer = buffer_of(max(end, 0))
    first = max(window_bounds(frame, 1)[0], 0)
    last = -(-buffer.end // FRAME_SAMPLES) + 6
    fork = Fork(buffer.read(first, buffer.end), first, frame, last, LOOKAHEADS)
    steps = 0
    while not fork.done:
        at, lookahead = fork.frame, fork.lookahead
        window = fork.window()
        assert window.size == window_samples(lookahead)
        np.testing.assert_array_equal(window, buffer.read(*window_bounds(at, lookahead + 1)))
        fork.accept([], None)
        steps += 1
    assert fork.frame > last
    assert steps <= 2, "a flush is answered after one or two steps"


def test_windows_of_chunks_follow_one_another_without_a_gap() -> None:
    for lookahead in LOOKAHEADS:
        frames = lookahead + 1
        start, stop = window_bounds(10, frames)
        assert stop - start == window_samples(lookahead)
        assert window_bounds(10 + frames, frames)[0] == start + frames * FRAME_SAMPLES
