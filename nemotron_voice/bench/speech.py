"""What callers say in a benchmark: recordings in a loop, or noise with the rhythm of speech."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nemotron_voice.audio import read_samples
from nemotron_voice.errors import ConfigurationError

RATE: Final = 16_000
_BLOCK: Final = RATE // 10
_QUIET: Final = 0.002  # mean magnitude of 100 ms; the bundled calls' pauses lie far below
_PAUSE_BLOCKS: Final = (
    4  # 0.4 s: what a voice activity detector takes for a stop, and a little more
)


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording, and where an agent would flush it."""

    samples: NDArray[np.float32]  # [n] at 16 kHz
    pauses: tuple[int, ...]  # samples, ascending: where 0.4 s of quiet end


def recordings(paths: Sequence[Path] = ()) -> list[Recording]:
    """Recordings of callers: given files, the bundled calls, or else noise like speech."""
    return list(_recordings(tuple(paths)))


@functools.cache
def _recordings(paths: tuple[Path, ...]) -> tuple[Recording, ...]:
    sounds = [read_samples(path) for path in paths or _bundled()] or [speech_like(60.0)]
    for path, samples in zip(paths, sounds, strict=False):
        if samples.size < RATE:
            raise ConfigurationError(
                f"{path} lasts {samples.size / RATE:.2f} s; give recordings of a second or more"
            )
    return tuple(Recording(samples, pauses(samples)) for samples in sounds)


def _bundled() -> list[Path]:
    """The calls that come with the package; none if it was built without them."""
    folder = Path(str(files("nemotron_voice"))) / "demo" / "calls"
    index = folder / "calls.jsonl"
    if not index.is_file():
        return []
    lines = index.read_text(encoding="utf-8").splitlines()
    return [folder / json.loads(line)["audio"] for line in lines]


def pauses(samples: NDArray[np.float32]) -> tuple[int, ...]:
    """Where quiet has lasted 0.4 s for the first time, in samples.

    Args:
        samples: [n] at 16 kHz.
    """
    blocks = np.abs(samples[: samples.size // _BLOCK * _BLOCK]).reshape(-1, _BLOCK).mean(axis=1)
    found, quiet = [], 0
    for number, loudness in enumerate(blocks):
        quiet = quiet + 1 if loudness < _QUIET else 0
        if quiet == _PAUSE_BLOCKS and number >= _PAUSE_BLOCKS:
            found.append(_BLOCK * (number + 1))
    return tuple(found)


def speech_like(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """A buzz of wandering pitch in noise, four syllables a second, with pauses: [n] at 16 kHz."""
    generator = np.random.default_rng(seed)
    count = int(seconds * RATE)
    time = np.arange(count) / RATE

    def wander(hertz: float) -> NDArray[np.float64]:
        """A smooth random curve of unit size."""
        knots = generator.standard_normal(int(seconds * hertz) + 3)
        curve: NDArray[np.float64] = np.interp(time * hertz, np.arange(knots.size), knots)
        return curve

    phase = 2 * np.pi * np.cumsum(140 * 2 ** (0.4 * wander(1.5))) / RATE
    buzz = np.sum([np.sin(k * phase) / k * 2 ** wander(6.0) for k in range(1, 20)], axis=0)
    hiss = generator.standard_normal(count) * 2 ** wander(8.0)
    syllables = np.clip(np.sin(2 * np.pi * (4 * time + 0.3 * wander(2.0))) + 0.4, 0, None)
    talking = wander(0.4) > -0.8
    sound = talking * syllables * (0.08 * buzz + 0.02 * hiss)
    heard: NDArray[np.float32] = sound + 3e-4 * generator.standard_normal(count)
    return heard.astype(np.float32)
