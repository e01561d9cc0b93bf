"""The encoder's blocks in PyTorch's operations: in any precision, on any device.

fused_blocks.py has the same for int8 on a CPU, in fewer passes over memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.model.block_weights import BlockWeights
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.linear import Linear
from nemotron_voice.model.precision import Precision
from nemotron_voice.model.state import StreamState

_NORM_EPSILON: Final = 1e-5


class Blocks:
    """The stack."""

    def __init__(
        self, blocks: list[BlockWeights], config: ModelConfig, precision: Precision
    ) -> None:
        """Prepare the weights.

        Args:
            blocks: in order.
            config: sizes.
            precision: of the products.
        """
        self._left = config.left_context
        self._farthest = max(config.lookaheads)
        self._blocks = [_Block(own, config, precision) for own in blocks]

    def __call__(
        self, x: Tensor, state: StreamState, rows: Tensor, begun: Tensor, conv: Tensor
    ) -> Tensor:
        """Run a chunk through all blocks.

        Args:
            x: [n, c, d_model] fp32; may be overwritten.
            state: the slab; the chunk's keys and values are written into its rings.
            rows: [n] int64, which rows of it; no row twice.
            begun: [n] int64, frames that each row has had.
            conv: [layers, n, kernel - 1, d_model], the convolutions' caches; becomes those after
                the chunk.

        Returns:
            [n, c, d_model] fp32.
        """
        chunk = x.shape[1]
        places = _Places.of(rows, begun, chunk, self._left, state)
        margin = self._farthest - chunk + 1
        for layer, block in enumerate(self._blocks):
            x, conv[layer] = block(
                x, state.keys[layer], state.values[layer], conv[layer], places, margin
            )
        return x


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

    def __init__(self, weights: BlockWeights, config: ModelConfig, precision: Precision) -> None:
        self._dtype = dtype = precision.dtype
        self._rows_apart = precision.rows_apart
        self._heads, self._head_size = config.heads, config.head_size
        self._scale = 1 / math.sqrt(config.head_size)
        self._weights = weights
        self._content_bias, self._position_bias = (  # [heads, 1, head_size]
            bias.to(dtype)[:, None] for bias in weights.attention_biases
        )
        self._relative = weights.relative.transpose(1, 2).contiguous().to(dtype)  # distances last

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
        own = self._weights
        x = x + self._feed_forward(self._norm(x, own.norm_first), own.first)
        x += self._attention(self._norm(x, own.norm_attention), keys, values, places, margin)
        convolved, conv = self._convolution(self._norm(x, own.norm_conv), conv)
        x += convolved
        x += self._feed_forward(self._norm(x, own.norm_second), own.second)
        return F.layer_norm(x, x.shape[-1:], *own.norm_out, _NORM_EPSILON), conv

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
        projected = self._weights.project(x).view(count, chunk, 3, heads, size)
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
        return self._weights.out(heard.transpose(1, 2).reshape(count, chunk, -1))

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
        gated = torch.cat([cache, F.glu(self._weights.gate(x))], 1)
        # Measured on one row of 256 channels: a quarter of conv1d's time, which is all set-up; and
        # a sum of products tap by tap needs no copy of the input for each tap.
        heard = gated.float()
        if chunk == 1:
            mixed = (heard * self._weights.depthwise).sum(1, keepdim=True)
        else:
            mixed = heard[:, :chunk] * self._weights.depthwise[0]
            for tap in range(1, len(self._weights.depthwise)):
                mixed.addcmul_(heard[:, tap : tap + chunk], self._weights.depthwise[tap])
        mixed += self._weights.depthwise_bias
        mixed = F.silu(self._norm(mixed, self._weights.norm_depthwise), inplace=True)
        return self._weights.pointwise(mixed), gated[:, chunk:]
