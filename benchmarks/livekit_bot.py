"""An AgentSession without a server: the example's recorded caller, scripted LLM and silent TTS."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livekit.agents import Agent, AgentSession, UserInputTranscribedEvent, inference, vad

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "agents"))

from offline_livekit import Earpiece, RecordedCaller, ScriptedLLM, SilentTTS

__all__ = ["RecordedCaller", "ScriptedLLM", "SessionLog", "SilentTTS", "detector", "talking"]


def detector() -> vad.VAD:
    """Silero: bundled with livekit-agents 1.8, its own plugin before."""
    if hasattr(inference, "VAD"):
        return inference.VAD(model="silero")
    from livekit.plugins import silero  # noqa: PLC0415 - only there

    return silero.VAD.load()


@dataclass(slots=True)
class SessionLog:
    """What a session told, with the wall clock."""

    transcripts: list[tuple[float, UserInputTranscribedEvent]] = field(default_factory=list)
    committed: list[tuple[float, str]] = field(default_factory=list)
    vad_ends: list[float] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)

    @property
    def finals(self) -> list[tuple[float, UserInputTranscribedEvent]]:
        """With text."""
        return [(at, e) for at, e in self.transcripts if e.is_final and e.transcript]


@asynccontextmanager
async def talking(
    caller: RecordedCaller, *, instructions: str = "Be brief.", **options: Any
) -> AsyncIterator[tuple[AgentSession[Any], SessionLog]]:
    """A running session with this caller; `options` are AgentSession's."""
    session: AgentSession[Any] = AgentSession(
        **{"llm": ScriptedLLM(), "tts": SilentTTS(voice="anna"), "vad": detector()} | options
    )
    log = SessionLog()
    session.on("user_input_transcribed", lambda e: log.transcripts.append((time.time(), e)))
    session.on("error", log.errors.append)

    def item_added(event: Any) -> None:
        if getattr(event.item, "role", None) == "user":
            log.committed.append((time.time(), event.item.text_content or ""))

    def state_changed(event: Any) -> None:
        if event.old_state == "speaking" and event.new_state != "speaking":
            log.vad_ends.append(time.time())

    session.on("conversation_item_added", item_added)
    session.on("user_state_changed", state_changed)
    session.input.audio = caller
    session.output.audio = Earpiece(at_once=True)
    await session.start(Agent(instructions=instructions))
    try:
        yield session, log
    finally:
        await session.aclose()
