"""What a line does to a voice: room, telephone band, loudness, noise, masked patches."""

from __future__ import annotations

import numpy as np

RATE = 16000
NOISE_S = 40


class Augmenter:
    """Distorts clips (16 kHz, float32) with random rooms, bands and noise."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.noises = [_coloured(rng, slope) for slope in (0.0, 0.5, 1.0)]
        self.babbles: list[np.ndarray] = []

    def learn_babble(self, clips: list[np.ndarray]) -> None:
        """Mix clips to people talking in the background."""
        babbles = []
        for voices in (1, 3, 6):
            mix = np.zeros(RATE * NOISE_S, np.float32)
            for _ in range(voices):
                at = 0
                while at < len(mix):
                    clip = clips[self.rng.integers(len(clips))][: len(mix) - at]
                    mix[at : at + len(clip)] += clip
                    at += len(clip) + int(self.rng.integers(RATE // 2))
            babbles.append(mix / (np.sqrt(np.mean(mix**2)) + 1e-9))
        self.babbles = babbles

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """One clip, distorted; as long as it came."""
        rng = self.rng
        if rng.random() < 0.6:
            clip = self._filtered(clip)
        level = np.sqrt(np.mean(clip**2)) + 1e-6
        clip = clip * (10 ** (rng.uniform(-36.0, -14.0) / 20) / level)
        if rng.random() < 0.65:
            clip = clip + self._noise(clip)
        elif rng.random() < 0.5:
            floor = 10 ** (rng.uniform(-80, -60) / 20)
            clip = clip + self._slice(self.noises[1], len(clip)) * floor
        return np.clip(clip, -1.0, 1.0).astype(np.float32)

    def _filtered(self, clip: np.ndarray) -> np.ndarray:
        """Room and band in one pass over the spectrum."""
        rng = self.rng
        size = 1 << int(np.ceil(np.log2(len(clip) + RATE // 2)))
        spectrum = np.fft.rfft(clip, size)
        frequency = np.fft.rfftfreq(size, 1 / RATE)
        what = rng.random()
        if what < 0.6:
            spectrum *= np.fft.rfft(self._room(), size)
        if what > 0.4:
            upper, lower = rng.uniform(3300.0, 4000.0), rng.uniform(20.0, 320.0)
            spectrum *= 1.0 / (1.0 + (frequency / upper) ** 40)
            spectrum *= 1.0 / (1.0 + (lower / np.maximum(frequency, 1.0)) ** 6)
        # a microphone's colour
        spectrum *= 10 ** (rng.uniform(-4, 4) / 20 * np.log2(np.maximum(frequency, 100) / 1000) / 2)
        return np.asarray(np.fft.irfft(spectrum, size)[: len(clip)], np.float32)

    def _room(self) -> np.ndarray:
        """An exponentially decaying tail behind the direct sound."""
        rng = self.rng
        decay = rng.uniform(0.1, 0.5)
        time = np.arange(int(decay * RATE * 0.8)) / RATE
        tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay)
        tail[: int(RATE * rng.uniform(0.001, 0.01))] = 0.0
        tail *= 10 ** (rng.uniform(-22, -4) / 20) / (np.sqrt(np.sum(tail**2)) + 1e-9)
        tail[0] = 1.0
        return np.asarray(tail, np.float32)

    def _noise(self, clip: np.ndarray) -> np.ndarray:
        rng = self.rng
        quiet = bool(self.babbles) and rng.random() < 0.3
        bank = self.babbles if quiet else self.noises
        ratio = rng.uniform(10.0 if quiet else 6.0, 35.0)
        noise = self._slice(bank[rng.integers(len(bank))], len(clip))
        return noise * (np.sqrt(np.mean(clip**2)) * 10 ** (-ratio / 20))

    def _slice(self, noise: np.ndarray, length: int) -> np.ndarray:
        at = int(self.rng.integers(len(noise)))
        return np.take(noise, np.arange(at, at + length), mode="wrap")

    def another_throat(self, mel: np.ndarray) -> None:
        """Stretch a clip's log-mel [128, frames] along frequency, in place, as in other people."""
        if self.rng.random() < 0.3:
            return
        bins = mel.shape[0]
        place = np.arange(bins) * self.rng.uniform(0.9, 1.12) + self.rng.uniform(-1.5, 1.5)
        place = np.clip(place, 0, bins - 1.001)
        low = place.astype(np.int64)
        share = (place - low).astype(np.float32)[:, None]
        mel[:] = mel[low] * (1.0 - share) + mel[low + 1] * share

    def mask(self, mel: np.ndarray, fill: float) -> None:
        """Blot out bands and short stretches of a clip's log-mel [128, frames], in place."""
        rng = self.rng
        for _ in range(2):
            if rng.random() < 0.7:
                width = int(rng.integers(2, 20))
                at = int(rng.integers(0, mel.shape[0] - width))
                mel[at : at + width] = fill
            if rng.random() < 0.4:
                width = int(rng.integers(2, 9))
                at = int(rng.integers(0, mel.shape[1] - width))
                mel[:, at : at + width] = fill


def _coloured(rng: np.random.Generator, slope: float) -> np.ndarray:
    """Noise whose amplitude falls with frequency to the power of `slope`, of power 1."""
    size = RATE * NOISE_S
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum /= np.maximum(np.fft.rfftfreq(size, 1 / RATE), 50.0) ** slope
    noise = np.fft.irfft(spectrum, size)
    return np.asarray(noise / np.sqrt(np.mean(noise**2)), np.float32)
