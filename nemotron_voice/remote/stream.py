"""One caller's stream on a server: what the caller sees, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

import numpy as np

from nemotron_voice.audio import to_float
from nemotron_voice.config import StreamOptions
from nemotron_voice.errors import (
    AudioOverflowError,
    NemotronVoiceError,
    StreamClosedError,
)
from nemotron_voice.events import Events
from nemotron_voice.protocol import Results
from nemotron_voice.remote.history import (
    Deliveries,
    EndMark,
    Entry,
    FlushMark,
    History,
    Settings,
    UpdateMark,
    empty_answer,
    renumbered,
)
from nemotron_voice.transcript import Transcript

if TYPE_CHECKING:
    from nemotron_voice.recognizer import PCM

_log = logging.getLogger(__name__)

REPLAY_DEADLINE_S = 60.0  # a deadline would make a server answer with less than the first did
MAX_MESSAGE_BYTES = 32_768  # a second of audio at 16 kHz; servers read so many messages a second
NETWORK_S = 0.25  # beyond a flush's deadline, for the answer to come back


class RemoteStream:
    """A RecognizerStream of a RemoteEngine; made by `RemoteEngine.open`.

    Args:
        options: of the stream; its language is resolved.
        check: raises where the server's model lacks a language or latency; returns the locale.
        replay_s: seconds of audio kept to be sent again.
        wake: tells the connection that there is something to send, from any thread.
        cut: tells the connection to end, from any thread.
    """

    def __init__(
        self,
        options: StreamOptions,
        *,
        check: Callable[[object | None, int | None], str | None],
        replay_s: float,
        wake: Callable[[RemoteStream], None],
        cut: Callable[[RemoteStream], None],
    ) -> None:
        self.options = options
        self._check = check
        self._wake = wake
        self._cut = cut
        self._lock = threading.RLock()
        settings = Settings(str(options.language), options.latency_ms)
        self._history = History(options.sample_rate, settings, replay_s)
        self._deliveries = Deliveries(2 * replay_s)
        self._events = Events()
        self._answers: dict[int, Future[Transcript]] = {}  # flushes not answered yet
        self._answered: set[int] = set()  # of those that a replay may answer again
        self._sent: set[int] = set()  # of those that are kept
        self._flushes = 0
        self._revision = 0
        self._interim_s = 0.0  # how far any interim has reached
        self._origin_s = 0.0  # where the present connection's clock began
        self._asked: list[int] = []  # flushes sent over it, in order
        self._drained: list[tuple[float, Future[None]]] = []
        self._ended = False  # no more audio
        self._closed = False
        self._error: NemotronVoiceError | None = None

    # ---- the caller's side

    def push(self, pcm: PCM) -> None:
        """Take mono audio at `options.sample_rate`: PCM16 bytes, or an int16 or float array."""
        data = _pcm16(pcm)
        with self._lock:
            self._check_open()
            incoming_s = len(data) / 2 / self.options.sample_rate
            waiting_s = self._history.unsent_s
            if waiting_s + incoming_s > self.options.max_buffered_s:
                raise AudioOverflowError(
                    f"{waiting_s:.1f} s of audio wait to be sent and {incoming_s:.1f} s more would "
                    f"pass the bound of {self.options.max_buffered_s:g} s; none of this push was "
                    "taken. Push at the speed of speech, await stream.drained() between pushes, or "
                    "raise StreamOptions.max_buffered_s; a server that can't be reached, or is too "
                    "slow, ends here too"
                )
            for at in range(0, len(data), MAX_MESSAGE_BYTES):  # servers refuse larger messages
                self._history.append(data[at : at + MAX_MESSAGE_BYTES])
        self._wake(self)

    def update(self, *, language: object | None = None, latency_ms: int | None = None) -> None:
        """Change settings from the chunk on that holds the next sample pushed."""
        locale = self._check(language, latency_ms)
        with self._lock:
            self._check_open()
            self._history.append(UpdateMark(locale, latency_ms))
        self._wake(self)

    def flush(self, *, deadline_s: float = 2.0) -> Coroutine[Any, Any, Transcript]:
        """Finalise what was said in the audio pushed so far; see RecognizerStream.flush."""
        with self._lock:
            self._check_open()
            flush_id, answer = self._ask()
            self._history.append(FlushMark(flush_id, deadline_s))
        self._wake(self)
        return self._await(flush_id, answer, deadline_s)

    async def finish(self, *, deadline_s: float = 60.0) -> Transcript:
        """End the audio, finalise all of it; iteration ends after the final."""
        with self._lock:
            self._check_open()
            self._ended = True
            flush_id, answer = self._ask()
            self._history.append(EndMark(flush_id))
        self._wake(self)
        try:
            return await self._await(flush_id, answer, deadline_s)
        finally:
            self._close()

    async def drained(self, max_buffered_s: float = 0.5) -> None:
        """Wait until less than that waits to be sent; the server reads no faster than it hears."""
        with self._lock:
            if self._closed or self._history.unsent_s < max_buffered_s:
                return
            ready: Future[None] = Future()
            self._drained.append((max_buffered_s, ready))
        await asyncio.wrap_future(ready)

    async def aclose(self) -> None:
        """Drop the stream. Idempotent."""
        self._close()

    def __aiter__(self) -> AsyncIterator[Transcript]:
        """Transcripts in order; ends after finish or aclose, raises if the stream failed."""
        return self._events

    def _check_open(self) -> None:
        if self._error is not None:
            raise StreamClosedError(
                f"the stream has failed ({self._error}); open a new one with engine.open()"
            ) from self._error
        if self._closed or self._ended:
            raise StreamClosedError("the stream has ended; open a new one with engine.open()")

    def _ask(self) -> tuple[int, Future[Transcript]]:
        flush_id, answer = self._flushes, Future[Transcript]()
        self._flushes += 1
        self._answers[flush_id] = answer
        return flush_id, answer

    async def _await(
        self, flush_id: int, answer: Future[Transcript], deadline_s: float
    ) -> Transcript:
        waiting = asyncio.wrap_future(answer)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with asyncio.timeout(deadline_s + NETWORK_S):
                return await asyncio.shield(waiting)
        except TimeoutError:
            with self._lock:
                if not answer.done():
                    _log.warning("no answer to a flush after %.1f s; words come later", deadline_s)
                    self._publish(empty_answer(flush_id, self._history.end_s), flush_id)
            return answer.result()

    # ---- the connection's side, on the engine's event loop

    @property
    def settings(self) -> Settings:
        """What the next connection is opened with."""
        with self._lock:
            return self._history.settings

    @property
    def ended(self) -> bool:
        """Whether the audio has ended, and with it what there is to tell."""
        return self._ended

    @property
    def closed(self) -> bool:
        """Whether nobody waits for anything any more."""
        return self._closed

    def begin(self) -> None:
        """A connection stands: everything kept is sent over it, from its beginning."""
        with self._lock:
            self._origin_s = self._history.rewind()
            self._asked = []
            self._deliveries.begin_replay(self._origin_s)

    def next(self) -> Entry | None:
        """What is to be sent next; None: nothing waits. Packets that wait go as one message."""
        with self._lock:
            entry = self._history.next()
            if isinstance(entry, bytes) and self._history.audio_waits:
                packets, size = [entry], len(entry)
                while self._history.audio_waits and size < MAX_MESSAGE_BYTES:
                    packet = self._history.next()
                    assert isinstance(packet, bytes)  # noqa: S101 - audio_waits says so
                    packets.append(packet)
                    size += len(packet)
                entry = b"".join(packets)
            if isinstance(entry, FlushMark | EndMark):
                self._asked.append(entry.flush_id)
            if isinstance(entry, FlushMark):
                if entry.flush_id in self._sent:  # a replay is to say what was said before
                    entry = FlushMark(entry.flush_id, REPLAY_DEADLINE_S)
                self._sent.add(entry.flush_id)
            self._wake_drained()
            return entry

    def take(self, results: Results) -> bool:
        """A transcript has come; returns whether it told anything that no connection had told.

        An interim did so if it reaches further than any before: a replay begins with old ones.
        """
        heard = results.transcript
        with self._lock:
            if self._closed:
                return False
            flush_id = self._own_id(heard.flush_id)
            new = self._deliveries.new_part(heard.shifted(self._origin_s))
            if not new.is_final:
                if not new.text:
                    return False
                self._events.put(self._numbered(new, None))
                further = new.end > self._interim_s
                self._interim_s = max(self._interim_s, new.end)
                return further
            answers = flush_id is not None and flush_id not in self._answered
            if not (answers or new.text):
                return False
            self._deliveries.note(new)
            self._publish(new, flush_id)
            return True

    def done(self) -> None:
        """The server has told everything."""
        self._close()

    def fail(self, error: NemotronVoiceError) -> None:
        """End the stream with an error: pending flushes and the iteration raise it."""
        with self._lock:
            if not self._closed:
                self._error = error
                self._events.close(error)
                self._close(error)

    def _own_id(self, server_id: int | None) -> int | None:
        if server_id is None or not 0 <= server_id < len(self._asked):
            return None
        return self._asked[server_id]

    def _numbered(self, heard: Transcript, flush_id: int | None) -> Transcript:
        self._revision += 1
        return renumbered(heard, flush_id, self._revision)

    def _publish(self, final: Transcript, flush_id: int | None) -> None:
        transcript = self._numbered(final, flush_id)
        self._events.put(transcript)
        if flush_id is None:
            return
        self._answered.add(flush_id)
        answer = self._answers.pop(flush_id, None)
        if answer is not None and not answer.done():
            answer.set_result(transcript)
        kept = {e.flush_id for e in self._history if isinstance(e, FlushMark | EndMark)}
        self._answered &= kept
        self._sent &= kept

    def _wake_drained(self) -> None:
        if self._drained:
            unsent_s = self._history.unsent_s
            for limit_s, ready in self._drained:
                if self._closed or unsent_s < limit_s:
                    with contextlib.suppress(InvalidStateError):  # whoever waited was cancelled
                        ready.set_result(None)
            self._drained = [(limit_s, r) for limit_s, r in self._drained if not r.done()]

    def _close(self, error: NemotronVoiceError | None = None) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(
                        error or StreamClosedError("the stream was closed before its flush ended")
                    )
            self._answers.clear()
            self._wake_drained()
            self._events.close()
        self._cut(self)


def _pcm16(pcm: PCM) -> bytes:
    """PCM16 bytes of whatever `push` takes; checked as an Engine checks it."""
    samples = to_float(pcm)
    if not isinstance(pcm, np.ndarray):
        return bytes(pcm)
    whole: bytes = np.rint(np.clip(samples * 32768.0, -32768, 32767)).astype("<i2").tobytes()
    return whole
