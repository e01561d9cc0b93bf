"""Training state on disk: weights, their moving average, optimiser, clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from training.features import LogMel
from training.model_config import build_model


def open_model(work: Path) -> tuple[Any, LogMel]:
    """A fresh model with the tokenizer of a work folder, in evaluation mode, and its features."""
    model = build_model(work / "tokenizer")
    model.eval()
    return model, LogMel(model.preprocessor)


def state_file(work: Path) -> Path:
    """Where a run's state is."""
    return work / "run" / "state.pt"


def save_state(work: Path, state: dict[str, Any]) -> None:
    """Write the state whole or not at all."""
    path = state_file(work)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def read_state(work: Path) -> dict[str, Any]:
    """The state of the latest run."""
    state: dict[str, Any] = torch.load(state_file(work), map_location="cpu", weights_only=True)
    return state


def load_weights(work: Path, model: Any) -> dict[str, Any]:
    """Put the averaged weights into a model, rounded as they will be shipped (fp16)."""
    state = read_state(work)
    rounded = {
        name: value.to(torch.float16).to(torch.float32) if value.is_floating_point() else value
        for name, value in state["average"].items()
    }
    missing, unexpected = model.load_state_dict(rounded, strict=False)
    left_out = [name for name in missing if not name.startswith("preprocessor.")]
    if left_out or unexpected:
        raise SystemExit(f"state doesn't fit the model: missing {left_out}, extra {unexpected}")
    return state
