"""`livekit_agent.py --offline`: a real AgentSession, a recorded caller."""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from livekit.agents import Agent, AgentSession, inference
from livekit.agents.voice.events import (
    AgentStateChangedEvent,
    UserInputTranscribedEvent,
    UserStateChangedEvent,
)
from numpy.typing import NDArray
from offline_calls import chosen_calls
from offline_livekit import Earpiece, RecordedCaller, ScriptedLLM, SilentTTS
from rich.console import Console

from nemotron_voice.audio import read_samples
from nemotron_voice.cli import screen
from nemotron_voice.cli.demo import Call
from nemotron_voice.livekit import STT
from nemotron_voice.shared_engine import shared_engine

MODEL = "demo"
DEFAULT_CALLS = ("english-spanish",)
VOICES: dict[str, str | None] = {
    "en-US": "anna",
    "es-US": "carmen",
    "fr-FR": "claire",
    "it-IT": "giulia",
    "pt-BR": "luana",
}
HANG_UP_S = 1.5


class Display:
    """Prints what the session tells."""

    def __init__(self, console: Console, session: AgentSession[Any], voice: SilentTTS) -> None:
        self._console = console
        self._voice = voice
        self._stopped: float | None = None
        self.final_ms: list[float] = []
        session.on("user_input_transcribed", self._heard)
        session.on("user_state_changed", self._user)
        session.on("conversation_item_added", self._said)

    def _user(self, event: UserStateChangedEvent) -> None:
        if event.old_state == "speaking":
            self._stopped = time.monotonic()

    def _heard(self, event: UserInputTranscribedEvent) -> None:
        if not event.transcript or not event.is_final:
            return
        note = ""
        if self._stopped is not None:
            self.final_ms.append(1e3 * (time.monotonic() - self._stopped))
            note = f"[dim]  final {self.final_ms[-1]:.0f} ms after VAD end[/dim]"
            self._stopped = None
        self._line(str(event.language), f"[cyan]{event.transcript}[/cyan]{note}")

    def _said(self, event: Any) -> None:
        if getattr(event.item, "role", None) == "assistant":
            options = self._voice.options
            said = f"{event.item.text_content}  \\[{options['language']}, {options['voice']}]"
            self._line("bot", f"[green]{said}[/green]")

    def _line(self, who: str, what: str) -> None:
        self._console.print(f"[dim]{who:>16}[/dim] {what}", soft_wrap=True, highlight=False)


async def play(
    instructions: str,
    follow_language: Callable[[AgentSession[Any], dict[str, str | None]], None],
    options: argparse.Namespace,
) -> None:
    """Play the chosen calls to the agent, and show what it hears and says."""
    logging.getLogger("livekit").setLevel(logging.ERROR)
    console = screen.out()
    with screen.waiting("loading the bundled model"):
        await shared_engine(MODEL)
    waits: list[float] = []
    calls = chosen_calls(options, DEFAULT_CALLS)
    for number, call in enumerate(calls, 1):
        console.print(f"\n[bold]Call {number} of {len(calls)}: {call.title}[/bold]")
        ends = [turn.end for turn in call.turns[:-1]]
        caller = RecordedCaller(samples_of(call), ends)
        voice = SilentTTS(language="en", voice="anna")
        session: AgentSession[Any] = AgentSession(
            stt=STT(model=MODEL, latency_ms=160),
            llm=ScriptedLLM(),
            tts=voice,
            vad=inference.VAD(model="silero"),
        )
        display = Display(console, session, voice)
        follow_language(session, VOICES)

        def state_changed(event: AgentStateChangedEvent, caller: RecordedCaller = caller) -> None:
            if event.old_state == "speaking":
                caller.answered.set()

        session.on("agent_state_changed", state_changed)
        session.input.audio = caller
        session.output.audio = Earpiece()
        await session.start(Agent(instructions=instructions))
        await caller.ended.wait()
        await asyncio.sleep(HANG_UP_S)
        await session.aclose()
        waits += display.final_ms
    if waits:
        console.print(
            f"\n{len(waits)} turns, final {statistics.median(waits):.0f} ms after the VAD's end of "
            "speech (median). Bundled model and synthetic calls: a demonstration, not Nemotron's "
            "quality."
        )


def samples_of(call: Call) -> NDArray[np.float32]:
    """A call at 16 kHz, with two seconds of silence after it."""
    return np.concatenate([read_samples(call.audio), np.zeros(2 * 16_000, np.float32)])
