"""A tiny network of the real architecture with random weights, that speaks random words."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.features import window_samples
from nemotron_voice.model.network import Network
from nemotron_voice.model.weights import expected_shapes

WORDS = 46  # every other piece begins a word; then the tags, then the blank
BLANK = 2.0
LANGUAGES = ("en-US", "es-ES", "fr-FR")


def tiny_config(**changes: Any) -> ModelConfig:
    """Sizes of a network that runs in a millisecond."""
    sizes: dict[str, Any] = {
        "mel_bins": 128,
        "subsampling_channels": 8,
        "d_model": 32,
        "layers": 2,
        "heads": 4,
        "feed_forward": 64,
        "conv_kernel": 9,
        "linear_bias": False,
        "conv_bias": False,
        "scale_input": False,
        "left_context": 56,
        "vocabulary": WORDS + len(LANGUAGES) + 1,
        "blank": WORDS + len(LANGUAGES),
        "prediction_size": 24,
        "prediction_layers": 2,
        "joint_size": 24,
        "max_symbols": 10,
        "prompts": 128,
        "prompt_hidden": 64,
        "languages": LANGUAGES,
    }
    return ModelConfig(**(sizes | changes))


class Tokenizer:
    """Pieces without a SentencePiece model."""

    size = WORDS + len(LANGUAGES)

    def piece(self, token_id: int) -> str:
        """The text of a piece."""
        if token_id >= WORDS:
            return f"<{LANGUAGES[token_id - WORDS]}>"
        letters = chr(97 + token_id % 26) * 2
        return f"▁{letters}" if token_id % 2 else letters

    def tag(self, token_id: int) -> str | None:
        """The locale of a tag piece."""
        return LANGUAGES[token_id - WORDS] if token_id >= WORDS else None


def tiny_checkpoint(seed: int = 1, **changes: Any) -> Any:
    """What `load_checkpoint` returns, with random weights.

    A random network is nearly deaf: constants drown the audio. So the log-mel features (around -10)
    are centred in the first convolution, and what reaches the joint is centred and widened over
    some noise; the blank's bias then makes a part of the frames speak.
    """
    config = tiny_config(**changes)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in expected_shapes(config).items():
        if "norm" in name:
            weights[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        elif name.endswith("bias"):
            weights[name] = torch.zeros(shape)
        else:
            fan_in = math.prod(shape[1:]) or 1
            weights[name] = torch.randn(shape, generator=generator) / math.sqrt(fan_in)
    stem = "encoder.subsampling.conv_in"
    weights[f"{stem}.bias"] = 10 * weights[f"{stem}.weight"].sum((1, 2, 3))
    for name in weights:
        if name.startswith(("decoder.embedding", "decoder.decoder_projector")):
            weights[name] *= 4
    weights["joint.head.bias"][config.blank] = BLANK
    _centre(weights, config)
    return SimpleNamespace(
        config=config,
        weights=weights,
        tokenizer=Tokenizer(),
        name="tiny",
        languages=config.languages,
        identity=None,
    )


def _centre(weights: dict[str, torch.Tensor], config: ModelConfig) -> None:
    """Make what the joint hears vary by 2 around 0 from frame to frame."""
    network = Network(weights, config)
    lookahead = max(config.lookaheads)
    generator = torch.Generator().manual_seed(1)
    loudness = torch.rand(32, 1, generator=generator)
    noise = loudness * torch.randn(32, window_samples(lookahead), generator=generator)
    prompts = torch.arange(32) % max(config.prompts, 1)
    state, rows = network.initial_state(32), torch.arange(32)
    frames, _ = network.encode(noise, state, rows, prompts, lookahead)
    heard = (frames @ weights["encoder_projector.weight"].T).flatten(0, 1).clone()
    scale = 2 / heard.std(0)
    weights["encoder_projector.weight"] = weights["encoder_projector.weight"] * scale[:, None]
    weights["encoder_projector.bias"] = -heard.mean(0) * scale
