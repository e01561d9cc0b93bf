"""What a peer is to the benchmark, and the weights that all of them get."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from nemotron_voice.bench.speech import recordings

LEFT_CONTEXT = 56
RATE = 16_000
FRAME_SAMPLES = 1_280

Step = Callable[[], object]  # runs one step of all streams


class Peer(Protocol):
    """An engine with the weights loaded."""

    def stream(self, lookahead: int, streams: int) -> Step:
        """Begin streams of a mode; what is returned runs their next step."""


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config.json and the weights of a Hugging Face folder."""
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return json.loads((folder / "config.json").read_text(encoding="utf-8")), weights


def features(streams: int, frames: int, bins: int = 128) -> Tensor:
    """Log-mel features of noise, which cost what those of speech cost: [streams, frames, bins]."""
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(streams, frames, bins, generator=generator) - 10


def speech(streams: int, lookahead: int) -> Iterator[list[NDArray[np.float32]]]:
    """Chunks of what our own steps hear, endlessly: of each stream [chunk's samples] at 16 kHz."""
    sounds, size = recordings(), FRAME_SAMPLES * (lookahead + 1)
    begin = 0
    while True:
        places = np.arange(begin, begin + size)
        yield [
            np.take(sounds[number % len(sounds)].samples, places + number * RATE, mode="wrap")
            for number in range(streams)
        ]
        begin += size
