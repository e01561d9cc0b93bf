"""Ten participants of a room transcribed at once in one process: are they as good as alone?

    python -m benchmarks.livekit_room --participants 10

Each participant is an AgentSession of its own, all share one engine; audio comes in real time in
frames of 50 ms at 24 kHz, as a room gives it. Writes docs/results/livekit_room.json.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import jiwer
import numpy as np
import typer

from benchmarks.livekit_bot import RecordedCaller, talking
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.livekit import STT

RATE = 16_000
LATENCY_MS = 320


async def heard(engine: Engine, number: int) -> str:
    """The words of one participant."""
    call = bundled_calls()[number % len(bundled_calls())]
    samples = read_samples(call.audio)
    caller = RecordedCaller(np.concatenate([samples, np.zeros(2 * RATE, np.float32)]))
    await asyncio.sleep(0.13 * number)
    ears = STT(engine=engine, latency_ms=LATENCY_MS)
    async with talking(caller, stt=ears, llm=None, tts=None) as (_, log):
        await caller.ended.wait()
        await asyncio.sleep(1.0)
    return " ".join(event.transcript for _, event in log.finals)


async def measure(engine: Engine, count: int) -> dict[str, Any]:
    """Alone, then together."""
    alone = [await heard(engine, number) for number in range(min(count, len(bundled_calls())))]
    together = await asyncio.gather(*(heard(engine, number) for number in range(count)))
    expected = [alone[number % len(alone)] for number in range(count)]
    pairs = list(zip(expected, together, strict=True))
    return {
        "participants": count,
        "latency_ms": LATENCY_MS,
        "equal_to_alone": sum(one == other for one, other in pairs),
        "wer_against_alone": round(100 * jiwer.wer(expected, list(together)), 2),
        "different": [pair for pair in pairs if pair[0] != pair[1]],
    }


def summary(figures: dict[str, Any]) -> str:
    """In a sentence."""
    return (
        f"{figures['participants']} participants at once: {figures['equal_to_alone']} have the "
        f"transcript that they have alone; the rest differ by {figures['wer_against_alone']} % of "
        "all words."
    )


def main(
    participants: Annotated[int, typer.Option(help="At once")] = 10,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/livekit_room.json"
    ),
) -> None:
    """Measure and print."""
    logging.getLogger("livekit").setLevel(logging.ERROR)
    with Engine.load("demo", threads=1) as engine:
        figures = asyncio.run(measure(engine, participants))
    results.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(summary(figures))


if __name__ == "__main__":
    typer.run(main)
