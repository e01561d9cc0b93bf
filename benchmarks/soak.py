"""One stream for an hour of audio: does memory stay flat, and the cost of a step with it?

    python -m benchmarks.soak --minutes 60

Feeds the bundled calls over and over as fast as the device decodes them, without a flush for most
of the time (the hardest case: nothing is ever finalised by the caller), and writes
docs/results/soak.json: resident memory and the median step time of each minute of audio.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress

from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls

RATE = 16_000
FLUSH_S = 10


def resident_mb() -> float:
    """Resident set size of this process, MB (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


async def soak(engine: Engine, minutes: int, latency_ms: int) -> list[dict[str, float]]:
    """One row a minute of audio."""
    calls = [read_samples(c.audio) for c in bundled_calls()]
    audio = np.concatenate(calls)
    stream = engine.open(language="auto", latency_ms=latency_ms)
    chunk = RATE * latency_ms // 1000
    words = 0

    async def read() -> None:
        nonlocal words
        async for transcript in stream:
            if transcript.is_final:
                words += len(transcript.words)

    reader = asyncio.create_task(read())
    rows = []
    at = 0
    with Progress() as progress:
        task = progress.add_task("minutes of audio", total=minutes)
        for minute in range(1, minutes + 1):
            steps = []
            for number in range(60 * RATE // chunk):
                piece = np.take(audio, np.arange(at, at + chunk), mode="wrap")
                at = (at + chunk) % audio.size
                began = time.perf_counter()
                stream.push(piece)
                await stream.drained(max_buffered_s=latency_ms / 1000 + 0.05)
                steps.append(time.perf_counter() - began)
                if number % (FLUSH_S * RATE // chunk) == 0:  # as an agent does at every pause
                    await stream.flush()
            gc.collect()
            rows.append(
                {
                    "minute": minute,
                    "resident_mb": round(resident_mb(), 2),
                    "step_ms": round(1e3 * median(steps), 3),
                    "words": words,
                }
            )
            progress.advance(task)
    await stream.finish()
    await reader
    return rows


def main(
    minutes: Annotated[int, typer.Option(help="Minutes of audio")] = 60,
    latency_ms: Annotated[int, typer.Option(help="Latency mode")] = 320,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/soak.json"
    ),
) -> None:
    """Measure and print the summary."""
    with Engine.load("demo", max_streams=2, threads=1) as engine:
        rows = asyncio.run(soak(engine, minutes, latency_ms))
    growth = max(row["resident_mb"] for row in rows[1:]) - rows[0]["resident_mb"]
    figures = {"growth_mb": round(growth, 2), "minutes": rows}
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(summary(figures))


def summary(figures: dict[str, Any]) -> str:
    """What the README says of it."""
    rows = figures["minutes"]
    first, last = rows[1]["step_ms"], rows[-1]["step_ms"]
    return (
        f"{len(rows)} minutes of audio on one stream (`python -m benchmarks.soak`): memory "
        f"{figures['growth_mb']:+.2f} MB after the first minute (bar: 2 MB); a step takes "
        f"{first} ms in the second minute and {last} ms in the last: x{last / first:.2f} (bar: 1.1)"
    )


if __name__ == "__main__":
    typer.run(main)
