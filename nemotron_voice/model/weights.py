"""Which tensors a network has: names and shapes from the configuration, checked strictly.

Names are those of Transformers 5.23; NeMo's are translated to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from nemotron_voice.errors import (
    MissingWeightError,
    UnexpectedWeightError,
    WeightShapeError,
)
from nemotron_voice.model.config import ModelConfig

Weights = Mapping[str, Tensor]


class _Shapes(dict[str, tuple[int, ...]]):
    """Name -> shape, a layer at a time."""

    def linear(self, name: str, inputs: int, outputs: int, *taps: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = (outputs, inputs, *taps)
        if bias:
            self[f"{name}.bias"] = (outputs,)

    def norm(self, name: str, size: int) -> None:
        self[f"{name}.weight"] = self[f"{name}.bias"] = (size,)


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a network of these sizes: name -> shape."""
    shapes = _Shapes()
    channels, d_model = config.subsampling_channels, config.d_model
    shapes.linear("encoder.subsampling.conv_in", 1, channels, 3, 3)
    for stage in range(2):
        name = f"encoder.subsampling.layers.{stage}"
        shapes.linear(f"{name}.depthwise_conv", 1, channels, 3, 3)
        shapes.linear(f"{name}.pointwise_conv", channels, channels, 1, 1)
    shapes.linear("encoder.subsampling.linear", channels * config.map_sizes[2], d_model)
    for layer in range(config.layers):
        _add_block(shapes, f"encoder.layers.{layer}", config)
    if config.prompts:
        shapes.linear("prompt_projector.linear_1", d_model + config.prompts, config.prompt_hidden)
        shapes.linear("prompt_projector.linear_2", config.prompt_hidden, d_model)

    prediction = config.prediction_size
    shapes["decoder.embedding.weight"] = (config.vocabulary, prediction)
    for layer in range(config.prediction_layers):
        for part in ("ih", "hh"):
            shapes[f"decoder.lstm.weight_{part}_l{layer}"] = (4 * prediction, prediction)
            shapes[f"decoder.lstm.bias_{part}_l{layer}"] = (4 * prediction,)
    shapes.linear("decoder.decoder_projector", prediction, config.joint_size)
    shapes.linear("encoder_projector", d_model, config.joint_size)
    shapes.linear("joint.head", config.joint_size, config.vocabulary)
    return shapes


def _add_block(shapes: _Shapes, block: str, config: ModelConfig) -> None:
    """Add one of the encoder's blocks."""
    size, inner = config.d_model, config.feed_forward
    for part in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
        shapes.norm(f"{block}.norm_{part}", size)
    for part in ("feed_forward1", "feed_forward2"):
        shapes.linear(f"{block}.{part}.linear1", size, inner, bias=config.linear_bias)
        shapes.linear(f"{block}.{part}.linear2", inner, size, bias=config.linear_bias)
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        shapes.linear(f"{block}.self_attn.{part}", size, size, bias=config.linear_bias)
    shapes.linear(f"{block}.self_attn.relative_k_proj", size, size, bias=False)
    for part in ("bias_u", "bias_v"):
        shapes[f"{block}.self_attn.{part}"] = (config.heads, config.head_size)
    shapes.linear(f"{block}.conv.pointwise_conv1", size, 2 * size, 1, bias=config.conv_bias)
    shapes.linear(
        f"{block}.conv.depthwise_conv", 1, size, config.conv_kernel, bias=config.conv_bias
    )
    shapes.norm(f"{block}.conv.norm", size)
    shapes.linear(f"{block}.conv.pointwise_conv2", size, size, 1, bias=config.conv_bias)


def check_weights(weights: Weights, config: ModelConfig, source: str) -> None:
    """Make sure that a checkpoint has what the network needs, and nothing else.

    Args:
        weights: by Transformers' names.
        config: what the checkpoint says it is.
        source: the checkpoint's name, for messages.

    Raises:
        MissingWeightError: a tensor is missing.
        UnexpectedWeightError: a tensor is left over.
        WeightShapeError: a tensor has another shape than the configuration says.
    """
    shapes = expected_shapes(config)
    if missing := [name for name in shapes if name not in weights]:
        raise MissingWeightError(
            f"{source} lacks {_some(missing)}; the file is incomplete or its configuration is of "
            f"another model: fetch or export it again"
        )
    if unexpected := [name for name in weights if name not in shapes]:
        raise UnexpectedWeightError(
            f"{source} has {_some(unexpected)}, which a network of its configuration doesn't have: "
            f"is the configuration of another model, or the model fine-tuned with adapters? Merge "
            f"them first"
        )
    wrong = [
        f"{name} {list(weights[name].shape)} instead of {list(shape)}"
        for name, shape in shapes.items()
        if tuple(weights[name].shape) != shape
    ]
    if wrong:
        raise WeightShapeError(
            f"{source} has tensors of another shape than its configuration says: {_some(wrong)}; "
            f"weights and configuration must come from one model"
        )


def _some(items: list[str]) -> str:
    shown = ", ".join(items[:4])
    return shown if len(items) <= 4 else f"{shown} and {len(items) - 4} more"


_NEMO_NAMES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"encoder\.pre_encode\.conv\.0\.", "encoder.subsampling.conv_in."),
        (r"encoder\.pre_encode\.conv\.2\.", "encoder.subsampling.layers.0.depthwise_conv."),
        (r"encoder\.pre_encode\.conv\.3\.", "encoder.subsampling.layers.0.pointwise_conv."),
        (r"encoder\.pre_encode\.conv\.5\.", "encoder.subsampling.layers.1.depthwise_conv."),
        (r"encoder\.pre_encode\.conv\.6\.", "encoder.subsampling.layers.1.pointwise_conv."),
        (r"encoder\.pre_encode\.out\.", "encoder.subsampling.linear."),
        (r"(encoder\.layers\.\d+\.self_attn)\.linear_([qkv])\.", r"\1.\2_proj."),
        (r"(encoder\.layers\.\d+\.self_attn)\.linear_out\.", r"\1.o_proj."),
        (r"(encoder\.layers\.\d+\.self_attn)\.linear_pos\.", r"\1.relative_k_proj."),
        (r"(encoder\.layers\.\d+\.self_attn)\.pos_bias_([uv])$", r"\1.bias_\2"),
        (r"(encoder\.layers\.\d+\.conv)\.batch_norm\.", r"\1.norm."),  # a layer norm, in fact
        (r"prompt_kernel\.0\.", "prompt_projector.linear_1."),
        (r"prompt_kernel\.2\.", "prompt_projector.linear_2."),
        (r"decoder\.prediction\.embed\.", "decoder.embedding."),
        (r"decoder\.prediction\.dec_rnn\.lstm\.", "decoder.lstm."),
        (r"joint\.pred\.", "decoder.decoder_projector."),
        (r"joint\.enc\.", "encoder_projector."),
        # Activation, dropout where there is any, and the output layer.
        (r"joint\.joint_net\.[12]\.", "joint.head."),
    )
)


def from_nemo_name(name: str) -> str:
    """Transformers' name of one of NeMo's weights; other names stay as they are."""
    for pattern, replacement in _NEMO_NAMES:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name
