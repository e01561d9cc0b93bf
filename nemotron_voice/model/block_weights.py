"""What a block of the encoder has learnt, prepared for the precision that it runs in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.int8_linear import SILU_FLOOR
from nemotron_voice.model.linear import Linear
from nemotron_voice.model.precision import Precision
from nemotron_voice.model.weights import Weights

Norm = tuple[Tensor, Tensor]  # gain and bias, [d_model] fp32


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    norm_first: Norm
    first: tuple[Linear, Linear]
    norm_attention: Norm
    project: Linear  # queries, keys and values side by side
    attention_biases: tuple[Tensor, Tensor]  # of content and position, [heads, head_size] fp32
    relative: Tensor  # [heads, distances, head_size] fp32, projections of `positions`
    out: Linear
    norm_conv: Norm
    gate: Linear
    depthwise: Tensor  # [kernel, d_model] fp32
    depthwise_bias: Tensor  # [d_model] fp32
    norm_depthwise: Norm
    pointwise: Linear
    norm_second: Norm
    second: tuple[Linear, Linear]
    norm_out: Norm

    @classmethod
    def of(
        cls,
        weights: Weights,
        layer: int,
        config: ModelConfig,
        precision: Precision,
        positions: Tensor,
    ) -> BlockWeights:
        """Prepare a block.

        Args:
            weights: checked.
            layer: number of the block.
            config: sizes.
            precision: of its products.
            positions: [distances, d_model] fp32, encodings of distances.
        """
        prefix = f"encoder.layers.{layer}"

        def weight(name: str) -> Tensor:
            return weights[f"{prefix}.{name}"]

        def norm(name: str) -> Norm:
            return weight(f"{name}.weight"), weight(f"{name}.bias")

        def linear(
            *names: str, bias: bool, scale: float = 1.0, floor: float | None = None
        ) -> Linear:
            """Stack projections of one input; kernels of one tap are matrices."""

            def joined() -> Tensor:
                matrices = [weight(f"{name}.weight").flatten(1) for name in names]
                matrix = matrices[0] if len(matrices) == 1 else torch.cat(matrices)
                return matrix if scale == 1.0 else matrix * scale

            offset = torch.cat([weight(f"{name}.bias") for name in names]) * scale if bias else None
            return precision.block_linear(f"{prefix}.{names[0]}", joined, offset, floor)

        def feed_forward(name: str) -> tuple[Linear, Linear]:
            # The half of it is in its second matrix; a power of two rounds nothing.
            return (
                linear(f"{name}.linear1", bias=config.linear_bias),
                linear(f"{name}.linear2", bias=config.linear_bias, scale=0.5, floor=SILU_FLOOR),
            )

        depthwise_bias = (
            weight("conv.depthwise_conv.bias")
            if config.conv_bias
            else positions.new_zeros(config.d_model)
        )
        relative = F.linear(positions, weight("self_attn.relative_k_proj.weight"))
        return cls(
            norm_first=norm("norm_feed_forward1"),
            first=feed_forward("feed_forward1"),
            norm_attention=norm("norm_self_att"),
            project=linear(
                "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", bias=config.linear_bias
            ),
            attention_biases=(weight("self_attn.bias_u"), weight("self_attn.bias_v")),
            relative=relative.view(-1, config.heads, config.head_size).transpose(0, 1).contiguous(),
            out=linear("self_attn.o_proj", bias=config.linear_bias),
            norm_conv=norm("norm_conv"),
            gate=linear("conv.pointwise_conv1", bias=config.conv_bias),
            # fp32 in any precision, as its sums feed a norm
            depthwise=weight("conv.depthwise_conv.weight").squeeze(1).T.contiguous(),
            depthwise_bias=depthwise_bias,
            norm_depthwise=norm("conv.norm"),
            pointwise=linear("conv.pointwise_conv2", bias=config.conv_bias, floor=SILU_FLOOR),
            norm_second=norm("norm_feed_forward2"),
            second=feed_forward("feed_forward2"),
            norm_out=norm("norm_out"),
        )
