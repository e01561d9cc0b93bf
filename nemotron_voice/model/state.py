"""What streams are, between two chunks: one slab of plain tensors, a row a stream.

Keys and values lie in a ring: frame n at place n % ring. The ring holds the left context and one
chunk more, so that a step writes its chunk where nothing is needed any more, and a row's state is
what it was until its `frames` count goes up. Nothing is shifted and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nemotron_voice.model.config import ModelConfig


@dataclass(slots=True)
class StreamState:
    """State of several streams.

    Rows are independent: they may be at different offsets, in different languages and modes.
    """

    keys: Tensor  # [layers, rows, heads, ring, head_size], as projected; frame n at n % ring
    values: Tensor  # the same
    conv: Tensor  # [layers, rows, conv_kernel - 1, d_model]: inputs of the depthwise convolutions
    mel: Tensor  # [rows, 1, mel_bins]: the last mel frame
    maps: list[Tensor]  # [rows, channels, 1, bins] x 2: last inputs of subsampling stages 2 and 3
    frames: Tensor  # [rows] int64: encoder frames made so far
    hidden: Tensor  # [rows, prediction_layers, prediction_size]
    cell: Tensor  # the same
    prediction: Tensor  # [rows, joint_size]: what the prediction network says to the joint

    @classmethod
    def allocate(
        cls, config: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype
    ) -> StreamState:
        """Zeroed memory for `rows` streams; not yet their beginning (`Network.start`).

        Args:
            config: sizes.
            rows: number of streams.
            device: where.
            dtype: of the encoder blocks' caches; everything else is fp32.
        """

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, device=device, dtype=dtype)

        ring = config.left_context + max(config.lookaheads) + 1
        cache = (config.layers, rows, config.heads, ring, config.head_size)
        lstm = (rows, config.prediction_layers, config.prediction_size)
        channels = config.subsampling_channels
        return cls(
            keys=zeros(*cache, dtype=dtype),
            values=zeros(*cache, dtype=dtype),
            conv=zeros(config.layers, rows, config.conv_kernel - 1, config.d_model, dtype=dtype),
            mel=zeros(rows, 1, config.mel_bins),
            maps=[zeros(rows, channels, 1, bins) for bins in config.map_sizes[:2]],
            frames=zeros(rows, dtype=torch.int64),
            hidden=zeros(*lstm),
            cell=zeros(*lstm),
            prediction=zeros(rows, config.joint_size),
        )

    @property
    def rows(self) -> int:
        """Number of streams."""
        return self.frames.shape[0]

    @property
    def ring(self) -> int:
        """Places of the rings of keys and values."""
        return self.keys.shape[3]

    @property
    def nbytes(self) -> int:
        """Memory of all rows."""
        return sum(tensor.numel() * tensor.element_size() for tensor, _ in self._tensors())

    @torch.inference_mode()
    def copy_(self, index: Tensor, other: StreamState, other_index: Tensor) -> None:
        """Copy rows of `other` (which may be this slab) into rows of this one.

        Args:
            index: [n] int64, where they go; no row twice.
            other: where they come from.
            other_index: [n] int64, which rows of it.
        """
        for (mine, dim), (its, _) in zip(self._tensors(), other._tensors(), strict=True):
            mine.index_copy_(dim, index, its.index_select(dim, other_index))

    @torch.inference_mode()
    def take(self, index: Tensor) -> StreamState:
        """A slab of copies of some rows.

        Args:
            index: [n] int64.
        """
        keys, values, conv, mel, *maps, frames, hidden, cell, prediction = (
            tensor.index_select(dim, index) for tensor, dim in self._tensors()
        )
        return StreamState(keys, values, conv, mel, maps, frames, hidden, cell, prediction)

    def _tensors(self) -> Iterator[tuple[Tensor, int]]:
        """Each tensor, and which of its dimensions is the rows."""
        yield from ((self.keys, 1), (self.values, 1), (self.conv, 1), (self.mel, 0))
        yield from ((maps, 0) for maps in self.maps)
        yield from ((self.frames, 0), (self.hidden, 0), (self.cell, 0), (self.prediction, 0))
