"""What bf16 and int8 change: WER against fp32, and texts that depend on the neighbours.

    python -m training.synthesise --work build/precision --hours 0 --dev-clips 0 --test-clips 240
    python -m benchmarks.precision --many build/precision

Every clip is heard in each precision and mode with 31 others, and every third alone in an engine of
one slot: sets b and c, and of set a 240 sentences a language instead of 40, of which a word is a
third of a point. Three quarters of an hour on two cores. Writes docs/results/precision.json.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from benchmarks.clips import DEMO_LANGUAGES, SETS, load_sets
from nemotron_voice import Engine
from nemotron_voice.bench.fresh_process import in_fresh_process
from nemotron_voice.bench.machine import describe, summary
from nemotron_voice.config import LATENCIES_MS, Precision
from nemotron_voice.evaluation.comparison import compare
from nemotron_voice.evaluation.hypotheses import Hypothesis
from nemotron_voice.evaluation.listening import ListenOptions, listen
from nemotron_voice.evaluation.manifest import Clip
from nemotron_voice.evaluation.normalisation import Normaliser

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
MODES = LATENCIES_MS
ALONE, TOGETHER = 1, 32  # clips at once
ALONE_EVERY = 3  # clips of which one is heard alone, too


def hear(clips: Sequence[Clip], precision: Precision, mode: int, streams: int) -> list[Hypothesis]:
    """What is heard, so many clips at once, in a process of its own."""
    return in_fresh_process(_heard, clips, precision, mode, streams)


def _heard(
    clips: Sequence[Clip], precision: Precision, mode: int, streams: int
) -> list[Hypothesis]:
    way = ListenOptions(latency_ms=mode, at_once=streams)
    with Engine.load(
        "demo", precision=precision, max_streams=streams, max_batch=streams, threads=1
    ) as engine:
        return asyncio.run(listen(engine, clips, way))


def measure(clips: Sequence[Clip]) -> dict[str, Any]:
    """Figures of each precision and mode; as many processes side by side as there are cores."""
    ways = [(name, mode, n) for n in (TOGETHER, ALONE) for name in PRECISIONS for mode in MODES]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        running = {
            pool.submit(hear, clips if way[2] == TOGETHER else clips[::ALONE_EVERY], *way): way
            for way in ways
        }
        heard = {}
        for done in track(as_completed(running), total=len(ways), description="listening"):
            heard[running[done]] = done.result()
    return {
        precision: {
            str(mode): against(
                heard[PRECISIONS[0], mode, TOGETHER], heard[precision, mode, TOGETHER]
            )
            | {
                "changed_by_neighbours": _different(
                    heard[precision, mode, ALONE], heard[precision, mode, TOGETHER][::ALONE_EVERY]
                ),
                "other_than_fp32": _different(
                    heard[PRECISIONS[0], mode, TOGETHER], heard[precision, mode, TOGETHER]
                ),
            }
            for mode in MODES
        }
        for precision in PRECISIONS
    }


def against(exact: Sequence[Hypothesis], others: Sequence[Hypothesis]) -> dict[str, Any]:
    """WER of all clips and of each language, and intervals of the differences."""
    (found,) = compare(exact, others, Normaliser.multilingual)
    return {row.group: round(row.other.value, 2) for row in found.groups} | {
        "intervals": {
            row.group: [round(row.difference.low, 2), round(row.difference.high, 2)]
            for row in found.groups
        }
    }


def _different(some: Sequence[Hypothesis], others: Sequence[Hypothesis]) -> int:
    return sum(one.pred_text != other.pred_text for one, other in zip(some, others, strict=True))


def main(
    many: Annotated[
        Path, typer.Option(help="Folder of training/synthesise.py with many clips of set a")
    ] = Path("build/precision"),
    work: Annotated[Path, typer.Option(help="The same, with set b")] = Path("build/training"),
    speech: Annotated[Path, typer.Option(help="Recorded speech with a manifest")] = Path(
        "../shared/speech"
    ),
    sets: Annotated[
        str, typer.Option(help="a: held-out voices; b: another synthesis; c: human digits")
    ] = "abc",
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/precision.json"
    ),
) -> None:
    """Measure and print the table."""
    chosen = {
        name: own
        for name in sets
        for own in load_sets(many if name == "a" else work, speech, name).values()
    }
    clips = [clip for own in chosen.values() for clip in own]
    figures = {
        "clips": len(clips),
        "alone": len(clips[::ALONE_EVERY]),
        "sets": {name: len(own) for name, own in chosen.items()},
        "precisions": measure(clips),
        "machine": describe(),
    }
    results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(figures))


def table(figures: dict[str, Any]) -> str:
    """In Markdown."""
    exact = figures["precisions"]["fp32"]
    lines = [
        "| precision, mode | "
        + " | ".join(DEMO_LANGUAGES)
        + " | all | all, against fp32 | other texts than fp32 | changed by neighbours |",
        "|---|" + "---|" * (len(DEMO_LANGUAGES) + 4),
    ]
    for precision, modes in figures["precisions"].items():
        for mode, row in modes.items():
            cells = [f"{row[code]:.1f}" for code in DEMO_LANGUAGES]
            difference = ""
            if precision != "fp32":
                cells = [
                    f"{cell} ({row[code] - exact[mode][code]:+.2f})"
                    for cell, code in zip(cells, DEMO_LANGUAGES, strict=True)
                ]
                low, high = row["intervals"]["all"]
                difference = f"{row['all'] - exact[mode]['all']:+.2f} ({low:+.2f} to {high:+.2f})"
            lines.append(
                f"| {precision}, {mode} ms | "
                + " | ".join(cells)
                + f" | {row['all']:.2f} | {difference} "
                f"| {row['other_than_fp32']} | {row['changed_by_neighbours']} |"
            )
    sets = ", ".join(f"{count} {SETS[name]}" for name, count in figures["sets"].items())
    return "\n".join(lines) + (
        f"\n\n{figures['clips']} clips ({sets}); WER in %, `auto`, and in brackets the difference "
        "from fp32; in the brackets of all, where 95 % of resampled sets lie. "
        f"{figures['alone']} of the clips were heard alone, too. {summary(figures['machine'])}."
    )


if __name__ == "__main__":
    typer.run(main)
