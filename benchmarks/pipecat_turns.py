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
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from loguru import logger
from numpy.typing import NDArray
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from benchmarks.clips import Clip
from nemotron_voice import Engine
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.pipecat import NemotronSTTService

RATE = 16_000
PACKET = RATE // 50
STOP_S = 0.2  # the detector's wait, Pipecat's default and the stt-benchmark's


@dataclass(slots=True)
class Turns:
    """What happened in a call, on the wall clock."""

    stops: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    finals: list[tuple[float, bool]] = field(default_factory=list)
    contexts: list[float] = field(default_factory=list)

    def waits(self) -> tuple[list[float], list[float], int]:
        """Seconds from each stop to its finalized transcript and to the context; unanswered."""
        to_final, to_context, unanswered = [], [], 0
        for stop in self.stops:
            end = min((start for start in self.starts if start > stop), default=float("inf"))
            final = [at for at, finalized in self.finals if finalized and stop <= at < end]
            context = [at for at in self.contexts if stop <= at < end]
            to_final += [final[0] - stop] if final else []
            to_context += [context[0] - stop] if context else []
            unanswered += not final
        return to_final, to_context, unanswered


class Watch(FrameProcessor):
    """Writes down when frames pass, whichever way."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.turns = turns

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note and pass on."""
        await super().process_frame(frame, direction)
        now = time.time()
        if isinstance(frame, TranscriptionFrame):
            self.turns.finals.append((now, frame.finalized))
        elif isinstance(frame, LLMContextFrame):
            self.turns.contexts.append(now)
        elif (
            isinstance(frame, VADUserStoppedSpeakingFrame) and direction is FrameDirection.UPSTREAM
        ):
            self.turns.stops.append(frame.timestamp)
        elif (
            isinstance(frame, VADUserStartedSpeakingFrame) and direction is FrameDirection.UPSTREAM
        ):
            self.turns.starts.append(frame.timestamp)
        await self.push_frame(frame, direction)


async def one_call(
    engine: Engine, samples: NDArray[np.float32], latency_ms: int, delay_s: float
) -> Turns:
    """A call in real time, begun `delay_s` late."""
    turns = Turns()
    user, assistant = LLMContextAggregatorPair(
        LLMContext(),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=STOP_S))
        ),
    )
    settings = NemotronSTTService.Settings(latency_ms=latency_ms)
    stt = NemotronSTTService(engine=engine, settings=settings)
    worker = PipelineWorker(
        Pipeline([stt, Watch(turns), user, Watch(turns), assistant]),
        params=PipelineParams(audio_in_sample_rate=RATE),
        cancel_on_idle_timeout=False,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    async def speak() -> None:
        await asyncio.sleep(delay_s)
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        pcm = np.concatenate([pcm, np.zeros(2 * RATE, "<i2")])
        began = time.monotonic()
        for at in range(0, pcm.size, PACKET):
            packet = pcm[at : at + PACKET].tobytes()
            await worker.queue_frame(InputAudioRawFrame(packet, RATE, 1))
            await asyncio.sleep(max(0.0, began + at / RATE - time.monotonic()))
        await worker.queue_frame(EndFrame())

    await asyncio.gather(runner.run(), speak())
    return turns


def summary(waits: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    shares = {"p50": 50, "p95": 95, "p99": 99}
    return {name: round(1e3 * float(np.percentile(waits, q)), 1) for name, q in shares.items()}


async def measure(
    engine: Engine, latency_ms: int, least_turns: int, at_once: int
) -> dict[str, Any]:
    """Figures of one latency mode."""
    audio = [Clip(call.audio, call.title, "en-US").samples() for call in bundled_calls()]
    to_final: list[float] = []
    to_context: list[float] = []
    stops = unanswered = played = 0
    while stops < least_turns:
        calls = [audio[(played + n) % len(audio)] for n in range(at_once)]
        played += at_once
        heard = await asyncio.gather(
            *(one_call(engine, call, latency_ms, 0.37 * n) for n, call in enumerate(calls))
        )
        for turns in heard:
            finals, contexts, missed = turns.waits()
            to_final += finals
            to_context += contexts
            stops += len(turns.stops)
            unanswered += missed
        typer.echo(f"{latency_ms} ms: {stops} of {least_turns} turns", err=True)
    return {
        "stops": stops,
        "calls_at_once": at_once,
        "without_finalized_transcript": unanswered,
        "stop_to_final_ms": summary(to_final),
        "ttfs_ms": summary([wait + STOP_S for wait in to_final]),
        "stop_to_context_ms": summary(to_context),
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
    for latency_ms, row in results.items():
        cells = [
            " / ".join(f"{row[name][share]:.0f}" for share in ("p50", "p95", "p99")) + " ms"
            for name in ("stop_to_final_ms", "ttfs_ms", "stop_to_context_ms")
        ]
        lines.append(
            f"| {latency_ms} ms | {row['stops']} | {row['calls_at_once']} "
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
    with Engine.load("demo", threads=1) as engine:
        for mode in latency_ms or [80, 160, 320]:
            figures[str(mode)] = asyncio.run(measure(engine, mode, turns, calls_at_once))
            results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(figures))


if __name__ == "__main__":
    typer.run(main)
