"""What a stream is, between two chunks: plain tensors, to be copied, reset and moved at will."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from nemotron_voice.model.config import ModelConfig


@dataclass(slots=True)
class StreamState:
    """State of several streams, one row each; every tensor has its rows first.

    Rows are independent: they may be at different offsets, in different languages and modes.
    """

    keys: Tensor  # [rows, layers, heads, left_context, head_size], newest last, as projected
    values: Tensor  # the same
    conv: Tensor  # [rows, layers, conv_kernel - 1, d_model]: inputs of the depthwise convolutions
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
        """Zeroed memory for `rows` streams; not yet their beginning (`Network.initial_state`).

        Args:
            config: sizes.
            rows: number of streams.
            device: where.
            dtype: of the encoder blocks' caches; everything else is fp32.
        """

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(rows, *shape, device=device, dtype=dtype)

        cache = (config.layers, config.heads, config.left_context, config.head_size)
        lstm = (config.prediction_layers, config.prediction_size)
        return cls(
            keys=zeros(*cache, dtype=dtype),
            values=zeros(*cache, dtype=dtype),
            conv=zeros(config.layers, config.conv_kernel - 1, config.d_model, dtype=dtype),
            mel=zeros(1, config.mel_bins),
            maps=[zeros(config.subsampling_channels, 1, bins) for bins in config.map_sizes[:2]],
            frames=zeros(dtype=torch.int64),
            hidden=zeros(*lstm),
            cell=zeros(*lstm),
            prediction=zeros(config.joint_size),
        )

    @property
    def rows(self) -> int:
        """Number of streams."""
        return self.frames.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory of all rows."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())

    @torch.inference_mode()
    def gather(self, index: Tensor) -> StreamState:
        """Copy rows out.

        Args:
            index: [n] int64, rows wanted.
        """
        rows: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            rows[field.name] = (
                [tensor[index] for tensor in value] if isinstance(value, list) else value[index]
            )
        return StreamState(**rows)

    @torch.inference_mode()
    def scatter_(self, index: Tensor, other: StreamState) -> None:
        """Write the rows of `other` here.

        Args:
            index: [other.rows] int64, where each goes; no row twice.
            other: what to write.
        """
        for mine, its in zip(self._tensors(), other._tensors(), strict=True):
            mine.index_copy_(0, index, its)

    def _tensors(self) -> Iterator[Tensor]:
        for field in fields(self):
            value = getattr(self, field.name)
            yield from value if isinstance(value, list) else (value,)
