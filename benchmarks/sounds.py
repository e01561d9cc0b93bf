"""Sounds that aren't speech, made by formula: noise, traffic, music, coughs, keys. 16 kHz."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
Sound = NDArray[np.float32]


def coloured_noise(seconds: float, rng: np.random.Generator, slope: float) -> Sound:
    """Noise whose power falls with frequency to the power of `slope`; RMS 1."""
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20.0)
    sound = np.fft.irfft(spectrum * frequency ** (-slope / 2), count)
    return (sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def music(seconds: float, rng: np.random.Generator) -> Sound:
    """Chords of plucked notes with a drum: 100 beats a minute; RMS 1."""
    out = np.zeros(int(seconds * RATE), np.float32)
    beat = int(0.6 * RATE)
    time = np.arange(int(1.1 * RATE)) / RATE
    for number, at in enumerate(range(0, out.size - time.size, beat)):
        root = 110.0 * 2 ** (rng.choice([0, 3, 5, 7, 10]) / 12)
        for semitone in (0, 4, 7, 12):
            pitch = root * 2 ** (semitone / 12) * (2 if number % 2 else 1)
            for harmonic in range(1, 6):
                decay = np.exp(-time * (2 + harmonic))
                tone = np.sin(2 * np.pi * pitch * harmonic * time) / harmonic**1.3
                out[at : at + time.size] += (tone * decay).astype(np.float32)
        drum = rng.standard_normal(1600) * np.exp(-np.arange(1600) / 300)
        out[at : at + 1600] += drum.astype(np.float32)
    return out / np.sqrt(np.mean(out**2))


def _bursts(
    seconds: float, rng: np.random.Generator, gap_s: tuple[float, float], burst: Callable[[], Sound]
) -> Sound:
    out = coloured_noise(seconds, rng, 1.0) * 0.01
    at = 0.5
    while True:
        sound = burst()
        begin = int(at * RATE)
        if begin + sound.size > out.size:
            return out / np.abs(out).max() * np.float32(6.0)  # peaks that much above RMS 1
        out[begin : begin + sound.size] += sound
        at += float(rng.uniform(*gap_s))


def coughs(seconds: float, rng: np.random.Generator) -> Sound:
    """One to three hacks in a row, every two to four seconds."""

    def cough() -> Sound:
        hacks = []
        for _ in range(rng.integers(1, 4)):
            length = int(rng.uniform(0.15, 0.3) * RATE)
            time = np.arange(length) / RATE
            throat = np.sign(np.sin(2 * np.pi * rng.uniform(90, 180) * time)) * 0.3
            breath = coloured_noise(length / RATE, rng, 0.7)
            shape = np.minimum(time / 0.01, 1) * np.exp(-time * 14)
            hacks += [(breath[:length] + throat) * shape, np.zeros(int(0.08 * RATE))]
        return np.concatenate(hacks).astype(np.float32)

    return _bursts(seconds, rng, (2.0, 4.0), cough)


def keys(seconds: float, rng: np.random.Generator) -> Sound:
    """Somebody types."""

    def key() -> Sound:
        length = int(0.03 * RATE)
        click = coloured_noise(0.03, rng, -0.5)[:length] * np.exp(-np.arange(length) / 80)
        return click.astype(np.float32)

    return _bursts(seconds, rng, (0.08, 0.4), key)


SOUNDS: dict[str, Callable[[float, np.random.Generator], Sound]] = {
    "white noise": lambda seconds, rng: coloured_noise(seconds, rng, 0.0),
    "pink noise": lambda seconds, rng: coloured_noise(seconds, rng, 1.0),
    "traffic": lambda seconds, rng: coloured_noise(seconds, rng, 2.0),
    "music": music,
    "coughs": coughs,
    "keys": keys,
}
