"""Clips with a known text: test sets of the demo checkpoint, and recorded human speech."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nemotron_voice.audio import read_samples

DEMO_LANGUAGES = ("en-US", "es-ES", "fr-FR", "it-IT", "pt-BR")
# Kinds of ../shared/speech that the demo's domain covers; the rest is other vocabulary.
IN_DOMAIN_KINDS = ("digit", "number")


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance."""

    path: Path
    text: str
    language: str

    def samples(self) -> NDArray[np.float32]:
        """The audio at 16 kHz, mono."""
        return read_samples(self.path)


def synthetic(work: Path, split: str) -> list[Clip]:
    """Clips of a manifest that training/synthesise.py wrote.

    Raises:
        FileNotFoundError: with the command that makes it.
    """
    manifest = work / "manifests" / f"{split}.jsonl"
    if not manifest.exists():
        raise FileNotFoundError(
            f"{manifest} does not exist; synthesise the test sets first: see training/README.md"
        )
    return [
        Clip(work / row["audio"], row["text"], row["language"])
        for row in _rows(manifest)
        if row["language"] in DEMO_LANGUAGES
    ]


def recorded(speech: Path) -> list[Clip]:
    """Human speech in the demo's domain: digits and numbers of its five languages."""
    by_language = {code.split("-")[0]: code for code in DEMO_LANGUAGES}
    return [
        Clip(speech / row["audio_filepath"], row["text"], by_language[row["lang"].split("-")[0]])
        for row in _rows(speech / "manifest.jsonl")
        if row["kind"] in IN_DOMAIN_KINDS and row["lang"].split("-")[0] in by_language
    ]


def _rows(manifest: Path) -> Iterator[dict[str, str]]:
    with manifest.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
