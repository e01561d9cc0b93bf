"""Speaks one utterance with Kokoro-82M in OpenVINO: audio and the words' times."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import soxr
from numpy.typing import NDArray

from training.alignment import (
    SAMPLE_RATE,
    UNIT_SAMPLES,
    TimedWord,
    tokenise,
    trimmed,
    word_times,
)
from training.kokoro_graph import GRAPH, VOCABULARY
from training.phonemes import phonemise
from training.voices import style

OUTPUT_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Speech:
    """A clip at 16 kHz with what is said when."""

    samples: NDArray[np.float32]
    words: list[TimedWord]


class Kokoro:
    """One single-threaded copy of the model; a process holds one."""

    def __init__(self, folder: Path) -> None:
        """Compile the graph that `kokoro_graph.fetch` prepared in `folder`."""
        self._folder = folder
        self._vocabulary = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        options = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16",
            # Pinned, all processes would share the first core.
            "ENABLE_CPU_PINNING": False,
            # Kernels compiled for each length; by default 5,000 of them, or gigabytes.
            "CPU_RUNTIME_CACHE_CAPACITY": 1000,
        }
        self._model = openvino.Core().compile_model(str(folder / GRAPH), "CPU", options)

    def speak(
        self, text: str, language: str, speaker: str, *, speed: float, margin_s: float
    ) -> Speech:
        """Speak `text`; `margin_s` of silence is left at both ends."""
        words = phonemise(text, language)
        spans = tokenise(words, self._vocabulary)
        table = style(speaker, self._folder / "kokoro")
        outputs = self._model(
            {
                "tokens": np.array([spans.tokens], np.int64),
                "style": table[len(spans.tokens) - 3][None],
                "speed": np.array([speed], np.float32),
            }
        )
        audio, durations = outputs[0], outputs[1].reshape(-1)
        if int(durations.sum()) * UNIT_SAMPLES != len(audio):
            raise RuntimeError(
                f"{text!r}: {durations.sum():.0f} units of {UNIT_SAMPLES} samples predicted, "
                f"{len(audio)} samples spoken"
            )
        cut, times = trimmed(audio, word_times(words, spans, durations), margin_s)
        samples = soxr.resample(cut, SAMPLE_RATE, OUTPUT_RATE)
        return Speech((samples * min(1.0, 0.95 / np.abs(samples).max())).astype(np.float32), times)
