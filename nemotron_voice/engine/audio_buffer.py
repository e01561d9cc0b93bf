"""The 16 kHz samples of one stream that are still needed: what is undecoded, plus a short past."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nemotron_voice.resampler import MODEL_SAMPLE_RATE

_FIRST_CAPACITY = 2 * MODEL_SAMPLE_RATE


class AudioBuffer:
    """Samples addressed by their index since the stream began.

    Index arithmetic is absolute, so that a window is named the same whatever has been dropped.
    Reading before sample 0 gives zeros: that is the signal's past in the reference front end.
    """

    def __init__(self) -> None:
        self._samples = np.zeros(_FIRST_CAPACITY, np.float32)
        self._first = 0  # absolute index of _samples[0]
        self.end = 0  # absolute index after the last sample

    def append(self, samples: NDArray[np.float32]) -> None:
        """Add samples at the end; capacity doubles when they don't fit, and is reused after."""
        used = self.end - self._first
        if used + samples.size > self._samples.size:
            capacity = self._samples.size
            while used + samples.size > capacity:
                capacity *= 2
            grown = np.zeros(capacity, np.float32)
            grown[:used] = self._samples[:used]
            self._samples = grown
        self._samples[used : used + samples.size] = samples
        self.end += samples.size

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Copy samples [start, stop); zeros before sample 0 and after the end.

        Raises:
            IndexError: the samples have been dropped already.
        """
        if start < self._first and self._first > 0:
            raise IndexError(f"samples from {start} were dropped; the first kept is {self._first}")
        window = np.zeros(stop - start, np.float32)
        low, high = max(start, 0), min(stop, self.end)
        if high > low:
            window[low - start : high - start] = self._samples[
                low - self._first : high - self._first
            ]
        return window

    def drop_before(self, index: int) -> None:
        """Forget samples before `index`; moved only when half the array is waste."""
        index = min(index, self.end)
        unused = index - self._first
        if unused <= 0 or (unused < self._samples.size // 2 and self.end > index):
            return
        kept = self.end - index
        self._samples[:kept] = self._samples[unused : unused + kept].copy()
        self._first = index

    @property
    def first(self) -> int:
        """Absolute index of the oldest sample kept."""
        return self._first
