"""Does a step cost the same after an hour as after a minute? One call, as fast as it is heard.

A machine's speed varies more meanwhile than a step may grow. So at the end the long call and a
fresh one hear the same audio in turn: what their steps take differs by the call's length alone.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nemotron_voice.bench.fresh_process import Progress, in_fresh_process, resident_bytes
from nemotron_voice.bench.percentiles import percentiles_ms
from nemotron_voice.bench.speech import RATE, recordings
from nemotron_voice.bench.subject import Subject
from nemotron_voice.engine import Engine, Stream
from nemotron_voice.engine.engine import StepReport

_TURN_S: Final = 10.0  # of audio between two flushes, as an agent's turns are
_COMPARED: Final = 12  # turns of the long call and of the fresh one


def measure(
    subject: Subject, *, minutes: int, latency_ms: int, audio: tuple[Path, ...], progress: Progress
) -> dict[str, Any]:
    """One long call in a fresh process.

    Returns:
        A row for each minute of audio; "growth": the last minute's median step over the first
        minute's; and "in_turn": steps of the long call and of a fresh one after it, and the
        quotient of their medians.
    """
    return in_fresh_process(measure_here, subject, minutes, latency_ms, audio, progress)


def measure_here(
    subject: Subject, minutes: int, latency_ms: int, audio: tuple[Path, ...], progress: Progress
) -> dict[str, Any]:
    """The same in this process."""
    with subject.load(max_streams=2) as engine:
        return {
            **asdict(subject),
            "latency_ms": latency_ms,
            **asyncio.run(_call(engine, minutes, latency_ms, audio, progress)),
        }


class _Caller:
    """A call whose transcripts are read, and who flushes at the end of each turn."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reader = asyncio.create_task(self._read())
        self.words = 0

    async def say(self, samples: NDArray[np.float32]) -> None:
        """One turn."""
        self._stream.push(samples)
        await self._stream.drained(max_buffered_s=0.0)
        await self._stream.flush()

    async def hang_up(self) -> None:
        await self._stream.aclose()
        await self._reader

    async def _read(self) -> None:
        async for transcript in self._stream:
            self.words += len(transcript.words) if transcript.is_final else 0


async def _call(
    engine: Engine, minutes: int, latency_ms: int, audio: tuple[Path, ...], progress: Progress
) -> dict[str, Any]:
    steps_s: list[float] = []

    def note(report: StepReport) -> None:
        if report.latency_ms == latency_ms:
            steps_s.append(report.step_s)

    engine.observe(note)
    turns = _turns(audio)
    caller = _Caller(engine.open(latency_ms=latency_ms))
    rows: list[dict[str, Any]] = []
    for minute in range(1, minutes + 1):
        steps_s.clear()
        began = time.monotonic()
        for _ in range(round(60 / _TURN_S)):
            await caller.say(next(turns))
        spent_s = time.monotonic() - began
        gc.collect()
        rows.append(
            {
                "minute": minute,
                "step_ms": percentiles_ms(steps_s, 50, 90),
                "steps": len(steps_s),
                "seconds_spent": round(spent_s, 3),
                "resident_mb": round(resident_bytes() / 1e6, 2),
                "words": caller.words,
            }
        )
        progress(
            f"minute {minute:>3} of {minutes}: {rows[-1]['step_ms']['p50']:.2f} ms a step, "
            f"{rows[-1]['resident_mb']:.0f} MB, took {spent_s:.1f} s"
        )
    fresh = _Caller(engine.open(latency_ms=latency_ms))
    await fresh.say(next(turns))  # so that there is as much to attend to
    callers = {"long": caller, "fresh": fresh}
    taken_s: dict[str, list[float]] = {name: [] for name in callers}
    for _ in range(_COMPARED):
        turn = next(turns)
        for name, who in callers.items():
            steps_s.clear()
            await who.say(turn)
            taken_s[name] += steps_s
    for who in callers.values():
        await who.hang_up()
    quotient = median(taken_s["long"]) / median(taken_s["fresh"])
    progress(f"in turn with a fresh call, its steps take {quotient:.3f} times as long")
    first, last = rows[0], rows[-1]
    return {
        "growth": round(last["step_ms"]["p50"] / first["step_ms"]["p50"], 4),
        "in_turn": {
            **{name: percentiles_ms(taken, 50, 90) for name, taken in taken_s.items()},
            "quotient": round(quotient, 4),
        },
        "memory_growth_mb": round(last["resident_mb"] - first["resident_mb"], 2),
        "minutes": rows,
    }


def _turns(audio: tuple[Path, ...]) -> Iterator[NDArray[np.float32]]:
    """What is said in each turn: recordings in a loop."""
    samples = np.concatenate([recording.samples for recording in recordings(audio)])
    turn = np.arange(round(_TURN_S * RATE))
    for number in count():
        yield np.take(samples, number * turn.size + turn, mode="wrap")
