"""ONNX Runtime on NeMo's own export, int8 by its dynamic quantisation: what sherpa-onnx runs.

The export bakes the mode in, so there is a file for each, made once beside the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.peer import LEFT_CONTEXT, Step, features


def export(folder: Path, lookahead: int) -> Path:
    """Export and quantise the encoder of one mode, if it hasn't been: some two minutes."""
    quantised = folder / f"nemo-int8-{lookahead}.onnx"
    if quantised.exists():
        return quantised
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from benchmarks.peers.nemo_peer import encoder

    model = encoder(folder)
    model.set_default_att_context_size([LEFT_CONTEXT, lookahead])
    model.export_cache_support = True
    exact = folder / "nemo-fp32" / "encoder.onnx"
    exact.parent.mkdir(exist_ok=True)
    # Traced with two streams: with one, the masks are made for one only.
    model.export(str(exact), input_example=model.input_example(max_batch=2), check_trace=False)
    del model
    part = quantised.with_suffix(".part")
    quantize_dynamic(str(exact), str(part), weight_type=QuantType.QInt8)
    part.rename(quantised)
    for leftover in exact.parent.iterdir():
        leftover.unlink()
    return quantised


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
                str(export(self._folder, lookahead)),
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
        }

        def step() -> object:
            frames, _, *caches = self._session.run(None, feed)
            feed.update(zip(list(feed)[2:], caches, strict=True))
            return frames

        return step
