"""A flush's fork: the stream's state run on over what is buffered plus silence, then thrown away.

A voice agent flushes at every short pause, and half of those pauses are mid-sentence. The fork
hears "the caller has stopped" (silence), so the look-ahead fills and the tail comes out: last
word, punctuation, language tag. The stream itself never hears that silence and goes on undisturbed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nemotron_voice.model.features import FRAME_SAMPLES

if TYPE_CHECKING:
    from nemotron_voice.model.network import Emission
    from nemotron_voice.model.state import StreamState

# The window of the chunk that makes encoder frames [n, n + c) is
# [1280 n - PAST, 1280 (n + c) - SHORT): the analysis window is centred, and the subsampling causal.
PAST_SAMPLES = 1321
SHORT_SAMPLES = 1080

# Frames of silence after the flush point. The look-ahead needs none beyond its chunk; these let
# the tail out: the demo writes a sentence's last mark and tag 0.41 s after its last word
# (training/targets.py). Not measured on the real weights.
TAIL_FRAMES = 6


def window_bounds(frame: int, frames: int) -> tuple[int, int]:
    """Samples [start, stop) that the chunk of `frames` encoder frames from `frame` needs."""
    return FRAME_SAMPLES * frame - PAST_SAMPLES, FRAME_SAMPLES * (frame + frames) - SHORT_SAMPLES


@dataclass(slots=True)
class Fork:
    """The steps of one flush, and what they have emitted so far."""

    samples: NDArray[np.float32]  # from `first_sample` on; silence follows
    first_sample: int
    frame: int  # next encoder frame to make
    last_frame: int  # stop once frames up to here are made
    lookaheads: tuple[int, ...]  # of the model, ascending
    fresh: bool = False  # decode from a start-of-stream state instead of the stream's own
    offset: int = 0  # added to emitted frames: where the state's frame 0 lies in the stream
    state: StreamState | None = None  # after the first step
    emissions: list[Emission] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """All frames made."""
        return self.frame > self.last_frame

    @property
    def more(self) -> bool:
        """The next step isn't the last."""
        return self.frame + self.lookahead < self.last_frame

    @property
    def lookahead(self) -> int:
        """The smallest chunk that makes all missing frames, else the largest: few steps."""
        missing = self.last_frame - self.frame + 1
        return next((r for r in self.lookaheads if r + 1 >= missing), self.lookaheads[-1])

    def window(self) -> NDArray[np.float32]:
        """Samples of the next step, silence after the end."""
        start, stop = window_bounds(self.frame, self.lookahead + 1)
        window = np.zeros(stop - start, np.float32)
        low = max(start, self.first_sample)
        high = min(stop, self.first_sample + self.samples.size)
        if high > low:
            window[low - start : high - start] = self.samples[
                low - self.first_sample : high - self.first_sample
            ]
        return window

    def accept(self, emissions: list[Emission], state: StreamState | None) -> None:
        """Take the outcome of a step."""
        self.frame += self.lookahead + 1
        self.emissions += emissions
        self.state = state
