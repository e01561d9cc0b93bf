"""An AgentSession without a server: a recorded caller, an LLM of set phrases, a silent TTS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soxr
from livekit import rtc
from livekit.agents import Agent, AgentSession, UserInputTranscribedEvent, inference, llm, tts, vad
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.agents.voice import io
from numpy.typing import NDArray

ROOM_RATE = 24_000  # what a room gives
FRAME_S = 0.05
SAMPLE_RATE = 16_000


class Caller(io.AudioInput):
    """Plays samples at the speed of speech, then silence."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        super().__init__(label="recorded caller")
        self._pcm = (np.clip(soxr.resample(samples, SAMPLE_RATE, ROOM_RATE), -1, 1) * 32767).astype(
            "<i2"
        )
        self._at = 0
        self._began: float | None = None
        self.ended = asyncio.Event()

    def wall_clock(self, seconds: float) -> float:
        """`time.time()` at which this moment of the recording is spoken."""
        assert self._began is not None
        return self._began + seconds

    async def __anext__(self) -> rtc.AudioFrame:
        size = int(FRAME_S * ROOM_RATE)
        if self._began is None:
            self._began = time.time()
        due = self._began + (self._at + size) / ROOM_RATE
        await asyncio.sleep(max(0.0, due - time.time()))
        piece = self._pcm[self._at : self._at + size]
        if piece.size < size:
            piece = np.concatenate([piece, np.zeros(size - piece.size, "<i2")])
            self.ended.set()
        self._at += size
        return rtc.AudioFrame(piece.tobytes(), ROOM_RATE, 1, size)


class Earpiece(io.AudioOutput):
    """Takes what the agent says and has played it at once."""

    def __init__(self) -> None:
        super().__init__(label="earpiece", capabilities=io.AudioOutputCapabilities(pause=False))
        self._seconds = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Count it."""
        await super().capture_frame(frame)
        self._seconds += frame.duration

    def flush(self) -> None:
        """The segment has been played."""
        super().flush()
        if self._seconds:
            self.on_playback_finished(playback_position=self._seconds, interrupted=False)
        self._seconds = 0.0

    def clear_buffer(self) -> None:
        """The agent was interrupted."""
        if self._seconds:
            self.on_playback_finished(playback_position=self._seconds, interrupted=True)
        self._seconds = 0.0


class PhraseLLM(llm.LLM):
    """Answers everything with two words, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[llm.ChatContext] = []

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: Any = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        """Answer."""
        self.asked.append(chat_ctx.copy())
        return _Phrase(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Phrase(llm.LLMStream):
    async def _run(self) -> None:
        delta = llm.ChoiceDelta(role="assistant", content="Very good.")
        self._event_ch.send_nowait(llm.ChatChunk(id="phrase", delta=delta))


class SilentTTS(tts.TTS):
    """Half a second of silence for everything; its options are those of many a TTS."""

    def __init__(self) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False),
            sample_rate=ROOM_RATE,
            num_channels=1,
        )
        self.options: dict[str, Any] = {"language": "en", "voice": "anna"}
        self.spoken: list[tuple[str, dict[str, Any]]] = []

    def update_options(self, **options: Any) -> None:
        """Of what comes next."""
        self.options = self.options | options

    def synthesize(
        self, text: str, *, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        """Silence."""
        self.spoken.append((text, self.options))
        return _Silence(tts=self, input_text=text, conn_options=conn_options)


class _Silence(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id="silence", sample_rate=ROOM_RATE, num_channels=1, mime_type="audio/pcm"
        )
        output_emitter.push(bytes(2 * ROOM_RATE // 2))
        output_emitter.flush()


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
    caller: Caller, *, instructions: str = "Be brief.", **options: Any
) -> AsyncIterator[tuple[AgentSession[Any], SessionLog]]:
    """A running session with this caller; `options` are AgentSession's."""
    session: AgentSession[Any] = AgentSession(
        **{"llm": PhraseLLM(), "tts": SilentTTS(), "vad": detector()} | options
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
    session.output.audio = Earpiece()
    await session.start(Agent(instructions=instructions))
    try:
        yield session, log
    finally:
        await session.aclose()
