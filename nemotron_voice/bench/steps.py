"""What a step costs: by latency mode, streams at once, and precision.

All streams get their audio at once, so each step but the first few has them all: a step then takes
as long as it does in the worst instant of a full engine.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nemotron_voice.bench.callers import words_heard
from nemotron_voice.bench.fresh_process import (
    MeasurementError,
    Progress,
    in_fresh_process,
    resident_bytes,
)
from nemotron_voice.bench.percentiles import percentiles_ms
from nemotron_voice.bench.speech import RATE, Recording, recordings
from nemotron_voice.bench.subject import Subject
from nemotron_voice.config import FRAME_MS, LATENCIES_MS
from nemotron_voice.engine import Engine
from nemotron_voice.engine.engine import StepReport
from nemotron_voice.engine.stream import Stream

LEFT_CONTEXT: Final = 56  # frames that fill the attention's cache: 4.5 s
STREAMS: Final = (1, 2, 4, 8, 16, 32)
_FEWEST: Final = 5  # steps that a median is taken of


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """Which steps are measured."""

    latencies_ms: tuple[int, ...] = LATENCIES_MS
    streams: tuple[int, ...] = STREAMS
    steps: int = 40  # of each mode and number of streams
    budget_s: float = 20.0  # after which fewer steps do, at least 5
    audio: tuple[Path, ...] = ()  # what is heard; the bundled calls


def measure(
    subjects: Sequence[Subject], options: StepOptions, progress: Progress
) -> list[dict[str, Any]]:
    """A row for each subject, latency mode and number of streams; a fresh process a subject."""
    return [
        row
        for subject in subjects
        for row in in_fresh_process(measure_here, subject, options, progress)
    ]


def measure_here(
    subject: Subject, options: StepOptions, progress: Progress
) -> list[dict[str, Any]]:
    """The rows of one subject, in this process."""
    progress(f"{subject.model} in {subject.precision}: loading")
    most = max(options.streams)
    sounds = recordings(options.audio)
    rows = []
    with subject.load(max_streams=most, max_batch=most) as engine:
        for latency_ms in options.latencies_ms:
            engine.resolve_latency(latency_ms)
            for streams in options.streams:
                row = asdict(subject) | asyncio.run(
                    _row(engine, sounds, latency_ms, streams, options)
                )
                row["resident_mb"] = round(resident_bytes() / 1e6)
                rows.append(row)
                progress(
                    f"{subject.precision} {latency_ms:>4} ms x {streams:>3} streams: "
                    f"{row['step_ms']['p50']:8.1f} ms a step, real-time factor "
                    f"{row['real_time_factor']:.3f}"
                )
    return rows


class _Reports:
    """Steps of all streams of one mode, once the left context is full."""

    def __init__(self, latency_ms: int, streams: int) -> None:
        self._latency_ms = latency_ms
        self._streams = streams
        self._warm = math.ceil(LEFT_CONTEXT * FRAME_MS / latency_ms) + 1
        self._ended: float | None = None
        self.steps_s: list[float] = []
        self.cycles_s: list[float] = []  # from one step's end to the next one's
        self.done = False

    def __call__(self, report: StepReport) -> None:
        now = time.perf_counter()
        full = report.latency_ms == self._latency_ms and len(report.waits_s) == self._streams
        if self.done or not full:
            self._ended = None
            return
        if self._warm:
            self._warm -= 1
        else:
            self.steps_s.append(report.step_s)
            if self._ended is not None:
                self.cycles_s.append(now - self._ended)
        self._ended = now


async def _row(
    engine: Engine,
    sounds: Sequence[Recording],
    latency_ms: int,
    streams: int,
    options: StepOptions,
) -> dict[str, Any]:
    reports = _Reports(latency_ms, streams)
    engine.observe(reports)
    # A few more than are counted: the first and the last steps don't have all streams.
    chunks = math.ceil(LEFT_CONTEXT * FRAME_MS / latency_ms) + options.steps + 6
    seconds = chunks * latency_ms / 1000
    opened = [
        engine.open(latency_ms=latency_ms, max_buffered_s=2 * seconds) for _ in range(streams)
    ]
    for number, stream in enumerate(opened):
        sound = sounds[number % len(sounds)].samples
        places = np.arange(int(seconds * RATE)) + number * RATE
        stream.push(np.take(sound, places, mode="wrap"))
    began = time.monotonic()
    while len(reports.steps_s) < options.steps and not await _all_drained(opened):
        spent = time.monotonic() - began
        if spent > options.budget_s and len(reports.steps_s) >= _FEWEST:
            break
    reports.done = True
    for stream in opened:
        await stream.aclose()
    words = [await words_heard(stream) for stream in opened]
    # Slots of closed streams come back after the step; there is no event for it.
    while engine.stats().streams:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    if len(reports.steps_s) < _FEWEST:
        raise MeasurementError(
            f"only {len(reports.steps_s)} steps of {latency_ms} ms had all {streams} streams; "
            f"measure more --steps, or fewer streams"
        )
    step_s = float(np.median(reports.steps_s))
    cycle_s = float(np.median(reports.cycles_s))
    decoded_s = (len(reports.steps_s) + math.ceil(LEFT_CONTEXT * FRAME_MS / latency_ms)) * (
        latency_ms / 1000
    )
    return {
        "latency_ms": latency_ms,
        "streams": streams,
        "steps": len(reports.steps_s),
        "step_ms": percentiles_ms(reports.steps_s, 10, 50, 90, 99),
        "cycle_ms": percentiles_ms(reports.cycles_s, 50),
        "real_time_factor": round(1000 * step_s / latency_ms, 4),
        # With what lies between two steps: tokens to text, and to whoever listens.
        "cycle_factor": round(1000 * cycle_s / latency_ms, 4),
        "words_per_s": round(float(np.mean(words)) / decoded_s, 2),
    }


async def _all_drained(streams: Sequence[Stream]) -> bool:
    """Wait a little; whether everything pushed has been decoded by then."""
    try:
        async with asyncio.timeout(0.05):
            for stream in streams:
                await stream.drained(max_buffered_s=0.0)
    except TimeoutError:
        return False
    return True
