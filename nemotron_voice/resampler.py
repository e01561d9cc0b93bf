"""Any sample rate to 16 kHz, streamed: the same samples out, whatever the packets.

A polyphase windowed-sinc filter, written here because of what soxr does with a live call: its
fixed-rate mode works in FFT blocks and holds back 29 to 115 ms at 8 kHz (12 to 37 ms at 48 kHz), in
bursts, so a flush would miss that much of what was said. Its variable-rate mode doesn't, but came
with 1.1, which Pipecat's pin excludes. This filter holds back 9 ms or less; it is tested against
soxr.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd, pi
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Samples = NDArray[np.float32]

MODEL_SAMPLE_RATE: Final = 16_000

# Of the lower of the two Nyquist frequencies: the pass band ends here, the stop band begins at 1,
# so that nothing is aliased or mirrored. soxr's HQ recipe has 0.913.
_PASS_BAND: Final = 0.92
_ATTENUATION_DB: Final = 90.0
_KAISER_BETA: Final = 0.1102 * (_ATTENUATION_DB - 8.7)  # Kaiser 1974, for more than 50 dB


@dataclass(frozen=True, slots=True)
class _Filter:
    """A sinc filter, sampled at each of the positions an output can have between two inputs.

    Output n lies at input position n * step / phases; it is the dot product of the `2 * reach`
    inputs around it with row `n * step % phases` of `taps`.
    """

    phases: int
    step: int
    reach: int
    taps: Samples  # [phases, 2 * reach]


@lru_cache(maxsize=8)  # at most 24 MB each, for rates that have no common divisor with 16,000
def _design(sample_rate: int) -> _Filter:
    common = gcd(sample_rate, MODEL_SAMPLE_RATE)
    phases, step = MODEL_SAMPLE_RATE // common, sample_rate // common
    nyquist = min(1.0, MODEL_SAMPLE_RATE / sample_rate)  # of the input's
    width = (1 - _PASS_BAND) * nyquist
    reach = ceil((_ATTENUATION_DB - 8) / (2.285 * pi * width) / 2)
    cutoff = (1 + _PASS_BAND) / 2 * nyquist
    # [phases, 2 * reach]: distance of each input from the output, in input samples
    distance = np.arange(1 - reach, reach + 1) - np.arange(phases)[:, None] / phases
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None)))
    taps = cutoff * np.sinc(cutoff * distance) * window / np.i0(_KAISER_BETA)
    taps /= taps.sum(axis=1, keepdims=True)  # a constant stays what it is at every phase
    return _Filter(phases, step, reach, taps.astype(np.float32))


class Resampler:
    """One stream's way from its sample rate to 16 kHz. 16 kHz passes through.

    Every output is one dot product of the same numbers in the same order, so that packets of any
    sizes give the same samples bit for bit.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._filter = _design(sample_rate) if sample_rate != MODEL_SAMPLE_RATE else None
        reach = self._filter.reach if self._filter else 1
        self._inputs = np.zeros(reach - 1, np.float32)  # before the first sample there is silence
        self._first = 1 - reach  # index in the stream of _inputs[0]
        self._outputs = 0

    def process(self, samples: Samples, *, last: bool = False) -> Samples:
        """Take samples [n], return those at 16 kHz that are certain by now [m].

        Args:
            samples: float32, any number, also none.
            last: nothing follows; return what is held back, too.
        """
        if self._filter is None:
            return samples
        phases, step, reach = self._filter.phases, self._filter.step, self._filter.reach
        inputs = np.concatenate((self._inputs, samples))
        end = self._first + inputs.size
        if last:
            inputs = np.concatenate((inputs, np.zeros(reach, np.float32)))
        else:
            end -= reach  # an output needs that many inputs after it
        outputs = max(-(-end * phases // step), self._outputs)
        at, phase = np.divmod(np.arange(self._outputs, outputs) * step, phases)
        resampled: Samples = np.zeros(0, np.float32)
        if at.size:
            windows = sliding_window_view(inputs, 2 * reach)[at + 1 - reach - self._first]
            resampled = np.einsum("nt,nt->n", windows, self._filter.taps[phase])
        self._outputs = outputs
        unused = max(outputs * step // phases + 1 - reach - self._first, 0)
        self._inputs = inputs[unused:].copy()
        self._first += unused
        return resampled
