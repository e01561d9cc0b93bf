"""How loud the last seconds were: whether a caller is still speaking, whether anything was said.

A flush asks the first, to answer at once or leave the rest for later; and, where it heard no word,
the second, to listen once more. Loudness is enough for both: no detector is run for each caller.
"""

from __future__ import annotations

from statistics import quantiles

import numpy as np
from numpy.typing import NDArray

from nemotron_voice.model.features import FRAME_SAMPLES

RECENT_SAMPLES = 37 * FRAME_SAMPLES  # 3 s, within which a caller has been heard before
_SPEECH_LEVEL = 10 ** (-45 / 20)  # RMS of 80 ms, full scale 1: quieter is never called speech
_SPEECH_ABOVE_FLOOR = 10 ** (12 / 20)
_SPEAKING_LEVEL = 10 ** (-30 / 20)  # of the loudest 80 ms before: the caller is still speaking
_SPEAKING_FRAMES = 2  # 160 ms, shorter than any voice activity detector's stop delay


def is_speaking(recent: NDArray[np.float32]) -> bool:
    """Whether speech goes on right up to the end, or noise of the same loudness since long before.

    That noise isn't told apart on purpose: a fork would hear it break off into silence, and the
    bundled checkpoint takes that for a word (in 6 of 48 flushes after 4 s of white noise, tried).

    Args:
        recent: 16 kHz samples up to now, [RECENT_SAMPLES] or as many as there are.
    """
    levels = _levels(recent)
    if levels.size <= _SPEAKING_FRAMES:
        return False
    # Within a long sentence even the tenth-quietest 80 ms is speech, so the floor lies lower.
    # Not NumPy's percentile: it imports 10 ms of modules in the first flush.
    floor = quantiles(levels.tolist(), n=20, method="inclusive")[0]
    loudest = float(levels.max())
    # In noise, halfway (in dB) between the floor and the speech.
    speech = max(_SPEAKING_LEVEL * loudest, (floor * loudest) ** 0.5)
    return bool(levels[-_SPEAKING_FRAMES:].max() > speech)


def has_speech(samples: NDArray[np.float32]) -> bool:
    """Whether two 80 ms stand out from the quietest: one is a click.

    Args:
        samples: at 16 kHz; less than 160 ms hold no speech.
    """
    levels = _levels(samples)
    if levels.size < 2:
        return False
    loudest = float(np.partition(levels, -2)[-2])
    return loudest > max(_SPEECH_LEVEL, _SPEECH_ABOVE_FLOOR * float(levels.min()))


def _levels(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """RMS of each whole 80 ms, counted from the end, oldest first."""
    frames = samples.size // FRAME_SAMPLES
    whole = samples[samples.size - frames * FRAME_SAMPLES :].reshape(frames, FRAME_SAMPLES)
    levels: NDArray[np.float32] = np.sqrt(np.mean(whole**2, axis=1, dtype=np.float32))
    return levels
