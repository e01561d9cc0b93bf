"""Random weights on disk, as the hub would hold them, so that they load as the real ones do."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from nemotron_voice.languages import LOCALES
from nemotron_voice.model.checkpoint import Checkpoint
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.int8_store import cache_folder
from nemotron_voice.model.tokenizer import WORD_START

NAME: Final = "random"
_VERSION: Final = 2  # of the weights: raised when the same seed gives others
_SYLLABLES: Final = [a + b for a in "bdfghklmnprstvz" for b in ("a", "e", "i", "o", "u", "an")]


def tokenizer_json(pieces: int) -> str:
    """A tokenizer.json of so many pieces: unknown, the 40 language tags, made-up syllables.

    Every piece begins a word, so that the words heard are the tokens emitted.
    """
    count = len(_SYLLABLES)
    vocabulary = ["<unk>", *(f"<{locale.code}>" for locale in LOCALES)][:pieces]
    for number in range(pieces - len(vocabulary)):
        ones, twos, threes = number % count, number // count % count, number // count**2
        made_up = _SYLLABLES[ones] + _SYLLABLES[twos] + _SYLLABLES[threes]
        vocabulary.append(WORD_START + made_up)
    model = {"type": "Unigram", "unk_id": 0, "vocab": [[piece, 0.0] for piece in vocabulary]}
    return json.dumps({"version": "1.0", "model": model}, ensure_ascii=False)


def config_json(config: ModelConfig) -> dict[str, Any]:
    """The config.json, as Transformers 5.23 writes it, of a multilingual network of these sizes."""
    return {
        "architectures": ["Nemotron3_5AsrForRNNT"],
        "model_type": "nemotron3_5_asr",
        "dtype": "float32",
        "vocab_size": config.vocabulary,
        "blank_token_id": config.blank,
        "decoder_start_token_id": config.blank,
        "pad_token_id": 0,
        "decoder_hidden_size": config.prediction_size,
        "num_decoder_layers": config.prediction_layers,
        "hidden_act": "relu",
        "max_symbols_per_step": config.max_symbols,
        "is_encoder_decoder": True,
        "num_prompts": config.prompts,
        "prompt_intermediate_size": config.prompt_hidden,
        "encoder_config": {
            "model_type": "nemotron_asr_streaming_encoder",
            "hidden_size": config.d_model,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "intermediate_size": config.feed_forward,
            "hidden_act": "silu",
            "attention_bias": config.linear_bias,
            "convolution_bias": config.conv_bias,
            "scale_input": config.scale_input,
            "conv_kernel_size": config.conv_kernel,
            "subsampling_factor": 8,
            "subsampling_conv_channels": config.subsampling_channels,
            "num_mel_bins": config.mel_bins,
            "max_position_embeddings": 5_000,
            "sliding_window": config.left_context + 1,
        },
        "languages": list(config.languages),
    }


def write_folder(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write a checkpoint with made-up pieces as `load_checkpoint` reads it.

    Args:
        checkpoint: of `random_model.random_checkpoint`.
        folder: made if it isn't there; what is there of the same name is overwritten.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = json.dumps(config_json(checkpoint.config), indent=1) + "\n"
    (folder / "config.json").write_text(sizes, encoding="utf-8")
    pieces = tokenizer_json(checkpoint.config.blank)
    (folder / "tokenizer.json").write_text(pieces, encoding="utf-8")
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def cached_folder() -> Path:
    """Where random weights of the real size are kept: 2.55 GB in the user's cache."""
    folder, _ = cache_folder()  # no copies of models may be kept; these are no copies
    return folder / f"random-{_VERSION}"


def is_written() -> bool:
    """Whether `resolve("random")` is quick."""
    return (cached_folder() / "model.safetensors").is_file()


def resolve(model: str) -> str:
    """What `load_checkpoint` takes for the name of a model: "random" is written once, then read."""
    if model != NAME:
        return model
    folder = cached_folder()
    if not is_written():
        from nemotron_voice.bench.random_model import random_checkpoint  # noqa: PLC0415

        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="random-", dir=folder.parent))
        try:
            write_folder(random_checkpoint(), unfinished).replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return str(folder)
