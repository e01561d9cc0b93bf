"""A Recognizer whose transcripts a test writes: what adapters do, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from nemotron_voice.config import StreamOptions
from nemotron_voice.errors import StreamClosedError
from nemotron_voice.transcript import Transcript, Word


def transcript(
    text: str,
    *,
    final: bool = False,
    language: str | None = "en-US",
    start: float = 0.0,
    end: float | None = None,
    flush_id: int | None = None,
    complete: bool = True,
) -> Transcript:
    """Words spread evenly from `start` on, 0.2 s each."""
    said = text.split()
    words = tuple(
        Word(word, start + 0.2 * place, start + 0.2 * (place + 1), 0.9, language)
        for place, word in enumerate(said)
    )
    return Transcript(
        text=text,
        is_final=final,
        language=language,
        language_source="tag",
        languages=(),
        words=words,
        start=start,
        end=end if end is not None else start + 0.2 * len(said),
        confidence=0.9 if said else None,
        flush_id=flush_id,
        revision=0,
        complete=complete,
    )


async def _told(answer: Transcript) -> Transcript:
    return answer


class ScriptedStream:
    """Answers flushes with `answers` in turn (then with nothing); `say` adds anything else."""

    def __init__(self, options: StreamOptions, answers: list[Transcript | str]) -> None:
        self.options = options
        self.answers = answers
        self.pushed = b""
        self.updates: list[dict[str, Any]] = []
        self.flushes = 0
        self.closed = False
        self.finished = False
        self.push_error: Exception | None = None
        self.deaf = False  # flushes aren't answered
        self.late = False  # the answers to flushes are left to `say`
        self._events: asyncio.Queue[Transcript | Exception | None] = asyncio.Queue()

    @property
    def pushed_s(self) -> float:
        return len(self.pushed) / 2 / self.options.sample_rate

    def push(self, pcm: bytes) -> None:
        if self.closed:
            raise StreamClosedError("closed")
        if self.push_error is not None:
            raise self.push_error
        self.pushed += bytes(pcm)

    def say(self, what: Transcript | Exception) -> None:
        self._events.put_nowait(what)

    def update(self, **settings: Any) -> None:
        StreamOptions(**settings)
        self.updates.append(settings)

    def flush(self, *, deadline_s: float = 2.0) -> Coroutine[Any, Any, Transcript]:
        if self.deaf:
            raise StreamClosedError("the stream has failed")
        answer = self.answers.pop(0) if self.answers else ""
        if isinstance(answer, str):
            answer = transcript(
                answer,
                final=True,
                start=max(0.0, self.pushed_s - 1.0),
                end=self.pushed_s,
                flush_id=self.flushes,
            )
        self.flushes += 1
        if not self.late:
            self._events.put_nowait(answer)
        return _told(answer)

    async def finish(self, *, deadline_s: float = 60.0) -> Transcript:
        self.finished = True
        answer = await self.flush()
        await self.aclose()
        return answer

    async def drained(self, max_buffered_s: float = 0.5) -> None:
        return

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self._events.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                self.closed = True
                raise event
            yield event


class ScriptedRecognizer:
    """Hands out scripted streams; `refusals` are raised first."""

    def __init__(self, *answers: Transcript | str) -> None:
        self.answers = list(answers)
        self.refusals: list[Exception] = []
        self.streams: list[ScriptedStream] = []

    @property
    def languages(self) -> tuple[str, ...]:
        return ("en-US", "es-ES")

    @property
    def stream(self) -> ScriptedStream:
        return self.streams[-1]

    def open(self, options: StreamOptions | None = None, **overrides: Any) -> ScriptedStream:
        if self.refusals:
            raise self.refusals.pop(0)
        stream = ScriptedStream(StreamOptions(**overrides), self.answers)
        self.streams.append(stream)
        return stream
