"""Word error rate and language accuracy of the demo checkpoint, by latency mode and language.

    python -m benchmarks.accuracy --work build/training --speech ../shared/speech

Prints the README's table and writes docs/results/accuracy.json. Sets: (a) held-out sentences in
held-out voices, (b) a synthesis engine never trained on, (c) recorded human digits and numbers.
Text is compared in lower case without punctuation (whisper-normalizer's basic normaliser, which
keeps accents); every clip goes through the streaming engine in `auto`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jiwer
import typer
from rich.progress import Progress
from whisper_normalizer.basic import BasicTextNormalizer

from benchmarks.clips import DEMO_LANGUAGES, Clip, recorded, synthetic
from nemotron_voice import Engine, Transcript
from nemotron_voice.config import LATENCIES_MS

SETS = {
    "a": "held-out sentences, held-out voices",
    "b": "synthesis engine never trained on",
    "c": "recorded human digits and numbers",
}
_normalise = BasicTextNormalizer()


@dataclass(frozen=True, slots=True)
class Heard:
    """What the engine made of a clip."""

    clip: Clip
    text: str
    language: str | None


async def hear(
    engine: Engine, clips: Sequence[Clip], latency_ms: int, language: str | None
) -> list[Heard]:
    """Stream every clip, as many at once as the engine has slots.

    Args:
        language: "auto", or None to force each clip's own language.
    """
    room = asyncio.Semaphore(engine.options.max_streams)

    async def one(clip: Clip) -> Heard:
        async with room:
            stream = engine.open(
                language=language or clip.language, latency_ms=latency_ms, max_buffered_s=600.0
            )
            stream.push(clip.samples())
            final: Transcript = await stream.finish(deadline_s=600.0)
            return Heard(clip, final.text, final.language)

    return await asyncio.gather(*(one(clip) for clip in clips))


def word_errors(heard: Sequence[Heard]) -> float:
    """Word error rate, %."""
    return 100 * jiwer.wer(
        [_normalise(h.clip.text).strip() for h in heard],
        [_normalise(h.text).strip() for h in heard],
    )


def language_accuracy(heard: Sequence[Heard]) -> float:
    """Share of clips with the right locale, %."""
    return 100 * sum(h.language == h.clip.language for h in heard) / len(heard)


def main(
    work: Annotated[Path, typer.Option(help="Folder of training/synthesise.py")] = Path(
        "build/training"
    ),
    speech: Annotated[Path, typer.Option(help="Recorded speech with a manifest")] = Path(
        "../shared/speech"
    ),
    model: Annotated[str, typer.Option(help="Model to measure")] = "demo",
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/accuracy.json"
    ),
    show: Annotated[bool, typer.Option(help="Print every clip that was misheard")] = False,
) -> None:
    """Measure and print the table."""
    sets = {
        "a": synthetic(work, "test_a"),
        "b": synthetic(work, "test_b"),
        "c": recorded(speech) if (speech / "manifest.jsonl").exists() else [],
    }
    figures: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with Engine.load(model, max_streams=32) as engine, Progress() as progress:
        task = progress.add_task("streaming", total=2 * len(LATENCIES_MS) * len(sets))
        for name, clips in sets.items():
            for latency_ms in LATENCIES_MS:
                for prompt in ("auto", "forced"):
                    heard = (
                        asyncio.run(
                            hear(engine, clips, latency_ms, "auto" if prompt == "auto" else None)
                        )
                        if clips
                        else []
                    )
                    figures.setdefault(name, {}).setdefault(str(latency_ms), {})[prompt] = (
                        by_language(heard)
                    )
                    if show and latency_ms == 320:
                        for h in heard:
                            if _normalise(h.text) != _normalise(h.clip.text):
                                typer.echo(
                                    f"{name} {prompt} {h.clip.text!r} -> {h.text!r} {h.language}"
                                )
                    progress.advance(task)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(
        json.dumps(
            {"model": model, "clips": {name: len(clips) for name, clips in sets.items()}}
            | {"sets": figures},
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )
    typer.echo(table(figures, {name: len(clips) for name, clips in sets.items()}))


def by_language(heard: Sequence[Heard]) -> dict[str, float]:
    """WER of each language and of all, and the language accuracy, %."""
    if not heard:
        return {}
    figures = {
        code: round(word_errors(own), 2)
        for code in DEMO_LANGUAGES
        if (own := [h for h in heard if h.clip.language == code])
    }
    return figures | {
        "all": round(word_errors(heard), 2),
        "language": round(language_accuracy(heard), 2),
    }


def table(
    figures: dict[str, dict[str, dict[str, dict[str, float]]]], counts: dict[str, int]
) -> str:
    """The README's table, in Markdown."""
    lines = [
        "| set | latency | "
        + " | ".join(DEMO_LANGUAGES)
        + " | all | all, forced | language right |",
        "|---|---|" + "---|" * (len(DEMO_LANGUAGES) + 3),
    ]
    for name, modes in figures.items():
        if not counts[name]:
            continue
        for latency, prompts in modes.items():
            auto, forced = prompts["auto"], prompts["forced"]
            cells = [f"{auto[code]:.1f}" if code in auto else "-" for code in DEMO_LANGUAGES]
            lines.append(
                f"| ({name}) {SETS[name]}, {counts[name]} clips | {latency} ms | "
                + " | ".join(cells)
                + f" | {auto['all']:.1f} | {forced['all']:.1f} | {auto['language']:.1f} % |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
