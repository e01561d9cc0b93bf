"""A Hugging Face dataset as a manifest: its audio beside it, as it is there, in a folder kept.

FLEURS and Common Voice are known by their columns; others by the names that most have. Nothing is
decoded here: the bytes of each file are written as they come. Needs the package `datasets`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.int8_store import cache_folder

# In order of preference. FLEURS has `transcription` and, with punctuation, `raw_transcription`.
_TEXT: Final = ("text", "sentence", "transcription", "raw_transcription", "transcript")
_LANGUAGE: Final = ("target_lang", "locale", "lang", "language_code")
_KEPT: Final = ("gender", "age", "accent", "accents", "speaker_id", "client_id", "kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """Which clips.

    DatasetSpec(name="google/fleurs", config="el_gr", split="test")
    """

    name: str  # Hugging Face id, or a folder that `datasets` can load
    config: str | None = None
    split: str = "test"
    text_column: str | None = None
    revision: str | None = None
    limit: int | None = None  # the first so many


def prepare(
    spec: DatasetSpec,
    progress: Callable[[int, int | None], None] = lambda _done, _all: None,
    *,
    folder: Path | None = None,
) -> Path:
    """Download a dataset and write it as a manifest, once.

    Args:
        spec: which.
        progress: told how many clips are written, of how many.
        folder: where; by default in the package's cache.

    Returns:
        The manifest's path.

    Raises:
        ConfigurationError: `datasets` is missing, there is no such dataset, config, split or
            column.
    """
    folder = folder or _folder(spec)
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        return manifest
    try:
        import datasets  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{spec.name} is a dataset's name, and {error.name} is missing; "
            "pip install 'nemotron-voice[datasets]', or give a manifest"
        ) from error
    try:
        rows = datasets.load_dataset(
            spec.name, spec.config, split=spec.split, revision=spec.revision
        )
    except Exception as error:  # of many kinds, network included
        raise ConfigurationError(
            f"the dataset {spec.name} (config {spec.config}, split {spec.split}) can't be loaded: "
            f"{error}"
        ) from error
    columns = set(rows.column_names)
    text = spec.text_column or next((name for name in _TEXT if name in columns), None)
    if "audio" not in columns or text is None or text not in columns:
        raise ConfigurationError(
            f"{spec.name} has the columns {', '.join(sorted(columns))}: no "
            f"{'audio' if 'audio' not in columns else 'text'}; name the text by --text-column"
        )
    rows = rows.cast_column("audio", datasets.Audio(decode=False))
    if spec.limit is not None:
        rows = rows.select(range(min(spec.limit, len(rows))))
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        lines.append(_line(row, number, text, _region(spec.config), folder))
        progress(number + 1, len(rows))
    unfinished = manifest.with_suffix(".unfinished")
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.rename(manifest)
    return manifest


def _line(row: Mapping[str, Any], number: int, text: str, region: str | None, folder: Path) -> str:
    audio = row["audio"]
    source = Path(audio["path"] or "clip.wav")
    clip = folder / f"{number:06d}{source.suffix or '.wav'}"
    data = audio["bytes"] if audio["bytes"] is not None else source.read_bytes()
    clip.write_bytes(data)
    said = next((row[name] for name in _LANGUAGE if isinstance(row.get(name), str)), region)
    kept = {name: row[name] for name in _KEPT if row.get(name) not in {None, ""}}
    entry = {"id": f"{number:06d}", "audio_filepath": clip.name, "text": row[text]}
    if said is not None:
        entry["target_lang"] = said
    return json.dumps(entry | kept, ensure_ascii=False) + "\n"


def _region(config: str | None) -> str | None:
    """FLEURS names its configs "el_gr", Common Voice "el"; others have no language there."""
    return (
        config if config and re.fullmatch(r"[a-z]{2,3}([_-][A-Za-z]{2,4}){0,2}", config) else None
    )


def _folder(spec: DatasetSpec) -> Path:
    parts = (spec.name, spec.config, spec.split, spec.text_column, spec.revision, spec.limit)
    name = "-".join(re.sub(r"[^\w.]+", "_", str(part)) for part in parts if part is not None)
    root, _ = cache_folder()  # no copies of models may be kept; these are no copies
    return root / "datasets" / name.strip("_")
