"""Stand-ins for an agent's surroundings: a recorded caller, a scripted LLM, a TTS without sound.

All are what LiveKit has in their places (an AudioInput, an AudioOutput, an LLM, a TTS), so what is
between them runs as in a real call: the session, Silero, the turn detector, interruptions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import llm, tts
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.agents.voice import io
from numpy.typing import NDArray
from offline_phrases import LETTERS_PER_S, REPLIES

ROOM_RATE = 24_000  # what a room gives
FRAME_S = 0.05
SAMPLE_RATE = 16_000
AFTER_TURN_S = 0.3  # of the recording after the caller's last word; then they wait for the answer
PATIENCE_S = 8.0  # how long


class RecordedCaller(io.AudioInput):
    """Plays samples at the speed of speech, then silence.

    Args:
        samples: mono, 16 kHz.
        turn_ends: seconds at which the caller waits until `answered` is set; none: never.
    """

    def __init__(self, samples: NDArray[np.float32], turn_ends: Sequence[float] = ()) -> None:
        super().__init__(label="recorded caller")
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        frame = rtc.AudioFrame(pcm.tobytes(), SAMPLE_RATE, 1, pcm.size)
        resampler = rtc.AudioResampler(SAMPLE_RATE, ROOM_RATE)
        room = [np.frombuffer(f.data, "<i2") for f in (*resampler.push(frame), *resampler.flush())]
        self._pcm = np.concatenate(room)
        self._pauses = [round((end + AFTER_TURN_S) * ROOM_RATE) for end in turn_ends]
        self._at = 0
        self._given = 0
        self._patience = 0.0
        self._began: float | None = None
        self.turn = 0
        self.answered = asyncio.Event()
        self.ended = asyncio.Event()

    async def __anext__(self) -> rtc.AudioFrame:
        size = int(FRAME_S * ROOM_RATE)
        if self._began is None:
            self._began = time.monotonic()
        self._given += size
        due = self._began + self._given / ROOM_RATE  # a frame is there once it has been spoken
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        piece = np.zeros(size, "<i2") if self._waits() else self._pcm[self._at : self._at + size]
        if self._patience == 0.0:
            self._at += size
        if piece.size < size:
            piece = np.concatenate([piece, np.zeros(size - piece.size, "<i2")])
            self.ended.set()
        return rtc.AudioFrame(piece.tobytes(), ROOM_RATE, 1, size)

    def _waits(self) -> bool:
        if not self._pauses or self._at < self._pauses[0]:
            return False
        if self._patience == 0.0:
            self.answered.clear()
        self._patience += FRAME_S
        if not self.answered.is_set() and self._patience < PATIENCE_S:
            return True
        self._patience = 0.0
        self._pauses.pop(0)
        self.turn += 1
        return False


class Earpiece(io.AudioOutput):
    """Takes as long to play audio as it lasts; plays nothing."""

    def __init__(self, *, at_once: bool = False) -> None:
        super().__init__(label="earpiece", capabilities=io.AudioOutputCapabilities(pause=False))
        self._at_once = at_once
        self._seconds = 0.0
        self._began = 0.0
        self._playing: asyncio.Task[None] | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Take a frame."""
        await super().capture_frame(frame)
        if not self._seconds:
            self._began = time.monotonic()
        self._seconds += frame.duration

    def flush(self) -> None:
        """That was the whole sentence."""
        super().flush()
        if self._seconds:
            self._playing = asyncio.create_task(self._play())

    async def _play(self) -> None:
        if not self._at_once:
            await asyncio.sleep(max(0.0, self._began + self._seconds - time.monotonic()))
        self._finish(interrupted=False)

    def clear_buffer(self) -> None:
        """The caller interrupts."""
        if self._playing is not None:
            self._playing.cancel()
        self._finish(interrupted=True)

    def _finish(self, *, interrupted: bool) -> None:
        if not self._seconds:
            return
        played = (
            min(self._seconds, time.monotonic() - self._began) if interrupted else self._seconds
        )
        self._seconds = 0.0
        self.on_playback_finished(playback_position=played, interrupted=interrupted)


class ScriptedLLM(llm.LLM[Any]):
    """Answers with the next phrase in the language that its instructions name, else in English."""

    def __init__(self) -> None:
        super().__init__()
        self._answers = count()
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
        phrase = self.answer(chat_ctx)
        return _Phrase(
            self, phrase, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options
        )

    def answer(self, context: llm.ChatContext) -> str:
        """The phrase."""
        told = " ".join(m.text_content or "" for m in context.messages() if m.role == "system")
        language = next((name for name in REPLIES if f"speaks {name}" in told), "English")
        phrases = REPLIES[language]
        return phrases[next(self._answers) % len(phrases)]


class _Phrase(llm.LLMStream):
    def __init__(self, owner: ScriptedLLM, phrase: str, **options: Any) -> None:
        super().__init__(owner, **options)
        self._phrase = phrase

    async def _run(self) -> None:
        delta = llm.ChoiceDelta(role="assistant", content=self._phrase)
        self._event_ch.send_nowait(llm.ChatChunk(id="phrase", delta=delta))


class SilentTTS(tts.TTS[Any]):
    """Silence as long as the text would take; its options are those of many a TTS."""

    def __init__(self, **options: Any) -> None:
        """`options`: those to begin with."""
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False),
            sample_rate=ROOM_RATE,
            num_channels=1,
        )
        self.options = options
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
        output_emitter.push(bytes(2 * round(len(self._input_text) / LETTERS_PER_S * ROOM_RATE)))
        output_emitter.flush()
