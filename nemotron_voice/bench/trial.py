"""One trial of so many callers, and what it proves: that they hold, that they don't, or nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nemotron_voice.bench.callers import Load, packets_in, place_callers, speak, words_heard
from nemotron_voice.bench.fresh_process import resident_bytes
from nemotron_voice.bench.percentiles import percentiles_ms
from nemotron_voice.bench.speech import RATE, recordings
from nemotron_voice.bench.subject import Subject
from nemotron_voice.engine import Engine
from nemotron_voice.engine.engine import StepReport
from nemotron_voice.engine.fork import SHORT_SAMPLES
from nemotron_voice.engine.stream import Stream
from nemotron_voice.errors import NemotronVoiceError
from nemotron_voice.model.features import FRAME_SAMPLES

C120_S: Final = 120.0
_DRAIN_S: Final = 30.0  # after the last packet; an engine that keeps up needs one chunk
_WARM_S: Final = 6.0  # of speech before the clock runs: the left context, and a flush
_EXCUSED: Final = 0.001  # share of chunks, or of packets, that may be late
_PACKET_LATE_S: Final = 0.05  # a packet pushed later than that after it was due
_OVERRUN: Final = 0.01  # share by which a trial may last longer than it should


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOptions:
    """How callers behave."""

    latency_ms: int = 320
    duration_s: float = C120_S  # anything shorter may hold what 120 s don't
    stagger_s: float = 10.0  # over which the callers begin
    max_batch: int | None = None  # streams in one step; None: the engine's default
    audio: tuple[Path, ...] = ()  # what they say; the bundled calls


def run_trial(subject: Subject, options: TrialOptions, callers: int) -> dict[str, Any]:
    """Load an engine, let so many callers speak, and say what was seen.

    A stream that the engine fails ends the trial: it then has "error".
    """
    with subject.load(max_streams=callers, max_batch=options.max_batch) as engine:
        try:
            return asyncio.run(try_callers(engine, options, callers))
        except NemotronVoiceError as error:
            return {"callers": callers, "error": f"{type(error).__name__}: {error}"}


async def try_callers(engine: Engine, options: TrialOptions, callers: int) -> dict[str, Any]:
    """The trial on an engine that is loaded, with `callers` free slots."""
    sounds = recordings(options.audio)
    await _warm(engine, options, sounds[0].samples)
    steps: list[tuple[float, StepReport]] = []
    engine.observe(lambda report: steps.append((time.monotonic(), report)))
    chunk = FRAME_SAMPLES * (engine.resolve_latency(options.latency_ms) + 1)
    streams = [engine.open(latency_ms=options.latency_ms) for _ in range(callers)]
    readers = [asyncio.create_task(words_heard(stream)) for stream in streams]
    placed = place_callers(streams, sounds, lambda samples: (samples + SHORT_SAMPLES) // chunk)
    used_s = time.process_time()
    load = await speak(placed, duration_s=options.duration_s, stagger_s=options.stagger_s)
    used_s = time.process_time() - used_s
    drain_s = await _drain(streams)
    resident = resident_bytes()
    seen = list(steps)
    for stream in streams:
        await stream.aclose()
    words = sum(await asyncio.gather(*readers))
    stats = engine.stats()
    return {
        "callers": callers,
        "latency_ms": options.latency_ms,
        "duration_s": options.duration_s,
        "final_ms": percentiles_ms(load.finals_s, 50, 95, 99),
        "finals": len(load.finals_s),
        "chunks": _chunks(load, seen, chunk / RATE),
        "drain_s": drain_s,
        "steps": len(seen),
        "streams_a_step": round(float(np.mean([len(r.waits_s) for _, r in seen] or [0])), 1),
        "step_ms": percentiles_ms([report.step_s for _, report in seen], 50, 95),
        "words_per_caller_s": round(words / max(load.samples / RATE, 1e-9), 2),
        "process_cores": round(used_s / load.lasted_s, 2),
        "resident_mb": round(resident / 1e6),
        "state_mb_per_stream": round(stats.state_bytes / stats.max_streams / 1e6, 3),
        "load": _load(load, options, callers),
    }


def verdict(trial: dict[str, Any], final_limit_ms: float) -> tuple[str, str]:
    """What a trial proves: ("holds" | "fails" | "refused", why).

    Refused means that the harness itself didn't do what it claims, so that nothing is proved.

    Args:
        trial: of `run_trial`.
        final_limit_ms: bound on the 95th percentile from flush to final.
    """
    if "error" in trial:
        return "fails", trial["error"]
    if doubts := _doubts(trial):
        return "refused", "; ".join(doubts)
    chunks, p95 = trial["chunks"], trial["final_ms"]["p95"]
    faults = []
    if trial["load"]["refused_packets"]:
        faults.append(f"{trial['load']['refused_packets']} packets refused: 30 s behind")
    if trial["drain_s"] is None:
        faults.append(f"not all audio decoded {_DRAIN_S:g} s after the last packet")
    if chunks["late"] > _EXCUSED * chunks["pushed"]:
        faults.append(f"{chunks['late']} of {chunks['pushed']} chunks waited longer than a chunk")
    if p95 > final_limit_ms:
        faults.append(f"p95 final {p95:.0f} ms, bound {final_limit_ms:g} ms")
    return ("fails", "; ".join(faults)) if faults else ("holds", "")


def _doubts(trial: dict[str, Any]) -> list[str]:
    """Why a trial proves nothing."""
    load, chunks = trial["load"], trial["chunks"]
    doubts = []
    if load["late_packets"] > _EXCUSED * load["packets"]:
        doubts.append(
            f"the load generator could not keep up: {load['late_packets']} of {load['packets']} "
            f"packets were pushed more than {1000 * _PACKET_LATE_S:.0f} ms late"
        )
    if load["lasted_s"] > trial["duration_s"] * (1 + _OVERRUN) + 2 * _PACKET_LATE_S:
        doubts.append(f"it lasted {load['lasted_s']} s instead of {trial['duration_s']:g}")
    if load["packets"] != load["expected_packets"]:
        doubts.append(f"{load['packets']} packets instead of {load['expected_packets']}")
    if trial["drain_s"] is not None and chunks["decoded"] != chunks["pushed"]:
        doubts.append(f"{chunks['pushed']} chunks pushed but {chunks['decoded']} decoded")
    if not trial["finals"]:
        doubts.append("nobody paused, so no final was timed: take a longer trial or other audio")
    return doubts


def _chunks(
    load: Load, steps: Sequence[tuple[float, StepReport]], chunk_s: float
) -> dict[str, Any]:
    """Chunks pushed and decoded, and how long they waited for their step.

    A report's waits begin when a stream offers a chunk, which is after the chunk before it; so in a
    backlog they are short. Therefore the n-th chunk to be begun is set against the n-th chunk to be
    complete as well, over all callers, and the larger count of late ones is taken.
    """
    reported: list[float] = []
    begun: list[float] = []
    for ended, report in steps:
        for wait_s, late_s in zip(report.waits_s, report.late_s, strict=True):
            # The deadline of a chunk is one chunk after it is complete; a flush's is at once.
            if report.step_s + wait_s - late_s > chunk_s / 2:
                reported.append(wait_s)
                begun.append(ended - report.step_s)
    pushed = sorted(load.chunks_at)
    in_order = [begin - due for due, begin in zip(pushed, sorted(begun), strict=False)]
    never = max(0, len(pushed) - len(begun))
    late = max(sum(wait_s > chunk_s for wait_s in waits_s) for waits_s in (reported, in_order))
    return {
        "pushed": len(pushed),
        "decoded": len(begun),
        "late": late + never,
        "wait_ms": percentiles_ms(in_order, 50, 95, 99, 100),
    }


def _load(load: Load, options: TrialOptions, callers: int) -> dict[str, Any]:
    """What the load generator did."""
    offsets = [options.stagger_s * number / callers for number in range(callers)]
    return {
        "packets": load.packets,
        "expected_packets": sum(packets_in(options.duration_s - offset) for offset in offsets),
        "refused_packets": load.failed_pushes,
        "late_packets": sum(late_s > _PACKET_LATE_S for late_s in load.lateness_s),
        "lateness_ms": percentiles_ms(load.lateness_s, 50, 99, 100),
        "lasted_s": round(load.lasted_s, 2),
        "cores": round(load.loop_s / load.lasted_s, 3),
    }


async def _warm(engine: Engine, options: TrialOptions, samples: np.ndarray[Any, Any]) -> None:
    stream = engine.open(latency_ms=options.latency_ms)
    stream.push(samples[: int(_WARM_S * RATE)])
    await stream.drained()
    await stream.finish()


async def _drain(streams: Sequence[Stream]) -> float | None:
    """Seconds until everything pushed is decoded; None if it takes too long."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(_DRAIN_S):
            for stream in streams:
                await stream.drained(max_buffered_s=0.0)
    except TimeoutError:
        return None
    return round(time.monotonic() - began, 3)
