"""From process start to ready, what the first caller pays besides, and memory.

Ready is when `Engine.load` has returned: a server then says so to its load balancer, and the next
call may come. What the first step and the first flush take beyond later ones is the first caller's
penalty.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

import numpy as np

from nemotron_voice.bench.fresh_process import MeasurementError, Progress, resident_bytes
from nemotron_voice.bench.percentiles import spread
from nemotron_voice.bench.speech import RATE, recordings

FIRST_LIMIT_MS: Final = 10.0  # of this project, for the first caller's penalty
_TURNS: Final = 12  # of one second and a flush, by one stream
_STREAMS: Final = 8  # opened afterwards, to see what each takes
_CHILD: Final = (
    "import time; began = time.time(); from nemotron_voice.bench.startup import child; child(began)"
)


def measure(
    subject: dict[str, Any], *, latency_ms: int, repetitions: int, progress: Progress
) -> dict[str, Any]:
    """Start several processes, one after the other.

    Args:
        subject: fields of a Subject; its model is resolved (and "random" written) beforehand.
        latency_ms: mode of the first caller.
        repetitions: processes.
        progress: told of each.

    Returns:
        Median, least and most of each figure, and all runs.
    """
    runs = []
    for _ in range(repetitions):
        run = _start(subject, latency_ms)
        runs.append(run)
        progress(
            f"ready after {run['ready_s']:.2f} s; first step {run['first_step_ms']:.1f} ms, then "
            f"{run['step_ms']:.1f}; first flush {run['first_flush_ms']:.1f}, then "
            f"{run['flush_ms']:.1f}; {run['loaded_mb']:.0f} MB"
        )
    figures = {name: spread([run[name] for run in runs], digits=2) for name in runs[0]}
    return {**subject, "latency_ms": latency_ms, **figures, "runs": runs}


def _start(subject: dict[str, Any], latency_ms: int) -> dict[str, float]:
    began = time.time()
    child_process = subprocess.run(  # noqa: S603 - this interpreter, with our own code
        [sys.executable, "-c", _CHILD],
        input=json.dumps({"subject": subject, "latency_ms": latency_ms, "began": began}),
        capture_output=True,
        text=True,
        check=False,
    )
    if child_process.returncode:
        raise MeasurementError(
            f"the measured process ended with {child_process.returncode}: "
            f"{child_process.stderr.strip()[-2000:]}"
        )
    figures: dict[str, float] = json.loads(child_process.stdout.splitlines()[-1])
    return figures


def child(interpreter_up: float) -> None:
    """What runs in the fresh process: reads its orders from stdin, writes figures to stdout."""
    from nemotron_voice.bench.subject import Subject  # noqa: PLC0415 - its time is measured

    imported = time.time()
    orders = json.load(sys.stdin)
    subject = Subject(**orders["subject"])
    with subject.load(max_streams=_STREAMS + 1) as engine:
        ready = time.time()
        loaded = resident_bytes()
        figures = asyncio.run(_first_caller(engine, orders["latency_ms"]))
        before = resident_bytes()
        asyncio.run(_more_callers(engine, orders["latency_ms"]))
        stats = engine.stats()
        figures |= {
            "interpreter_s": interpreter_up - orders["began"],
            "import_s": imported - interpreter_up,
            "load_s": ready - imported,
            "ready_s": ready - orders["began"],
            "loaded_mb": loaded / 1e6,
            "stream_mb": (resident_bytes() - before) / 1e6 / _STREAMS,
            "state_mb": stats.state_bytes / stats.max_streams / 1e6,
        }
    sys.stdout.write(json.dumps({name: round(value, 3) for name, value in figures.items()}) + "\n")


async def _first_caller(engine: Any, latency_ms: int) -> dict[str, float]:
    """Time each step and each flush of one stream, the first of its process."""
    steps_s: list[float] = []
    engine.observe(lambda report: steps_s.append(report.step_s))
    samples = recordings()[0].samples[2 * RATE :]
    stream = engine.open(latency_ms=latency_ms)
    turn = max(RATE, 2 * RATE * latency_ms // 1000)
    steps_in_turns: list[Sequence[float]] = []
    flushes_s = []
    for number in range(_TURNS):
        steps_s.clear()
        stream.push(np.take(samples, np.arange(number * turn, (number + 1) * turn), mode="wrap"))
        await stream.drained(max_buffered_s=0.0)
        steps_in_turns.append(tuple(steps_s))
        stream.push(np.zeros(RATE // 2, np.float32))  # the caller pauses, as before any flush
        await stream.drained(max_buffered_s=0.0)
        began = time.perf_counter()
        await stream.flush()
        flushes_s.append(time.perf_counter() - began)
    await stream.aclose()
    first = steps_in_turns[0][0]
    steady = median(step_s for turn_s in steps_in_turns[2:] for step_s in turn_s)
    flush = median(flushes_s[2:])
    return {
        "first_step_ms": 1e3 * first,
        "step_ms": 1e3 * steady,
        "first_step_penalty_ms": 1e3 * (first - steady),
        "first_flush_ms": 1e3 * flushes_s[0],
        "flush_ms": 1e3 * flush,
        "first_flush_penalty_ms": 1e3 * (flushes_s[0] - flush),
    }


async def _more_callers(engine: Any, latency_ms: int) -> None:
    """Fill the states of some more streams."""
    samples = recordings()[0].samples[: 6 * RATE]
    streams = [engine.open(latency_ms=latency_ms) for _ in range(_STREAMS)]
    for stream in streams:
        stream.push(samples)
    for stream in streams:
        await stream.drained(max_buffered_s=0.0)
        await stream.aclose()
