"""Ten Pipecat calls at once on one engine: as good as alone? Is the event loop held up?

    python -m benchmarks.pipecat_calls --calls 10

Every callback of the event loop is timed and booked to whoever it ran for: our STT service's tasks
and the engine's callbacks are ours, the rest is Pipecat's (audio, Silero, strategies). Times are of
the wall clock, so a thread that keeps the interpreter's lock, or another process on the core,
counts as well; a run with a service that hears nothing shows how much of that there is anyway.
Writes docs/results/pipecat_calls.json.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.events import Handle
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import jiwer
import numpy as np
import typer
from loguru import logger
from pipecat.frames.frames import Frame
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import STTService

from benchmarks.pipecat_bot import CallLog, call
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.pipecat import NemotronSTTService

LATENCY_MS = 160
STALL_MS = 20.0


class DeafSTT(STTService):
    """Takes audio and hears nothing: the same pipelines without us."""

    def __init__(self) -> None:
        settings = STTSettings(model=None, language=None)
        super().__init__(ttfs_p99_latency=0.3, settings=settings)

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Nothing."""
        del audio
        yield None


def owner(handle: Handle) -> str:
    """Whose callback this is."""
    callback: Any = handle._callback
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        ours = "NemotronSTTService" in task.get_name()
        return "ours" if ours else "pipecat"
    module = getattr(callback, "__module__", None) or type(task).__module__
    return "ours" if module.startswith("nemotron_voice") else "pipecat"


@contextmanager
def timed_callbacks() -> Iterator[dict[str, list[tuple[float, str]]]]:
    """Milliseconds of every callback of the event loop, by owner, with its name."""
    took: dict[str, list[tuple[float, str]]] = {"ours": [], "pipecat": []}
    original: Callable[[Handle], None] = Handle._run

    def run(self: Handle) -> None:
        name = owner(self)
        began = time.perf_counter()
        original(self)
        ms = 1e3 * (time.perf_counter() - began)
        took[name].append((ms, _describe(self) if ms > STALL_MS / 2 else ""))

    Handle._run = run  # type: ignore[method-assign]
    try:
        yield took
    finally:
        Handle._run = original  # type: ignore[method-assign]


def _describe(handle: Handle) -> str:
    task = getattr(handle._callback, "__self__", None)
    return task.get_name() if isinstance(task, asyncio.Task) else repr(handle._callback)[:80]


def stalls(took: list[tuple[float, str]]) -> dict[str, Any]:
    """Of one owner's callbacks."""
    ms = np.array([duration for duration, _ in took] or [0.0])
    longest = sorted(took, reverse=True)[:5]
    return {
        "callbacks": len(took),
        "total_ms": round(float(ms.sum()), 1),
        "p99.9_ms": round(float(np.percentile(ms, 99.9)), 2),
        "longest_ms": round(float(ms.max()), 2),
        "above_20_ms": int((ms > STALL_MS).sum()),
        "longest": [(round(duration, 1), name) for duration, name in longest],
    }


async def calls_at_once(make: Callable[[], STTService], count: int) -> list[CallLog]:
    """So many calls, begun 0.21 s apart."""
    audio = [read_samples(each.audio) for each in bundled_calls()]
    return await asyncio.gather(
        *(call(make(), audio[n % len(audio)], delay_s=0.21 * n) for n in range(count))
    )


async def measure(engine: Engine, count: int) -> dict[str, Any]:
    """All of it."""
    settings = NemotronSTTService.Settings(latency_ms=LATENCY_MS)

    def ours() -> STTService:
        return NemotronSTTService(engine=engine, settings=settings)

    typer.echo("each call alone", err=True)
    audio = [read_samples(each.audio) for each in bundled_calls()]
    alone = [(await call(ours(), samples)).text for samples in audio[:count]]
    typer.echo(f"{count} calls with a service that hears nothing", err=True)
    with timed_callbacks() as deaf:
        await calls_at_once(DeafSTT, count)
    typer.echo(f"{count} calls", err=True)
    with timed_callbacks() as took:
        logs = await calls_at_once(ours, count)
    together = [log.text for log in logs]
    expected = [alone[n % len(alone)] for n in range(count)]
    pairs = list(zip(expected, together, strict=True))
    return {
        "calls": count,
        "latency_ms": LATENCY_MS,
        "equal_to_alone": sum(one == other for one, other in pairs),
        "wer_against_alone": round(100 * jiwer.wer(expected, together), 2),
        "different": [pair for pair in pairs if pair[0] != pair[1]],
        "ours": stalls(took["ours"]),
        "pipecat": stalls(took["pipecat"]),
        "without_us": stalls(deaf["pipecat"]),
    }


def table(figures: dict[str, Any]) -> str:
    """In Markdown."""
    lines = [
        (
            f"{figures['equal_to_alone']} of {figures['calls']} calls have the transcript that "
            f"they have alone; the rest differ by {figures['wer_against_alone']} % of all words."
        ),
        "",
        "| callbacks of the event loop | count | in all | p99.9 | longest | above 20 ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, whose in (
        ("ours", "this service's and the engine's"),
        ("pipecat", "the rest of the pipelines, same run"),
        ("without_us", "the same pipelines with an STT that hears nothing"),
    ):
        row = figures[name]
        lines.append(
            f"| {whose} | {row['callbacks']} | {row['total_ms'] / 1e3:.1f} s "
            f"| {row['p99.9_ms']} ms | {row['longest_ms']} ms | {row['above_20_ms']} |"
        )
    return "\n".join(lines)


def main(
    calls: Annotated[int, typer.Option(help="At once")] = 10,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/pipecat_calls.json"
    ),
) -> None:
    """Measure and print."""
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    with Engine.load("demo", threads=1) as engine:
        figures = asyncio.run(measure(engine, calls))
    results.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(json.dumps({k: v for k, v in figures.items() if k != "different"}, indent=1))


if __name__ == "__main__":
    typer.run(main)
