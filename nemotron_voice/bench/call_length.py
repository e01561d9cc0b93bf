"""Does a step cost the same after an hour as after a minute? One stream, as fast as it is heard."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from nemotron_voice.bench.fresh_process import Progress, in_fresh_process, resident_bytes
from nemotron_voice.bench.percentiles import percentiles_ms
from nemotron_voice.bench.speech import RATE, recordings
from nemotron_voice.bench.subject import Subject
from nemotron_voice.engine import Engine
from nemotron_voice.engine.engine import StepReport

_FLUSH_S: Final = 10.0  # of audio between two flushes, as an agent's turns are


def measure(
    subject: Subject, *, minutes: int, latency_ms: int, audio: tuple[Path, ...], progress: Progress
) -> dict[str, Any]:
    """One long call in a fresh process.

    Returns:
        A row for each minute of audio, and "growth": the last minute's median step over the
        first minute's.
    """
    return in_fresh_process(measure_here, subject, minutes, latency_ms, audio, progress)


def measure_here(
    subject: Subject, minutes: int, latency_ms: int, audio: tuple[Path, ...], progress: Progress
) -> dict[str, Any]:
    """The same in this process."""
    with subject.load(max_streams=2) as engine:
        rows = asyncio.run(_call(engine, minutes, latency_ms, audio, progress))
    first, last = rows[0], rows[-1]
    return {
        **asdict(subject),
        "latency_ms": latency_ms,
        "growth": round(last["step_ms"]["p50"] / first["step_ms"]["p50"], 4),
        "memory_growth_mb": round(last["resident_mb"] - first["resident_mb"], 2),
        "minutes": rows,
    }


async def _call(
    engine: Engine, minutes: int, latency_ms: int, audio: tuple[Path, ...], progress: Progress
) -> list[dict[str, Any]]:
    steps_s: list[float] = []

    def note(report: StepReport) -> None:
        if report.latency_ms == latency_ms:
            steps_s.append(report.step_s)

    engine.observe(note)
    samples = np.concatenate([recording.samples for recording in recordings(audio)])
    stream = engine.open(latency_ms=latency_ms)
    piece = round(_FLUSH_S * RATE)
    rows: list[dict[str, Any]] = []
    at = words = 0

    async def read() -> None:
        nonlocal words
        async for transcript in stream:
            words += len(transcript.words) if transcript.is_final else 0

    reader = asyncio.create_task(read())
    for minute in range(1, minutes + 1):
        steps_s.clear()
        began = time.monotonic()
        for _ in range(round(60 / _FLUSH_S)):
            stream.push(np.take(samples, np.arange(at, at + piece), mode="wrap"))
            at = (at + piece) % samples.size
            await stream.drained(max_buffered_s=0.0)
            await stream.flush()
        spent_s = time.monotonic() - began
        gc.collect()
        rows.append(
            {
                "minute": minute,
                "step_ms": percentiles_ms(steps_s, 50, 90),
                "steps": len(steps_s),
                "seconds_spent": round(spent_s, 3),
                "resident_mb": round(resident_bytes() / 1e6, 2),
                "words": words,
            }
        )
        progress(
            f"minute {minute:>3} of {minutes}: {rows[-1]['step_ms']['p50']:.2f} ms a step, "
            f"{rows[-1]['resident_mb']:.0f} MB, took {spent_s:.1f} s"
        )
    await stream.aclose()
    await reader
    return rows
