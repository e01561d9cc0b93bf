"""Any sample rate to 16 kHz, streamed: the same samples out, whatever the packets.

FFmpeg's libswresample does it, through PyAV. Measured against soxr 1.0/1.1, 10 ms packets: soxr's
fixed-rate mode works in FFT blocks and holds back 115 ms at 8 kHz and 37 ms at 48 kHz, in bursts,
so a flush would miss that much of what was said; its variable-rate mode holds back 30 and 13 ms and
came with 1.1, which Pipecat's pin excludes. libswresample holds back 2 ms and less, and its output
is the same bit for bit for packets of any size.
"""

from __future__ import annotations

from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

MODEL_SAMPLE_RATE: Final = 16_000


class Resampler:
    """One stream's way from its sample rate to 16 kHz. 16 kHz passes through.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._began = False  # an unused converter has nothing to give back, and refuses to
        self._converter: av.AudioResampler | None = None
        if sample_rate != MODEL_SAMPLE_RATE:
            self._converter = av.AudioResampler(format="flt", layout="mono", rate=MODEL_SAMPLE_RATE)

    def process(self, samples: Samples, *, last: bool = False) -> Samples:
        """Take samples [n], return those at 16 kHz that are certain by now [m].

        Args:
            samples: float32, any number, also none.
            last: nothing follows; return what is held back, too.
        """
        if self._converter is None:
            return samples
        made: list[av.AudioFrame] = []
        if samples.size:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples, np.float32)[None], format="flt", layout="mono"
            )
            frame.sample_rate = self._sample_rate
            made += self._converter.resample(frame)
            self._began = True
        if last and self._began:
            made += self._converter.resample(None)
        if not made:
            return np.zeros(0, np.float32)
        return np.concatenate([frame.to_ndarray()[0] for frame in made])
