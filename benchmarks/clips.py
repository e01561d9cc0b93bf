"""Clips with a known text: test sets of the demo checkpoint, and recorded human speech."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nemotron_voice.evaluation.manifest import Clip, ManifestOptions, read_manifest

DEMO_LANGUAGES = ("en-US", "es-ES", "fr-FR", "it-IT", "pt-BR")
SETS = {
    "a": "held-out sentences, held-out voices",
    "b": "synthesis engine never trained on",
    "c": "recorded human digits and numbers",
}
# Of ../shared/speech: the first two are of the demo's domain, the rest is other vocabulary.
KINDS = ("digit", "number", "word", "command", "phrase", "sentence")
# All names that its manifest has for the demo's languages.
_NAMES = {"en", "es", "es-MX", "fr", "fr-CA", "it", "it-IT", "pt", "pt-BR"}


def load_sets(work: Path, speech: Path, names: str = "abc") -> dict[str, list[Clip]]:
    """The sets that are asked for.

    Args:
        work: folder of training/synthesise.py.
        speech: folder of recorded speech; without it set c is empty.
        names: of the sets.

    Raises:
        ConfigurationError: a manifest isn't there: see training/README.md.
    """
    supported = ManifestOptions(supported=DEMO_LANGUAGES)
    sets = {
        name: read_manifest(work / "manifests" / f"test_{name}.jsonl", supported)
        for name in "ab"
        if name in names
    }
    if "c" in names:
        sets["c"] = recorded(speech, KINDS[:2])
    return sets


def recorded(speech: Path, kinds: Sequence[str]) -> list[Clip]:
    """Recorded clips of these kinds, of the demo's languages; none without the folder."""
    manifest = speech / "manifest.jsonl"
    if not manifest.exists():
        return []
    where = {"kind": kinds, "lang": _NAMES}
    return read_manifest(manifest, ManifestOptions(supported=DEMO_LANGUAGES, where=where))
