"""One call's stream of a Recognizer, which outlives breaks, full engines and other sample rates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal

from loguru import logger
from pipecat.processors.frame_processor import FrameProcessor

from nemotron_voice.audio import to_float
from nemotron_voice.errors import (
    EngineError,
    NemotronVoiceError,
    StreamClosedError,
    is_permanent,
)
from nemotron_voice.recognizer import RecognizerStream
from nemotron_voice.replay import ReplayBuffer
from nemotron_voice.transcript import Transcript

REOPEN_FIRST_S = 0.2  # after a stream broke or found the engine full; doubled up to the last
REOPEN_LAST_S = 5.0
FINISH_S = 3.0  # for the last words of a call: the pipeline's end waits for them

# What a transcript answers: a flush (the first time), or it is what the answer to the last flush
# has left out.
Answer = Literal["flush", "rest"]


class CallStream:
    """Audio in, transcripts out, for as long as the call lasts.

    The stream of the moment may break, or the engine may be full: the audio that no final has
    covered is kept (30 s) and pushed into the next one. Transcripts come on the call's clock:
    seconds of audio pushed since the call began, whatever stream heard them.

    Args:
        owner: makes and cancels the tasks.
        open_stream: opens a stream at a sample rate, with a `max_buffered_s`.
        on_transcript: awaited for each transcript, with what it answers; a flush is answered once.
        on_error: awaited for each error; the call goes on.
        flush_deadline_s: a flush is answered after this at the latest.
    """

    def __init__(
        self,
        owner: FrameProcessor,
        *,
        open_stream: Callable[[int, float], RecognizerStream],
        on_transcript: Callable[[Transcript, Answer | None], Awaitable[None]],
        on_error: Callable[[NemotronVoiceError], Awaitable[None]],
        flush_deadline_s: float,
    ) -> None:
        self._owner = owner
        self._open_stream = open_stream
        self._on_transcript = on_transcript
        self._on_error = on_error
        self._flush_deadline_s = flush_deadline_s
        self._stream: RecognizerStream | None = None
        self._replay = ReplayBuffer(16_000)
        self._opener: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed = 0  # flushes not answered yet; the next stream answers for a broken one
        self._reopen_s = REOPEN_FIRST_S  # until a transcript says that a stream is well
        self.sample_rate = 0  # until it is opened

    @property
    def now_s(self) -> float:
        """Where the call's clock stands."""
        return self._replay.end_s

    @property
    def is_idle(self) -> bool:
        """Whether there is no stream, and none is being opened: only new settings can help."""
        return self._stream is None and (self._opener is None or self._opener.done())

    async def open(self, sample_rate: int) -> None:
        """Open a stream at this rate, or go on trying in the background while audio is kept."""
        if sample_rate != self.sample_rate:
            self.sample_rate = sample_rate
            self._replay = ReplayBuffer(sample_rate, start_s=self._replay.end_s)
        if not await self._try_open():
            self._reopen_later()

    async def move(self, sample_rate: int) -> None:
        """Open another stream; the present one finishes what it has heard."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._start(self._finish(stream), "finish")
            self._forget()
        await self.open(sample_rate)

    async def restart(self) -> None:
        """Open another stream; what the present one has heard is forgotten."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()
        self._forget()
        if self.sample_rate:
            await self.open(self.sample_rate)

    def push(self, pcm: bytes) -> None:
        """Take mono PCM16.

        Raises:
            AudioFormatError, AudioOverflowError: as RecognizerStream.push.
        """
        if self._stream is None:
            to_float(pcm)  # refuses now what the next stream would refuse among all that is kept
        else:
            try:
                self._stream.push(pcm)
            except StreamClosedError:
                logger.debug(f"{self._owner}: the stream has ended, audio waits for the next one")
        self._replay.append(pcm)  # not what was refused: both clocks skip it

    def update(self, **settings: Any) -> None:
        """Change the present stream's settings; later ones get theirs from `open_stream`."""
        if self._stream is not None:
            self._stream.update(**settings)

    def flush(self) -> None:
        """Ask for a final of what was pushed; it comes like every other transcript."""
        self._owed += 1
        if self._stream is None:
            return
        try:
            answer = self._stream.flush(deadline_s=self._flush_deadline_s)
        except NemotronVoiceError as error:  # the reader reports why, and opens another stream
            logger.debug(f"{self._owner}: no flush: {error}")
            return
        self._start(self._await(answer), "flush")

    async def drained(self, max_buffered_s: float = 0.5) -> None:
        """Wait until less than that is undecoded: for audio that comes faster than speech."""
        if self._stream is not None:
            await self._stream.drained(max_buffered_s)

    async def finish(self) -> None:
        """The call has ended: wait until everything heard has been passed on, or the deadline."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        await self._finish(stream, deadline_s=FINISH_S)
        if readers := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(readers, timeout=self._flush_deadline_s)

    async def aclose(self) -> None:
        """Drop the stream and everything under way: its slot is free at once."""
        tasks = [self._opener, *self._tasks]
        self._opener = None
        self._tasks.clear()
        for task in tasks:
            if task is not None and not task.done():
                await self._owner.cancel_task(task)
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.aclose()

    def _forget(self) -> None:
        self._replay.drop_until(self.now_s)
        self._owed = 0

    def _start(self, work: Any, name: str) -> None:
        task = self._owner.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try_open(self) -> bool:
        """Whether there is nothing more to try."""
        stream: RecognizerStream | None = None
        origin_s = self._replay.start_s
        try:
            stream = self._open_stream(self.sample_rate, self._replay.room_s)
            for packet in self._replay.packets():
                stream.push(packet)
        except Exception as failure:  # noqa: BLE001 - what isn't reported leaves the call deaf
            if stream is not None:
                await stream.aclose()
            error = _own_error(failure)
            await self._on_error(error)
            # A full engine has a free slot again some day; a bad setting waits for a new one.
            return is_permanent(error)
        self._stream = stream
        self._start(self._read(stream, origin_s), "transcripts")
        if self._owed:
            self._owed = 0
            self.flush()
        return True

    def _reopen_later(self) -> None:
        if self._opener is None or self._opener.done():
            self._opener = self._owner.create_task(self._reopen(), name="reopen")

    async def _reopen(self) -> None:
        while True:
            await asyncio.sleep(self._reopen_s)
            self._reopen_s = min(2 * self._reopen_s, REOPEN_LAST_S)
            # New settings or another rate may have opened one meanwhile.
            if self._stream is not None or await self._try_open():
                return

    async def _read(self, stream: RecognizerStream, origin_s: float) -> None:
        """Pass on what the stream says, until it ends or breaks."""
        answered = -1
        try:
            async for heard in stream:
                self._reopen_s = REOPEN_FIRST_S
                transcript = heard.shifted(origin_s)
                current = stream is self._stream
                if transcript.is_final and current:
                    self._replay.drop_until(transcript.end)
                answer: Answer | None = None
                if heard.flush_id is not None and heard.flush_id > answered:
                    answer, answered = "flush", heard.flush_id
                    if current:
                        self._owed = max(0, self._owed - 1)
                elif heard.flush_id == answered and current and not self._owed:
                    answer = "rest"
                await self._on_transcript(transcript, answer)
        except Exception as failure:  # noqa: BLE001 - as above: without a reader nothing is heard
            error = _own_error(failure)
            if stream is self._stream:
                self._stream = None
                if not is_permanent(error):
                    self._reopen_later()
            await stream.aclose()
            await self._on_error(error)

    async def _await(self, answer: Coroutine[Any, Any, Transcript]) -> None:
        try:
            await answer
        except NemotronVoiceError as error:  # as above
            logger.debug(f"{self._owner}: no answer to a flush: {error}")

    async def _finish(self, stream: RecognizerStream, *, deadline_s: float = 60.0) -> None:
        try:
            await stream.finish(deadline_s=deadline_s)
        except Exception as error:  # noqa: BLE001 - nothing may keep the pipeline from ending
            logger.debug(f"{self._owner}: no answer to the last flush: {error!r}")
            await stream.aclose()


def _own_error(error: Exception) -> NemotronVoiceError:
    """The error as one of ours: what isn't may pass, so it is none that is permanent."""
    if isinstance(error, NemotronVoiceError):
        return error
    own = EngineError(f"the recogniser failed: {error!r}").with_traceback(error.__traceback__)
    own.__cause__ = error
    return own
