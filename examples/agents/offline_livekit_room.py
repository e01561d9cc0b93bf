"""`livekit_room_transcriber.py --offline`: real AgentSessions, recorded participants."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from offline_livekit import RecordedCaller
from offline_livekit_call import MODEL, samples_of
from rich.console import Console

from nemotron_voice.cli import screen
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.livekit import STT
from nemotron_voice.shared_engine import shared_engine

HANG_UP_S = 1.5
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")


async def play(participant: Any, transcriber: Any) -> None:
    """Every bundled call is a participant, and all talk at once."""
    logging.getLogger("livekit").setLevel(logging.ERROR)
    console = screen.out()
    with screen.waiting("loading the bundled model"):
        await shared_engine(MODEL)
    ears = STT(model=MODEL, latency_ms=320)
    calls = bundled_calls()
    console.print(f"{len(calls)} participants talk at once, one process and one engine\n")
    heard = [0] * len(calls)

    async def one(number: int) -> None:
        call = calls[number]

        async def publish(line: Any) -> None:
            if line.is_final:
                heard[number] += 1
                _print(console, number, line)

        member = participant(call.audio.stem, publish, ears)
        caller = RecordedCaller(samples_of(call))
        member.session.input.audio = caller
        await member.session.start(transcriber())
        await caller.ended.wait()
        await asyncio.sleep(HANG_UP_S)
        await member.aclose()

    await asyncio.gather(*(one(number) for number in range(len(calls))))
    console.print(f"\n{sum(heard)} finals of {len(calls)} participants")


def _print(console: Console, number: int, line: Any) -> None:
    colour = COLOURS[number % len(COLOURS)]
    console.print(
        f"[{colour}]{line.speaker:>16}[/{colour}] [dim]{line.language}[/dim] {line.text}",
        soft_wrap=True,
        highlight=False,
    )
