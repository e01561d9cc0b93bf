"""Cache-aware FastConformer: a chunk of encoder frames at a time, each frame computed once.

Keys and values are cached after projection, so a chunk projects its own frames only, and the
projections of the relative positions are made once, at load. The numbers are those of chunked
attention over the whole signal [NeMo 3.0.0 ConformerEncoder, `chunked_limited`].
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.subsampling import Subsampling
from nemotron_voice.model.weights import Weights

_NORM_EPSILON: Final = 1e-5


class Encoder:
    """Subsampling and the stack of blocks."""

    def __init__(self, weights: Weights, config: ModelConfig, dtype: torch.dtype) -> None:
        """Prepare the weights.

        Args:
            weights: checked.
            config: sizes.
            dtype: of the blocks' matrix products and caches; norms, softmax, subsampling and the
                residual stream are fp32 in any case.
        """
        self._left = config.left_context
        self._subsampling = Subsampling(weights, config)
        self._farthest = max(config.lookaheads)
        positions = _sinusoids(
            torch.arange(
                self._left + self._farthest,
                -self._farthest - 1,
                -1,
                device=weights["encoder.subsampling.linear.weight"].device,
            ),
            config.d_model,
        )
        self._blocks = [
            _Block(weights, f"encoder.layers.{layer}", config, dtype, positions)
            for layer in range(config.layers)
        ]

    def __call__(self, mel: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Encode one chunk of each row.

        Args:
            mel: [rows, 8 c, mel_bins] fp32.
            state: of the same rows; left as it is.

        Returns:
            [rows, c, d_model] fp32, and the state after it (its decoder part is `state`'s own).
        """
        frames, last_mel, maps = self._subsampling(
            mel, state.mel, state.maps, first=state.frames == 0
        )
        chunk = frames.shape[1]
        # Rows that are younger than the left context have nothing in the first part of the cache.
        age = torch.arange(self._left, 0, -1, device=frames.device)
        unseen = (age > state.frames[:, None])[:, None, None, :]
        unseen = F.pad(unseen, (0, chunk))  # the chunk sees itself
        margin = self._farthest - chunk + 1
        keys, values, conv = [], [], []
        for index, block in enumerate(self._blocks):
            frames, block_keys, block_values, block_conv = block(
                frames,
                state.keys[:, index],
                state.values[:, index],
                state.conv[:, index],
                unseen,
                margin,
            )
            keys.append(block_keys)
            values.append(block_values)
            conv.append(block_conv)
        after = StreamState(
            keys=torch.stack(keys, 1),
            values=torch.stack(values, 1),
            conv=torch.stack(conv, 1),
            mel=last_mel,
            maps=maps,
            frames=state.frames + chunk,
            hidden=state.hidden,
            cell=state.cell,
            prediction=state.prediction,
        )
        return frames, after


class _Block:
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        config: ModelConfig,
        dtype: torch.dtype,
        positions: Tensor,
    ) -> None:
        self._dtype = dtype
        self._heads, self._head_size = config.heads, config.head_size

        def weight(name: str) -> Tensor:
            return weights[f"{prefix}.{name}"]

        def norm(name: str) -> tuple[Tensor, Tensor]:
            return weight(f"{name}.weight"), weight(f"{name}.bias")

        def linear(*names: str, bias: bool, scale: float = 1.0) -> tuple[Tensor, Tensor | None]:
            """Stack projections of one input; kernels of one tap are matrices."""
            joined = torch.cat([weight(f"{name}.weight").flatten(1) for name in names])
            offset = torch.cat([weight(f"{name}.bias") for name in names]) if bias else None
            return (
                (joined * scale).to(dtype),
                None if offset is None else (offset * scale).to(dtype),
            )

        self._norm_first, self._norm_second = norm("norm_feed_forward1"), norm("norm_feed_forward2")
        self._norm_attention, self._norm_conv = norm("norm_self_att"), norm("norm_conv")
        self._norm_depthwise, self._norm_out = norm("conv.norm"), norm("norm_out")
        biased = config.linear_bias
        # The half of each feed-forward is in its second matrix; a power of two rounds nothing.
        self._first = (
            linear("feed_forward1.linear1", bias=biased),
            linear("feed_forward1.linear2", bias=biased, scale=0.5),
        )
        self._second = (
            linear("feed_forward2.linear1", bias=biased),
            linear("feed_forward2.linear2", bias=biased, scale=0.5),
        )
        self._project = linear(
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", bias=biased
        )
        self._out = linear("self_attn.o_proj", bias=biased)
        self._content_bias = weight("self_attn.bias_u").to(dtype)[:, None]  # [heads, 1, head_size]
        self._position_bias = weight("self_attn.bias_v").to(dtype)[:, None]
        relative = F.linear(positions, weight("self_attn.relative_k_proj.weight"))
        self._relative = (  # [heads, head_size, distances]
            relative.view(-1, self._heads, self._head_size).permute(1, 2, 0).contiguous().to(dtype)
        )
        biased = config.conv_bias
        self._gate = linear("conv.pointwise_conv1", bias=biased)
        # [d_model, kernel]; fp32, as its sums feed a norm
        self._depthwise = weight("conv.depthwise_conv.weight").squeeze(1)
        self._depthwise_bias = weight("conv.depthwise_conv.bias") if biased else None
        self._pointwise = linear("conv.pointwise_conv2", bias=biased)

    def __call__(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        conv: Tensor,
        unseen: Tensor,
        margin: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run a chunk.

        Args:
            x: [rows, c, d_model] fp32.
            keys: [rows, heads, left_context, head_size], newest last.
            values: the same.
            conv: [rows, kernel - 1, d_model].
            unseen: [rows, 1, 1, left_context + c] bool, what attention must not see.
            margin: unused distances at either end of the table of relative positions.

        Returns:
            `x` after the block, and the caches after the chunk.
        """
        x = x + self._feed_forward(self._norm(x, self._norm_first), self._first)
        attended, keys, values = self._attention(
            self._norm(x, self._norm_attention), keys, values, unseen, margin
        )
        x = x + attended
        convolved, conv = self._convolution(self._norm(x, self._norm_conv), conv)
        x = x + convolved
        x = x + self._feed_forward(self._norm(x, self._norm_second), self._second)
        return F.layer_norm(x, x.shape[-1:], *self._norm_out, _NORM_EPSILON), keys, values, conv

    def _norm(self, x: Tensor, parameters: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *parameters, _NORM_EPSILON).to(self._dtype)

    @staticmethod
    def _feed_forward(
        x: Tensor, layers: tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        return F.linear(F.silu(F.linear(x, *layers[0])), *layers[1])

    def _attention(
        self, x: Tensor, keys: Tensor, values: Tensor, unseen: Tensor, margin: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, chunk, _ = x.shape
        projected = F.linear(x, *self._project).view(rows, chunk, 3, self._heads, self._head_size)
        query, new_keys, new_values = projected.permute(2, 0, 3, 1, 4)
        keys = torch.cat([keys, new_keys], 2)
        values = torch.cat([values, new_values], 2)
        scores = torch.matmul(query + self._content_bias, keys.transpose(2, 3))
        relative = self._relative[:, :, margin : self._relative.shape[2] - margin]
        by_distance = torch.matmul(query + self._position_bias, relative)
        scores = scores + _by_key(by_distance, keys.shape[2])
        scores = (scores.float() / math.sqrt(self._head_size)).masked_fill_(unseen, -math.inf)
        attention = torch.softmax(scores, -1).to(self._dtype)
        heard = torch.matmul(attention, values).transpose(1, 2).reshape(rows, chunk, -1)
        return F.linear(heard, *self._out), keys[:, :, chunk:], values[:, :, chunk:]

    def _convolution(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        chunk = x.shape[1]
        gated = torch.cat([cache, F.glu(F.linear(x, *self._gate))], 1)
        # Measured on one row of 256 channels: a quarter of conv1d's time, which is all set-up.
        taps = gated.float().unfold(1, self._depthwise.shape[1], 1)
        mixed = (taps * self._depthwise).sum(-1)
        if self._depthwise_bias is not None:
            mixed = mixed + self._depthwise_bias
        mixed = F.silu(self._norm(mixed, self._norm_depthwise))
        return F.linear(mixed, *self._pointwise), gated[:, chunk:]


def _by_key(by_distance: Tensor, keys: int) -> Tensor:
    """Reorder scores by distance into scores by key, without a copy (Transformer-XL's shift).

    Args:
        by_distance: [rows, heads, c, keys + c - 1], from the farthest past to the farthest future;
            query i is at distance i - j from key j.
        keys: number of keys, the last c of which are the chunk's own.

    Returns:
        [rows, heads, c, keys], a view.
    """
    rows, heads, chunk, distances = by_distance.shape
    return by_distance.contiguous().as_strided(
        (rows, heads, chunk, keys),
        (heads * chunk * distances, chunk * distances, distances - 1, 1),
        chunk - 1,
    )


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
