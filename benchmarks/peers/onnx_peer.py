"""ONNX Runtime on NeMo's export, int8: the encoder that sherpa-onnx runs, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.onnx_export import AUTO, FILES, export
from benchmarks.peers.peer import LEFT_CONTEXT, Step, features


class OnnxPeer:
    """One session a mode, with as many threads as PyTorch has here."""

    def __init__(self, folder: Path, precision: str) -> None:
        del precision  # int8
        self._folder = folder
        self._lookahead = -1
        self._session: Any = None

    def stream(self, lookahead: int, streams: int) -> Step:
        """See Peer."""
        import onnxruntime

        if lookahead != self._lookahead:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = None
            self._session = onnxruntime.InferenceSession(
                str(export(self._folder, lookahead) / FILES["encoder"]),
                options,
                providers=["CPUExecutionProvider"],
            )
            self._lookahead = lookahead
        # 9 mel frames that were heard before, which the export drops again.
        mel = features(streams, 9 + 8 * (lookahead + 1)).transpose(1, 2).contiguous().numpy()
        feed = {
            "audio_signal": mel,
            "length": np.full(streams, mel.shape[2], np.int64),
            "cache_last_channel": np.zeros((streams, 24, LEFT_CONTEXT, 1024), np.float32),
            "cache_last_time": np.zeros((streams, 24, 1024, 8), np.float32),
            "cache_last_channel_len": np.zeros(streams, np.int64),
            "prompt_index": np.full(streams, AUTO, np.int64),
        }

        def step() -> object:
            frames, _, *caches = self._session.run(None, feed)
            feed.update(zip(list(feed)[2:5], caches, strict=True))
            return frames

        return step
