"""Random flushes in the middle of calls: does the text of the whole call stay the same?

    python -m benchmarks.flush --flushes 240

Streams the bundled calls with flushes at random instants (mid-word ones included), joins the
finals and compares them with the same call without a flush, word by word, without case and
punctuation. Prints the count of flushes, words lost, repeated and changed, and how long the finals
took; writes docs/results/flush.json.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import Progress
from whisper_normalizer.basic import BasicTextNormalizer

from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.config import LATENCIES_MS
from nemotron_voice.transcript import join_texts

RATE = 16_000
FLUSHES_PER_CALL = 4
_normalise = BasicTextNormalizer()


async def text_of(
    engine: Engine, samples: NDArray[np.float32], latency_ms: int, flushes: Sequence[int]
) -> tuple[str, list[float]]:
    """The call's finals joined, and how long each flush took in seconds."""
    stream = engine.open(language="auto", latency_ms=latency_ms, max_buffered_s=600.0)
    waits = []
    at = 0
    for flush in sorted(flushes):
        stream.push(samples[at:flush])
        at = flush
        await stream.drained(max_buffered_s=latency_ms / 1000 + 0.1)
        began = time.perf_counter()
        await stream.flush()
        waits.append(time.perf_counter() - began)
    stream.push(samples[at:])
    await stream.finish()
    return join_texts([t async for t in stream if t.is_final]), waits


def compare(plain: str, flushed: str) -> Counter[str]:
    """Words lost, repeated (or added) and changed against the call without a flush."""
    reference, hypothesis = _normalise(plain).split(), _normalise(flushed).split()
    counts: Counter[str] = Counter()
    matcher = difflib.SequenceMatcher(None, reference, hypothesis, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "delete":
            counts["lost"] += b - a
        elif kind == "insert":
            counts["repeated"] += d - c
        elif kind == "replace":
            counts["changed"] += max(b - a, d - c)
    return counts


async def measure(
    engine: Engine, audio: Sequence[NDArray[np.float32]], flushes: int, seed: int, *, show: bool
) -> dict[str, dict[str, float]]:
    """Figures for each latency mode."""
    figures = {}
    with Progress() as progress:
        task = progress.add_task("flushing", total=flushes * len(LATENCIES_MS))
        for latency_ms in LATENCIES_MS:
            rng = random.Random(seed)
            plain = [(await text_of(engine, samples, latency_ms, []))[0] for samples in audio]
            counts: Counter[str] = Counter()
            waits: list[float] = []
            done = same = passes = 0
            while done < flushes:
                place = passes % len(audio)
                samples = audio[place]
                instants = [rng.randrange(RATE // 2, samples.size) for _ in range(FLUSHES_PER_CALL)]
                text, took = await text_of(engine, samples, latency_ms, instants)
                differences = compare(plain[place], text)
                if show and differences:
                    typer.echo(f"{latency_ms} ms {sorted(i / RATE for i in instants)}")
                    typer.echo(f"- {plain[place]}\n+ {text}")
                counts += differences
                same += not differences
                waits += took
                done += FLUSHES_PER_CALL
                passes += 1
                progress.advance(task, FLUSHES_PER_CALL)
            figures[str(latency_ms)] = {
                "flushes": done,
                "calls": passes,
                "calls_equal": same,
                "words_lost": counts["lost"],
                "words_repeated": counts["repeated"],
                "words_changed": counts["changed"],
                "final_ms_p50": round(1e3 * median(waits), 1),
                "final_ms_p95": round(1e3 * quantiles(waits, n=20)[-1], 1),
            }
    return figures


def main(
    flushes: Annotated[int, typer.Option(help="Random flushes in each latency mode")] = 240,
    seed: Annotated[int, typer.Option(help="Of the random instants")] = 1,
    show: Annotated[bool, typer.Option(help="Print every call whose text changed")] = False,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/flush.json"
    ),
) -> None:
    """Measure and print the table."""
    audio = [read_samples(call.audio) for call in bundled_calls()]
    with Engine.load("demo") as engine:
        figures = asyncio.run(measure(engine, audio, flushes, seed, show=show))
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(figures))


def table(figures: dict[str, dict[str, float]]) -> str:
    """The README's table, in Markdown."""
    columns = list(next(iter(figures.values())))
    heading = " | ".join(column.replace("_", " ") for column in columns)
    rows = [
        f"| {latency_ms} ms | " + " | ".join(str(row[column]) for column in columns) + " |"
        for latency_ms, row in figures.items()
    ]
    return "\n".join([f"| latency | {heading} |", "|---|" + "---|" * len(columns), *rows])


if __name__ == "__main__":
    typer.run(main)
