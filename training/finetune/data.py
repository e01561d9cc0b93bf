"""Manifests for NeMo: every problem found first, the language's tag behind each text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation.manifest import Clip, ManifestOptions, read_manifest
from nemotron_voice.languages import BY_CODE
from training.finetune.vocabulary import TagSpelling

SHORTEST_S, LONGEST_S = 0.3, 30.0  # clips outside are left out, and counted
_SOUND_RATES = 16_000


@dataclass(frozen=True, slots=True)
class Source:
    """A manifest and its share of what is trained on."""

    manifest: Path
    weight: float
    clips: tuple[Clip, ...]
    keep: bool = False  # speech of what the base knows

    @property
    def hours(self) -> float:
        """Of audio."""
        return sum(clip.duration_s for clip in self.clips) / 3600

    @property
    def locales(self) -> tuple[str, ...]:
        """In order of first appearance."""
        return tuple(dict.fromkeys(clip.locale for clip in self.clips if clip.locale))


def read_sources(named: Sequence[str], *, keep: bool = False) -> list[Source]:
    """Manifests "PATH" or "PATH=WEIGHT", checked whole; `keep`: of what the base knows.

    Raises:
        ConfigurationError: a weight is no number, or a manifest has problems: all are named.
    """
    sources = []
    option = "--keep" if keep else "--train"
    for text in named:
        path, _, weight = text.partition("=")
        try:
            share = float(weight or 1.0)
        except ValueError as error:
            raise ConfigurationError(f"{option} {text!r}: the weight is no number") from error
        if share <= 0:
            raise ConfigurationError(f"{option} {text!r}: the weight must be more than 0")
        clips = read_manifest(Path(path), ManifestOptions(needs_locale=True))
        kept = tuple(c for c in clips if SHORTEST_S <= c.duration_s <= LONGEST_S)
        if not kept:
            raise ConfigurationError(
                f"{path} has no clip of {SHORTEST_S:g} to {LONGEST_S:g} s to learn from"
            )
        sources.append(Source(Path(path), share, kept, keep))
    return sources


def write_manifest(source: Source, tag_of: Callable[[str], TagSpelling], path: Path) -> None:
    """NeMo's manifest of a source's clips, with absolute paths and a tag behind each text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for clip in source.clips:
            assert clip.locale is not None
            row = {
                "audio_filepath": str(clip.path.resolve()),
                "duration": clip.duration_s,
                "text": clip.text + tag_of(clip.locale).text,
                "target_lang": clip.locale,
                "keep": source.keep,
            }
            if clip.offset_s is not None:
                row["offset"] = clip.offset_s
            if is_aligned(clip):
                row["words"] = [asdict(word) | {"word": word.text} for word in clip.words]
                row["spoken_s"] = clip.duration_s
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def is_aligned(clip: Clip) -> bool:
    """Whether each word of the text has its time."""
    return bool(clip.words) and [word.text for word in clip.words] == clip.text.split()


def loader_config(
    manifests: Sequence[tuple[Path, float]],
    prompts: dict[str, int],
    *,
    batch_s: float,
    seed: int,
    workers: int,
    telephone: float,
    noise: Path | None,
) -> dict[str, Any]:
    """NeMo's configuration of a training loader.

    Args:
        manifests: with their weights: of how often a clip is drawn.
        prompts: name -> prompt slot.
        batch_s: seconds of audio in a batch.
        seed: of everything drawn.
        workers: processes that load.
        telephone: share of clips whose band is cut as a telephone line's.
        noise: manifest of Lhotse recordings to mix in; None: nothing is mixed in.
    """
    config: dict[str, Any] = {
        "use_lhotse": True,
        "input_cfg": [
            {
                "type": "nemo",
                "manifest_filepath": str(path),
                "weight": weight,
                "tags": {},
            }
            for path, weight in manifests
        ],
        "sample_rate": _SOUND_RATES,
        "text_field": "text",
        "lang_field": "target_lang",
        "prompt_dictionary": prompts,
        "num_prompts": max(128, *prompts.values()),
        "default_prompt_mode": "unified",
        "unified_auto_ratio": 0.5,
        "batch_duration": batch_s,
        "use_bucketing": True,
        "num_buckets": 10,
        "bucket_buffer_size": 2000,
        "shuffle_buffer_size": 2000,
        "concurrent_bucketing": False,
        "shuffle": True,
        "seed": seed,
        "shard_seed": seed,
        "num_workers": workers,
        "min_duration": SHORTEST_S,
        "max_duration": LONGEST_S,
        "perturb_speed": True,
        "lowpass_enabled": telephone > 0,
        "lowpass_frequencies_interval": (3400.0, 4000.0),
        "lowpass_prob": telephone,
    }
    if noise is not None:
        config |= {"noise_path": str(noise), "noise_mix_prob": 0.4, "noise_snr": (8.0, 30.0)}
    return config


def describe(sources: Sequence[Source]) -> str:
    """A line for each, for the report."""
    total = sum(source.weight for source in sources)
    return "\n".join(
        f"- {source.manifest}: {len(source.clips)} clips, {source.hours:.2f} h of "
        f"{', '.join(BY_CODE[code].name for code in source.locales)}; "
        f"{100 * source.weight / total:.0f} % of what is drawn"
        for source in sources
    )
