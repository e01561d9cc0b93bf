"""A long call with everything that happens to calls: is anything left over?

    python -m benchmarks.pipecat_long_call --minutes 30

The bundled calls again and again, faster than they were spoken, through a real pipeline (Silero,
this STT, switcher, user aggregator with Smart Turn), with pauses, mutes, interruptions, changes of
language, latency and sample rate, and a call that is cancelled half way. Before it a call of three
minutes, so that what is only loaded once doesn't count. Writes docs/results/pipecat_long_call.json.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from loguru import logger
from numpy.typing import NDArray
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
)
from pipecat.workers.runner import WorkerRunner

from benchmarks.pipecat_bot import PACKET, RATE, make_bot
from benchmarks.soak import resident_mb
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.pipecat import NemotronSTTService

SPEED = 12.0  # times the speed of speech, at most
EVENT_EVERY_S = 7.0


def events(service: NemotronSTTService) -> list[list[Frame]]:
    """What happens to a call, in turn."""
    settings = service.Settings
    return [
        [STTMuteFrame(mute=True)],
        [STTMuteFrame(mute=False)],
        [InterruptionFrame()],
        [STTUpdateSettingsFrame(delta=settings(language="es-ES", latency_ms=80))],
        [STTUpdateSettingsFrame(delta=settings(language="auto", latency_ms=560))],
        [STTMuteFrame(mute=True), STTMuteFrame(mute=False)],
        [STTUpdateSettingsFrame(delta=settings(latency_ms=160))],
    ]


def spoken() -> NDArray[np.float32]:
    """The bundled calls, with a pause after each."""
    pieces = []
    for each in bundled_calls():
        samples = read_samples(each.audio)
        pieces += [samples, np.zeros(3 * RATE, np.float32)]
    return np.concatenate(pieces)


async def one_call(engine: Engine, minutes: float, *, cancel: bool = False) -> dict[str, Any]:
    """A call; what happened in it."""
    service = NemotronSTTService(
        engine=engine, settings=NemotronSTTService.Settings(latency_ms=160)
    )
    worker, log = make_bot(service)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    pcm = (np.clip(spoken(), -1, 1) * 32767).astype("<i2")
    narrow = pcm[::2]  # as 8 kHz: aliased, but a call's line is no better
    happened = events(service)
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    resident: list[float] = []

    async def speak() -> None:
        began = time.monotonic()
        for number in range(int(minutes * 60 * RATE / PACKET)):
            at = number * PACKET % (pcm.size - PACKET)
            seconds = number * PACKET / RATE
            if number % (60 * RATE // PACKET) == 0:
                gc.collect()
                resident.append(round(resident_mb(), 1))
            telephone = int(seconds / 60) % 4 == 3  # every fourth minute comes at 8 kHz
            packet = narrow[at // 2 : (at + PACKET) // 2] if telephone else pcm[at : at + PACKET]
            rate = RATE // 2 if telephone else RATE
            await worker.queue_frame(InputAudioRawFrame(packet.tobytes(), rate, 1))
            if number and number % int(EVENT_EVERY_S * RATE / PACKET) == 0:
                for frame in happened[int(rng.integers(len(happened)))]:
                    counts[type(frame).__name__] += 1
                    await worker.queue_frame(frame)
            ahead = seconds / SPEED - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, ahead))
            await service._call.drained()
        if cancel:
            await worker.cancel()
        else:
            await worker.queue_frame(EndFrame())

    await asyncio.gather(runner.run(), speak())
    return {
        "finals": len(log.finals),
        "words": len(log.text.split()),
        "stops": len(log.stops),
        "contexts": len(log.contexts),
        "events": dict(counts),
        "resident_mb_each_minute": resident,
    }


async def left(engine: Engine) -> dict[str, Any]:
    """What is there when no call is."""
    await asyncio.sleep(0.5)
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()) - 1,
        "streams": engine.stats().streams,
        "services": sum(isinstance(item, NemotronSTTService) for item in gc.get_objects()),
        "resident_mb": round(resident_mb(), 1),
    }


async def measure(engine: Engine, minutes: float) -> dict[str, Any]:
    """Short call, long call, cancelled call."""
    await one_call(engine, min(3.0, minutes))
    before = await left(engine)
    happened = await one_call(engine, minutes)
    after = await left(engine)
    await one_call(engine, min(1.0, minutes), cancel=True)
    cancelled = await left(engine)
    return {
        "minutes": minutes,
        "happened": happened,
        "before": before,
        "after": after,
        "after_a_cancelled_call": cancelled,
        "memory_mb": round(after["resident_mb"] - before["resident_mb"], 1),
        "memory_in_the_call_mb": _growth(happened["resident_mb_each_minute"]),
    }


def _growth(each_minute: list[float]) -> float:
    """From the second minute to the last; the call's log, which grows, is in it."""
    return round(each_minute[-1] - each_minute[min(1, len(each_minute) - 1)], 1)


def summary(figures: dict[str, Any]) -> str:
    """In a few sentences."""
    happened, before, after = figures["happened"], figures["before"], figures["after"]
    cancelled = figures["after_a_cancelled_call"]
    more = cancelled["resident_mb"] - before["resident_mb"]
    return (
        f"{figures['minutes']:g} minutes of audio, {happened['stops']} stops, "
        f"{happened['finals']} finals, {sum(happened['events'].values())} mutes, interruptions and "
        f"changes of settings: {after['tasks']} tasks, {after['streams']} streams and "
        f"{after['services']} services are left. Memory from the second minute to the last: "
        f"{figures['memory_in_the_call_mb']:+.1f} MB, the benchmark's own log in it; after the "
        f"call {figures['memory_mb']:+.1f} MB, after another, cancelled one {more:+.1f} MB. What "
        "the allocator keeps varies by some 20 MB."
    )


def main(
    minutes: Annotated[float, typer.Option(help="Of the long call")] = 30.0,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/pipecat_long_call.json"
    ),
) -> None:
    """Measure and print."""
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    with Engine.load("demo", threads=1) as engine:
        figures = asyncio.run(measure(engine, minutes))
    results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(figures, indent=1))


if __name__ == "__main__":
    typer.run(main)
