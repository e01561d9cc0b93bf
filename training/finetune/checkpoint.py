"""A NeMo model of a `.nemo` file or of the bundled checkpoint, and a `.nemo` of it again."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_DISABLE_CUDA", "0")

import sentencepiece
import torch
from omegaconf import OmegaConf, open_dict

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.languages import Locale, described
from nemotron_voice.model.checkpoint import DEMO, load_checkpoint
from nemotron_voice.model.weights import from_nemo_name
from training.finetune import vocabulary
from training.model_config import build_config

TOKENIZER = "tokenizer.model"


def quiet() -> None:
    """NeMo says a page for each model; errors remain."""
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def open_model(source: str, folder: Path) -> Any:
    """NeMo's model, on the CPU.

    Args:
        source: "demo", or a `.nemo` file of `EncDecRNNTBPEModelWithPrompt`.
        folder: for the bundled tokenizer; NeMo reads it again when the model is saved.

    Raises:
        ConfigurationError: it is neither.
    """
    quiet()
    from nemo.collections.asr.models import EncDecRNNTBPEModelWithPrompt

    if source == DEMO:
        return _bundled(EncDecRNNTBPEModelWithPrompt, folder)
    path = Path(source)
    if not path.is_file() or path.suffix != ".nemo":
        raise ConfigurationError(
            f"--model {source!r} is no .nemo file; give the released checkpoint's .nemo file, or "
            "demo (the bundled checkpoint)"
        )
    load_checkpoint(path)  # refuses what isn't a checkpoint that the engine can load
    model = EncDecRNNTBPEModelWithPrompt.restore_from(str(path), map_location="cpu")
    if not isinstance(model, EncDecRNNTBPEModelWithPrompt):
        raise ConfigurationError(f"{source} is a {type(model).__name__}, without language prompts")
    return model


def as_it_is(model: Any) -> torch.nn.Module:
    """A copy of the network alone; NeMo's whole models can't be copied."""
    parts = ("encoder", "prompt_kernel", "decoder", "joint")
    network = torch.nn.Module()
    for name in parts:
        network.add_module(name, copy.deepcopy(getattr(model, name)))
    return network.eval().requires_grad_(requires_grad=False)


def _bundled(kind: Any, folder: Path) -> Any:
    checkpoint = load_checkpoint(DEMO)
    _write_tokenizer(folder, (files("nemotron_voice") / "demo" / TOKENIZER).read_bytes())
    config = build_config(folder) | {"languages": list(checkpoint.languages)}
    model = kind(cfg=OmegaConf.create(config), trainer=None)
    weights = {}
    for name in model.state_dict():
        if not name.startswith("preprocessor."):
            weights[name] = checkpoint.weights[from_nemo_name(name)].float()
    model.load_state_dict(weights, strict=False)
    return model


def _write_tokenizer(folder: Path, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER).write_bytes(data)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    pieces = [processor.id_to_piece(n) for n in range(processor.get_piece_size())]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


def processor_of(model: Any) -> sentencepiece.SentencePieceProcessor:
    """The model's own SentencePiece."""
    return model.tokenizer.tokenizer


def with_more_pieces(model: Any, texts: Sequence[str], pieces: int, folder: Path) -> Any:
    """The same model with a larger vocabulary.

    Args:
        model: NeMo's.
        texts: that the new pieces are learnt from.
        pieces: at most so many.
        folder: where the new tokenizer is kept.
    """
    data = vocabulary.extended(processor_of(model).serialized_model_proto(), texts, pieces)
    _write_tokenizer(folder, data)
    config = OmegaConf.create(OmegaConf.to_container(model.cfg, resolve=True))
    with open_dict(config):
        config.tokenizer.dir = str(folder)
        for key in ("model_path", "vocab_path", "spe_tokenizer_vocab"):
            config.tokenizer.pop(key, None)
    larger = type(model)(cfg=config, trainer=None)
    weights = vocabulary.grow(model.state_dict(), larger)
    larger.load_state_dict(weights)
    return larger


def give_slots(model: Any, added: Sequence[Locale]) -> None:
    """Put locales beside the 40 into the model's prompt dictionary, and name them in its file."""
    if not added:
        return
    with open_dict(model.cfg):
        for locale in added:
            model.cfg.model_defaults.prompt_dictionary[locale.code] = locale.prompt_index
        model.cfg.locales = described([locale.code for locale in added])


def save(model: Any, path: Path, languages: Sequence[str] | None) -> None:
    """Write a `.nemo` whole or not at all, and prove that the engine loads it.

    Args:
        model: NeMo's.
        path: of the file.
        languages: locales that it can transcribe; None: what its prompt dictionary has.
    """
    if languages is not None:
        with open_dict(model.cfg):
            model.cfg.languages = list(languages)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    with torch.no_grad():
        model.save_to(str(unfinished))
    load_checkpoint(unfinished)
    unfinished.replace(path)
