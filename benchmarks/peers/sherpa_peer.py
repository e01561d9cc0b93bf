"""sherpa-onnx itself: whole steps, from samples to text, of its online recogniser."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.onnx_export import FILES, export
from benchmarks.peers.peer import FRAME_SAMPLES, RATE, Step, speech

WINDOW_S = 0.2  # of audio beyond its chunks, so that a step has one chunk and not none


class SherpaPeer:
    """One recogniser a mode, with as many threads as PyTorch has here."""

    def __init__(self, folder: Path, precision: str) -> None:
        del precision  # int8
        self._folder = folder
        self._lookahead = -1
        self._recognizer: Any = None

    def stream(self, lookahead: int, streams: int) -> Step:
        """See Peer."""
        import sherpa_onnx

        if lookahead != self._lookahead:
            folder = export(self._folder, lookahead)
            self._recognizer = None
            self._recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
                tokens=str(folder / "tokens.txt"),
                **{part: str(folder / name) for part, name in FILES.items()},
                num_threads=torch.get_num_threads(),
                feature_dim=128,
            )
            self._lookahead = lookahead
        recognizer = self._recognizer
        opened = [recognizer.create_stream() for _ in range(streams)]
        chunks = speech(streams, lookahead)
        for _ in range(math.ceil(WINDOW_S * RATE / (FRAME_SAMPLES * (lookahead + 1)))):
            for stream, samples in zip(opened, next(chunks), strict=True):
                stream.accept_waveform(RATE, samples[: int(WINDOW_S * RATE)])

        def step() -> object:
            for stream, samples in zip(opened, next(chunks), strict=True):
                stream.accept_waveform(RATE, samples)
            ready = [stream for stream in opened if recognizer.is_ready(stream)]
            if len(ready) < streams:
                raise RuntimeError("a stream had no chunk: sherpa-onnx crashes on an empty batch")
            recognizer.decode_streams(ready)
            return [recognizer.get_result(stream) for stream in ready]

        return step
