"""Cache-aware FastConformer: a chunk of encoder frames at a time, each frame computed once.

Keys and values are cached after projection, so a chunk projects its own frames only, and the
projections of the relative positions are made once, at load. The numbers are those of chunked
attention over the whole signal [NeMo 3.0.0 ConformerEncoder, `chunked_limited`].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nemotron_voice.model.block_weights import BlockWeights
from nemotron_voice.model.blocks import Blocks
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.fused_blocks import FusedBlocks
from nemotron_voice.model.precision import Precision
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.subsampling import Subsampling
from nemotron_voice.model.weights import Weights


@dataclass(frozen=True, slots=True)
class Advance:
    """What a chunk leaves for the next one, apart from keys and values: not yet in the state."""

    conv: Tensor  # [layers, rows, kernel - 1, d_model]
    mel: Tensor
    maps: list[Tensor]
    frames: Tensor


class Encoder:
    """Subsampling and the stack of blocks."""

    def __init__(self, weights: Weights, config: ModelConfig, precision: Precision) -> None:
        """Prepare the weights.

        Args:
            weights: checked.
            config: sizes.
            precision: of the blocks.
        """
        self._subsampling = Subsampling(weights, config, precision)
        farthest = max(config.lookaheads)
        positions = _sinusoids(
            torch.arange(
                config.left_context + farthest,
                -farthest - 1,
                -1,
                device=weights["encoder.subsampling.linear.weight"].device,
            ),
            config.d_model,
        )
        blocks = [
            BlockWeights.of(weights, layer, config, precision, positions)
            for layer in range(config.layers)
        ]
        fused = FusedBlocks.if_possible(blocks, config)
        self._blocks = fused or Blocks(blocks, config, precision)

    def __call__(self, mel: Tensor, state: StreamState, rows: Tensor) -> tuple[Tensor, Advance]:
        """Encode one chunk of each row.

        Writes the chunk's keys and values into the rings, where nothing valid lies: until
        `advance`, the rows are what they were.

        Args:
            mel: [n, 8 c, mel_bins] fp32.
            state: the slab.
            rows: [n] int64, which rows of it; no row twice.

        Returns:
            [n, c, d_model] fp32, and what `advance` puts into the state.
        """
        begun = state.frames.index_select(0, rows)
        frames, last_mel, maps = self._subsampling(
            mel,
            state.mel.index_select(0, rows),
            [one.index_select(0, rows) for one in state.maps],
            first=begun == 0,
        )
        chunk = frames.shape[1]
        conv = state.conv.index_select(1, rows)
        frames = self._blocks(frames, state, rows, begun, conv)
        return frames, Advance(conv, last_mel, maps, begun + chunk)


def advance(state: StreamState, rows: Tensor, after: Advance) -> None:
    """Make a chunk part of the rows' state."""
    state.conv.index_copy_(1, rows, after.conv)
    state.mel.index_copy_(0, rows, after.mel)
    for mine, its in zip(state.maps, after.maps, strict=True):
        mine.index_copy_(0, rows, its)
    state.frames.index_copy_(0, rows, after.frames)


def _sinusoids(distances: Tensor, d_model: int) -> Tensor:
    """Transformer-XL's encoding of distances, sines and cosines interleaved: [distances, d_model].

    Args:
        distances: [n], query minus key in frames.
        d_model: even.
    """
    channels = torch.arange(0, d_model, 2, dtype=torch.float32, device=distances.device)
    rates = torch.exp(channels * -(math.log(10_000.0) / d_model))
    angles = distances.float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
