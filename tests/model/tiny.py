"""Tiny random networks that emit varied tokens, and audio for them."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.features import FRAME_SAMPLES, window_samples
from nemotron_voice.model.network import Emission, Network
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


# Found by a sweep: with these gains and this seed the tiny network emits about 20 different pieces,
# on most frames nothing, on some several, and on a few as many as are allowed.
SEED = 1
_GAINS = {
    "encoder_projector": 2.0,
    "decoder.decoder_projector": 12.0,
    "decoder.": 4.0,
    "joint": 2.0,
}


def random_weights(
    config: ModelConfig, seed: int = SEED, blank_bias: float = 5.0
) -> dict[str, Tensor]:
    """Draw weights with which some frames emit and most don't."""
    # NumPy promises that this generator's numbers stay, so recorded outputs stay right.
    generator = np.random.RandomState(seed)

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))

    weights = {}
    for name, shape in expected_shapes(config).items():
        inputs = shape[1] * int(np.prod(shape[2:])) if len(shape) > 1 else 1
        if "norm" in name:
            base = 1.0 if name.endswith("weight") else 0.0
            weights[name] = base + 0.1 * normal(shape)
        elif len(shape) == 1 or "bias_" in name:
            weights[name] = 0.2 * normal(shape)
        else:
            gain = next((gain for start, gain in _GAINS.items() if name.startswith(start)), 1.0)
            weights[name] = gain * normal(shape) / inputs**0.5
    weights["joint.head.bias"][config.blank] += blank_bias
    return weights


def tiny_network(*, config: dict[str, Any] | None = None, **options: Any) -> Network:
    """Build a tiny random network."""
    sizes = ModelConfig.from_huggingface(config or tiny_json())
    return Network(random_weights(sizes), sizes, **options)


def sweep(seconds: float, seed: int = 1) -> np.ndarray:
    """Return a noisy warble, 16 kHz fp32."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    rate = 200 + 150 * np.sin(2 * np.pi * 0.7 * time + seed)
    voice = 0.2 * np.sin(2 * np.pi * rate * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time))
    noise = np.random.RandomState(seed).standard_normal(time.size)
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
    network: Network, audio: np.ndarray, lookahead: int, prompt: int
) -> tuple[Tensor, list[Emission]]:
    """Stream one utterance alone: encoder frames [frames, d_model] and emissions."""
    state, row = network.initial_state(1), torch.tensor([0])
    prompts = torch.tensor([prompt])
    frames, emissions = [], []
    for chunk in range(chunks_of(audio, lookahead)):
        samples = window(audio, chunk * (lookahead + 1), lookahead)[None]
        frames.append(network.encode(samples, state, row, prompts, lookahead)[0][0])
        emissions += network.step(samples, state, row, prompts, lookahead)[0]
    return torch.cat(frames), emissions


TAGS = ("<en-US>", "<en-GB>", "<de-DE>", "<es-US>", "<fr-FR>", "<ja-JP>")


@cache
def tokenizer_model() -> bytes:
    """Train a SentencePiece model of PIECES pieces, language tags among them."""
    words = "the quick brown fox jumps over a lazy dog and some words are spoken by users in this"
    order = np.random.default_rng(0).integers(0, 17, (400, 8))
    sentences = (" ".join(words.split()[place] for place in line) + "." for line in order)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences,
        model_writer=model,
        vocab_size=PIECES,
        model_type="bpe",
        user_defined_symbols=list(TAGS),
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        character_coverage=1.0,
        minloglevel=2,
    )
    return model.getvalue()


def write_folder(folder: Path, json_config: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    """Write a checkpoint as the hub has it, with a SentencePiece tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(json_config))
    save_file(weights, folder / "model.safetensors")
    (folder / "tokenizer.model").write_bytes(tokenizer_model())
    return folder
