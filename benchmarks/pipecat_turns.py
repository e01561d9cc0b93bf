"""How soon a Pipecat bot has the final, and its LLM the context, after the caller stops.

    python -m benchmarks.pipecat_turns --turns 200 --calls-at-once 4

Plays the bundled calls in real time through real pipelines (Silero with stop_secs 0.2, this STT,
user aggregator with Smart Turn), several at once on one engine. TTFS is what Pipecat's own
stt-benchmark measures: from the end of speech (the detector's stop less its stop_secs) to the
final. Beside it: from the detector's stop to the final, and to the LLM's context. Writes
docs/results/pipecat_turns.json.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from loguru import logger

from benchmarks.percentiles import cell, percentiles_ms
from benchmarks.pipecat_bot import STOP_S, call
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.pipecat import NemotronSTTService


async def measure(
    engine: Engine, latency_ms: int, least_turns: int, at_once: int
) -> dict[str, Any]:
    """Figures of one latency mode."""
    audio = [read_samples(each.audio) for each in bundled_calls()]
    settings = NemotronSTTService.Settings(latency_ms=latency_ms)
    to_final: list[float] = []
    to_context: list[float] = []
    stops = unanswered = played = 0
    while stops < least_turns:
        logs = await asyncio.gather(
            *(
                call(
                    NemotronSTTService(engine=engine, settings=settings),
                    audio[(played + n) % len(audio)],
                    delay_s=0.37 * n,
                )
                for n in range(at_once)
            )
        )
        played += at_once
        for log in logs:
            finals, contexts, missed = log.waits()
            to_final += finals
            to_context += contexts
            stops += len(log.stops)
            unanswered += missed
        typer.echo(f"{latency_ms} ms: {stops} of {least_turns} turns", err=True)
    return {
        "stops": stops,
        "calls_at_once": at_once,
        "without_finalized_transcript": unanswered,
        "stop_to_final_ms": percentiles_ms(to_final),
        "ttfs_ms": percentiles_ms([wait + STOP_S for wait in to_final]),
        "stop_to_context_ms": percentiles_ms(to_context),
    }


def table(results: dict[str, Any]) -> str:
    """The README's table, in Markdown."""
    lines = [
        (
            "| latency | stops | calls at once | without a final | stop to final, p50 / p95 / p99 "
            "| TTFS p50 / p95 / p99 | stop to LLM context p50 / p95 / p99 |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        cells = [cell(row[kind]) for kind in ("stop_to_final_ms", "ttfs_ms", "stop_to_context_ms")]
        lines.append(
            f"| {name.partition(',')[0]} | {row['stops']} | {row['calls_at_once']} "
            f"| {row['without_finalized_transcript']} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main(
    turns: Annotated[int, typer.Option(help="VAD stops at least, in each mode")] = 200,
    latency_ms: Annotated[list[int] | None, typer.Option(help="Modes")] = None,
    calls_at_once: Annotated[int, typer.Option(help="On one engine")] = 4,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/pipecat_turns.json"
    ),
) -> None:
    """Measure and print the table."""
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    figures: dict[str, Any] = {}
    if results.exists():  # other modes and loads stay
        figures = json.loads(results.read_text(encoding="utf-8"))
    with Engine.load("demo", threads=1) as engine:
        for mode in latency_ms or [80, 160, 320]:
            figures[f"{mode} ms, {calls_at_once} at once"] = asyncio.run(
                measure(engine, mode, turns, calls_at_once)
            )
            results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(figures))


if __name__ == "__main__":
    typer.run(main)
