"""The encoder's blocks in int8 on a CPU: products (int8_linear.py), and fused.c between them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nemotron_voice.model.block_weights import BlockWeights
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.int8_linear import Int8Linear
from nemotron_voice.model.kernels import Attention, Kernels, kernels, takes
from nemotron_voice.model.linear import Linear
from nemotron_voice.model.state import StreamState


class FusedBlocks:
    """The stack; the same numbers as `Blocks`, but for the last bits of sums."""

    def __init__(self, blocks: list[BlockWeights], config: ModelConfig, fused: Kernels) -> None:
        """Take the weights.

        Args:
            blocks: in order, of precision int8.
            config: sizes.
            fused: the library.
        """
        self._fused = fused
        self._heads, self._head_size = config.heads, config.head_size
        self._left, self._farthest = config.left_context, max(config.lookaheads)
        self._blocks = [(own, _Matrices.of(own)) for own in blocks]

    @classmethod
    def if_possible(cls, blocks: list[BlockWeights], config: ModelConfig) -> FusedBlocks | None:
        """The stack, where it runs: in int8, and where the library is there."""
        fused = kernels()
        if fused is None or not takes(config.head_size):
            return None
        if not isinstance(blocks[0].project, Int8Linear):
            return None
        return cls(blocks, config, fused)

    def __call__(
        self, x: Tensor, state: StreamState, rows: Tensor, begun: Tensor, conv: Tensor
    ) -> Tensor:
        """Run a chunk through all blocks; see `Blocks`. x is overwritten."""
        fused = self._fused
        x, rows, begun = x.contiguous(), rows.contiguous(), begun.contiguous()  # as C reads them
        sizes = Attention(
            x.shape[1], self._heads, self._head_size, state.ring, self._left, self._farthest
        )
        first, matrices = self._blocks[0]
        rounded = fused.add_norm_round(x, None, first.norm_first, matrices.first[0].rounding.layout)
        for layer, (own, matrices) in enumerate(self._blocks):
            inner = matrices.first[0].multiply(rounded)
            rounded = fused.silu_round(inner, matrices.first[1].rounding)
            added = matrices.first[1].multiply(rounded)
            rounded = fused.add_norm_round(
                x, added, own.norm_attention, matrices.project.rounding.layout
            )
            rounded = fused.attention_round(
                sizes,
                matrices.project.multiply(rounded),
                state.keys[layer],
                state.values[layer],
                rows,
                begun,
                own.attention_biases,
                own.relative,
                matrices.out.rounding.layout,
            )
            added = matrices.out.multiply(rounded)
            rounded = fused.add_norm_round(x, added, own.norm_conv, matrices.gate.rounding.layout)
            rounded = fused.convolution_round(
                matrices.gate.multiply(rounded),
                conv[layer],
                own.depthwise,
                own.depthwise_bias,
                own.norm_depthwise,
                matrices.pointwise.rounding,
            )
            added = matrices.pointwise.multiply(rounded)
            rounded = fused.add_norm_round(
                x, added, own.norm_second, matrices.second[0].rounding.layout
            )
            inner = matrices.second[0].multiply(rounded)
            rounded = fused.silu_round(inner, matrices.second[1].rounding)
            added = matrices.second[1].multiply(rounded)
            if layer + 1 == len(self._blocks):
                fused.add_norm(x, added, own.norm_out)
            else:
                following, others = self._blocks[layer + 1]
                rounded = fused.add_norm_round(
                    x,
                    added,
                    following.norm_first,
                    others.first[0].rounding.layout,
                    last=own.norm_out,
                )
        return x


@dataclass(frozen=True, slots=True)
class _Matrices:
    """A block's matrices in int8."""

    first: tuple[Int8Linear, Int8Linear]
    project: Int8Linear
    out: Int8Linear
    gate: Int8Linear
    pointwise: Int8Linear
    second: tuple[Int8Linear, Int8Linear]

    @classmethod
    def of(cls, weights: BlockWeights) -> _Matrices:
        return cls(
            (_int8(weights.first[0]), _int8(weights.first[1])),
            _int8(weights.project),
            _int8(weights.out),
            _int8(weights.gate),
            _int8(weights.pointwise),
            (_int8(weights.second[0]), _int8(weights.second[1])),
        )


def _int8(linear: Linear) -> Int8Linear:
    if not isinstance(linear, Int8Linear):
        raise TypeError(f"{linear!r} is no product in int8")
    return linear
