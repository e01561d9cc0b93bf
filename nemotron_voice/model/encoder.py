"""Cache-aware FastConformer: a chunk of encoder frames at a time, each frame computed once.

Keys and values are cached after projection, so a chunk projects its own frames only, and the
projections of the relative positions are made once, at load. The numbers are those of chunked
attention over the whole signal [NeMo 3.0.0 ConformerEncoder, `chunked_limited`].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.linear import Linear
from nemotron_voice.model.precision import Precision
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.subsampling import Subsampling
from nemotron_voice.model.weights import Weights

_NORM_EPSILON: Final = 1e-5


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
        self._left = config.left_context
        self._subsampling = Subsampling(weights, config, precision)
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
            _Block(weights, f"encoder.layers.{layer}", config, precision, positions)
            for layer in range(config.layers)
        ]

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
        places = _Places.of(rows, begun, chunk, self._left, state)
        margin = self._farthest - chunk + 1
        conv = state.conv.index_select(1, rows)
        for layer, block in enumerate(self._blocks):
            frames, conv[layer] = block(
                frames,
                state.keys[layer],
                state.values[layer],
                conv[layer],
                places,
                margin,
            )
        return frames, Advance(conv, last_mel, maps, begun + chunk)


def advance(state: StreamState, rows: Tensor, after: Advance) -> None:
    """Make a chunk part of the rows' state."""
    state.conv.index_copy_(1, rows, after.conv)
    state.mel.index_copy_(0, rows, after.mel)
    for mine, its in zip(state.maps, after.maps, strict=True):
        mine.index_copy_(0, rows, its)
    state.frames.index_copy_(0, rows, after.frames)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a chunk's keys go in the rings and what lies where; the same for every block."""

    rows: Tensor | slice  # [n]
    written: Tensor  # [n * heads * c]: rows of the slab's keys, seen as [-1, head_size]
    unseen: Tensor  # [n, 1, 1, ring] fp32: -inf at places that attention must not see, else 0
    distance: Tensor  # [n, heads, c, ring]: columns of the chunk's table of distances

    @classmethod
    def of(cls, rows: Tensor, begun: Tensor, chunk: int, left: int, state: StreamState) -> _Places:
        """Lay out a chunk.

        Args:
            rows: [n] of the slab.
            begun: [n], frames that each row has made.
            chunk: c.
            left: left context.
            state: the slab.
        """
        heads, ring = state.keys.shape[2:4]
        count = torch.arange(chunk, device=rows.device)
        at = (begun[:, None] + count) % ring  # [n, c]
        head = torch.arange(heads, device=rows.device)
        written = ((rows[:, None] * heads + head)[:, :, None] * ring + at[:, None]).flatten()
        # Each place holds the latest frame of its residue: so many frames before the chunk's last.
        last = (begun + chunk - 1)[:, None]
        before = (last - torch.arange(ring, device=rows.device)) % ring  # [n, ring]
        hidden = (before >= left + chunk) | (before > last)
        unseen = torch.zeros(hidden.shape, device=rows.device).masked_fill_(hidden, -math.inf)
        # Query i is `before - (c - 1 - i)` after its key; column 0 is left + c - 1 after.
        column = (left + 2 * chunk - 2 - count[:, None]) - before[:, None]
        column = column.clamp_(min=0)[:, None].expand(-1, heads, -1, -1)
        return cls(_consecutive(rows), written, unseen[:, None, None], column)

    def of_rows(self, slab: Tensor) -> Tensor:
        """The chunk's rows of keys or values: [n, heads, ring, head_size]."""
        if isinstance(self.rows, slice):
            return slab[self.rows]
        return slab.index_select(0, self.rows)


def _consecutive(rows: Tensor) -> Tensor | slice:
    """Rows as a slice where they are one, which is read without a copy.

    Only on a CPU: on a GPU the look at them would wait for it, and graphs need one way for all.
    """
    if rows.device.type != "cpu":
        return rows
    numbers = rows.tolist()
    first = numbers[0]
    return (
        slice(first, first + len(numbers))
        if numbers == [*range(first, first + len(numbers))]
        else rows
    )


class _Block:
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        config: ModelConfig,
        precision: Precision,
        positions: Tensor,
    ) -> None:
        self._dtype = dtype = precision.dtype
        self._rows_apart = precision.rows_apart
        self._heads, self._head_size = config.heads, config.head_size
        self._scale = 1 / math.sqrt(config.head_size)

        def weight(name: str) -> Tensor:
            return weights[f"{prefix}.{name}"]

        def norm(name: str) -> tuple[Tensor, Tensor]:
            return weight(f"{name}.weight"), weight(f"{name}.bias")

        def linear(*names: str, bias: bool, scale: float = 1.0) -> Linear:
            """Stack projections of one input; kernels of one tap are matrices."""

            def joined() -> Tensor:
                matrices = [weight(f"{name}.weight").flatten(1) for name in names]
                matrix = matrices[0] if len(matrices) == 1 else torch.cat(matrices)
                return matrix if scale == 1.0 else matrix * scale

            offset = torch.cat([weight(f"{name}.bias") for name in names]) * scale if bias else None
            return precision.block_linear(f"{prefix}.{names[0]}", joined, offset)

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
        # [kernel, d_model]; fp32, as its sums feed a norm
        self._depthwise = weight("conv.depthwise_conv.weight").squeeze(1).T.contiguous()
        self._depthwise_bias = weight("conv.depthwise_conv.bias") if biased else None
        self._pointwise = linear("conv.pointwise_conv2", bias=biased)

    def __call__(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        conv: Tensor,
        places: _Places,
        margin: int,
    ) -> tuple[Tensor, Tensor]:
        """Run a chunk.

        Args:
            x: [n, c, d_model] fp32.
            keys: [rows, heads, ring, head_size], of the whole slab; written to.
            values: the same.
            conv: [n, kernel - 1, d_model].
            places: of the chunk.
            margin: unused distances at either end of the table of relative positions.

        Returns:
            `x` after the block, and the convolution's cache after the chunk.
        """
        x = x + self._feed_forward(self._norm(x, self._norm_first), self._first)
        x += self._attention(self._norm(x, self._norm_attention), keys, values, places, margin)
        convolved, conv = self._convolution(self._norm(x, self._norm_conv), conv)
        x += convolved
        x += self._feed_forward(self._norm(x, self._norm_second), self._second)
        return F.layer_norm(x, x.shape[-1:], *self._norm_out, _NORM_EPSILON), conv

    def _norm(self, x: Tensor, parameters: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *parameters, _NORM_EPSILON).to(self._dtype)

    @staticmethod
    def _feed_forward(x: Tensor, layers: tuple[Linear, Linear]) -> Tensor:
        return layers[1](F.silu(layers[0](x), inplace=True))

    def _attention(
        self, x: Tensor, keys: Tensor, values: Tensor, places: _Places, margin: int
    ) -> Tensor:
        count, chunk, _ = x.shape
        heads, size = self._heads, self._head_size
        projected = self._project(x).view(count, chunk, 3, heads, size)
        query, new_keys, new_values = projected.permute(2, 0, 3, 1, 4)  # [n, heads, c, head_size]
        for slab, new in ((keys, new_keys), (values, new_values)):
            slab.view(-1, size).index_copy_(0, places.written, new.reshape(-1, size))
        relative = self._relative[:, :, margin : self._relative.shape[2] - margin]
        by_distance = self._by_distance(query + self._position_bias, relative)
        scores = torch.baddbmm(
            by_distance.gather(3, places.distance).flatten(0, 1),
            (query + self._content_bias).reshape(-1, chunk, size),
            places.of_rows(keys).flatten(0, 1).transpose(1, 2),
        ).view(count, heads, chunk, -1)
        scores = torch.add(places.unseen, scores.float(), alpha=self._scale)
        attention = torch.softmax(scores, -1).to(self._dtype)
        heard = torch.matmul(attention, places.of_rows(values))
        return self._out(heard.transpose(1, 2).reshape(count, chunk, -1))

    def _by_distance(self, query: Tensor, relative: Tensor) -> Tensor:
        """Scores by distance: [n, heads, c, head_size] -> [n, heads, c, distances].

        BLAS sums a product of another number of rows in another order, and rounding to int8 makes
        words of differences in the last bit: so in int8 each row has a product of its own.
        """
        if len(query) == 1:
            return torch.bmm(query[0], relative)[None]
        if self._rows_apart:
            return torch.stack([torch.bmm(one, relative) for one in query.unbind(0)])
        # One product a head for all rows: broadcast over rows, the table would be copied for each.
        count, heads, chunk, size = query.shape
        product = torch.bmm(query.transpose(0, 1).reshape(heads, -1, size), relative)
        return product.view(heads, count, chunk, -1).transpose(0, 1)

    def _convolution(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        chunk = x.shape[1]
        gated = torch.cat([cache, F.glu(self._gate(x))], 1)
        # Measured on one row of 256 channels: a quarter of conv1d's time, which is all set-up; and
        # a sum of products tap by tap needs no copy of the input for each tap.
        heard = gated.float()
        if chunk == 1:
            mixed = (heard * self._depthwise).sum(1, keepdim=True)
        else:
            mixed = heard[:, :chunk] * self._depthwise[0]
            for tap in range(1, len(self._depthwise)):
                mixed.addcmul_(heard[:, tap : tap + chunk], self._depthwise[tap])
        if self._depthwise_bias is not None:
            mixed += self._depthwise_bias
        mixed = F.silu(self._norm(mixed, self._norm_depthwise), inplace=True)
        return self._pointwise(mixed), gated[:, chunk:]


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
