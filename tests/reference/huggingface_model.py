"""Transformers' own model with given weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def build(sizes: dict[str, Any], weights: Mapping[str, Tensor]) -> Any:
    """Build the model that a config.json describes."""
    import transformers

    kinds = {
        "nemotron3_5_asr": (
            transformers.Nemotron3_5AsrConfig,
            transformers.Nemotron3_5AsrForRNNT,
        ),
        "nemotron_asr_streaming": (
            transformers.NemotronAsrStreamingConfig,
            transformers.NemotronAsrStreamingForRNNT,
        ),
    }
    config, model_class = kinds[sizes["model_type"]]
    model = model_class(config(**sizes)).eval()
    model.load_state_dict(dict(weights))
    model.generation_config.decoder_start_token_id = model.config.blank_token_id
    model.generation_config.pad_token_id = 0
    return model


def features(audio: np.ndarray, bins: int) -> Tensor:
    """Features of the whole signal by Transformers' extractor: [1, frames, bins]."""
    from transformers import NemotronAsrStreamingFeatureExtractor

    extractor = NemotronAsrStreamingFeatureExtractor(feature_size=bins)
    return extractor(audio, sampling_rate=16_000, return_tensors="pt")["input_features"]


def _options(model: Any, lookahead: int, prompt: int) -> dict[str, Any]:
    options: dict[str, Any] = {"num_lookahead_tokens": lookahead}
    if hasattr(model, "prompt_projector"):
        options["prompt_ids"] = torch.tensor([prompt])
    return options


def encode(model: Any, mel: Tensor, lookahead: int, prompt: int) -> Tensor:
    """Whole-utterance encoder frames after the prompt, as the joint takes them."""
    with torch.inference_mode():
        output = model.get_audio_features(input_features=mel, **_options(model, lookahead, prompt))
    return output.pooler_output[0]


def stream(model: Any, mel: Tensor, lookahead: int, prompt: int) -> list[tuple[int, int]]:
    """Tokens of streaming `generate`, and their frames."""
    first, rest = 1 + 8 * lookahead, 8 * (lookahead + 1)
    chunks = [mel[:, :first], *mel[:, first:].split(rest, 1)]
    whole = (chunk for chunk in chunks if chunk.shape[1] in (first, rest))
    with torch.inference_mode():
        output = model.generate(input_features=whole, **_options(model, lookahead, prompt))
    frames = (output.durations.cumsum(1) - output.durations)[0].tolist()
    blank = model.config.blank_token_id
    return [
        (token, frame)
        for token, frame in zip(output.sequences[0].tolist(), frames, strict=True)
        if token != blank
    ]
