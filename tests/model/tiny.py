"""Tiny random networks that emit varied tokens, and audio for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.features import FRAME_SAMPLES, window_samples
from nemotron_voice.model.network import Emission, Network
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.weights import expected_shapes

PIECES = 96


def tiny_json(**changes: Any) -> dict[str, Any]:
    """Return the config.json of a two-layer network; `encoder` changes go to the encoder."""
    encoder = {
        "model_type": "nemotron_asr_streaming_encoder",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "num_mel_bins": 128,
        "subsampling_conv_channels": 16,
        "attention_bias": False,
        "convolution_bias": False,
        "scale_input": False,
        "sliding_window": 57,
    } | changes.pop("encoder", {})
    return {
        "model_type": "nemotron3_5_asr",
        "vocab_size": PIECES + 1,
        "blank_token_id": PIECES,
        "decoder_hidden_size": 32,
        "prompt_intermediate_size": 128,
        "encoder_config": encoder,
    } | changes


def random_weights(config: ModelConfig, seed: int = 0, blank_bias: float = 4.0) -> dict[str, Tensor]:
    """Draw weights with which about every other frame emits."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in expected_shapes(config).items():
        inputs = shape[1] * int(np.prod(shape[2:])) if len(shape) > 1 else 1
        if "norm" in name:
            base = 1.0 if name.endswith("weight") else 0.0
            weights[name] = base + 0.1 * torch.randn(shape, generator=generator)
        elif len(shape) == 1 or "bias_" in name:
            weights[name] = 0.2 * torch.randn(shape, generator=generator)
        else:
            weights[name] = torch.randn(shape, generator=generator) / inputs**0.5
            if name.startswith(("joint", "encoder_projector", "decoder", "prompt")):
                weights[name] *= 3.0
    weights["joint.head.bias"][config.blank] += blank_bias
    return weights


def tiny_network(seed: int = 0, *, json: dict[str, Any] | None = None, **options: Any) -> Network:
    """Build a tiny random network."""
    config = ModelConfig.from_huggingface(json or tiny_json())
    return Network(random_weights(config, seed), config, **options)


def sweep(seconds: float, seed: int = 1) -> np.ndarray:
    """Return a noisy warble, 16 kHz fp32."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    rate = 200 + 150 * np.sin(2 * np.pi * 0.7 * time + seed)
    voice = 0.2 * np.sin(2 * np.pi * rate * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time))
    noise = np.random.default_rng(seed).standard_normal(time.size)
    return (voice + 0.02 * noise).astype(np.float32)


def window(audio: np.ndarray, frame: int, lookahead: int) -> Tensor:
    """Cut the samples of the chunk from `frame` on: [window_samples(lookahead)]."""
    start = FRAME_SAMPLES * frame - 1321
    stop = start + window_samples(lookahead)
    padded = np.pad(audio[max(start, 0) : stop], (max(-start, 0), max(stop - audio.size, 0)))
    return torch.from_numpy(padded)


def chunks_of(audio: np.ndarray, lookahead: int) -> int:
    """Count the whole chunks of an utterance."""
    return (audio.size - 200) // (FRAME_SAMPLES * (lookahead + 1))


def stream(
    network: Network,
    audio: np.ndarray,
    lookahead: int,
    prompt: int,
    encode: Callable[[StreamState, Tensor], None] | None = None,
) -> tuple[Tensor, list[Emission]]:
    """Stream one utterance alone: encoder frames [frames, d_model] and emissions."""
    state = network.initial_state(1)
    prompts = torch.tensor([prompt])
    frames, emissions = [], []
    for chunk in range(chunks_of(audio, lookahead)):
        samples = window(audio, chunk * (lookahead + 1), lookahead)[None]
        frames.append(network.encode_step(samples, state, prompts, lookahead)[1][0])
        state, emitted = network.step(samples, state, prompts, lookahead)
        emissions += emitted[0]
    return torch.cat(frames), emissions
