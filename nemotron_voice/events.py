"""Transcripts on their way from the device thread to whichever event loop iterates."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque

from nemotron_voice.errors import NemotronVoiceError
from nemotron_voice.transcript import Transcript

_log = logging.getLogger(__name__)

MAX_UNREAD = 256


class Events:
    """A bounded queue with one asynchronous consumer, filled from another thread.

    Bound to no event loop: the waiting consumer's own loop is woken. An unread interim is replaced
    by a newer one. Finals are kept up to MAX_UNREAD; a consumer further behind loses the oldest,
    which is logged (what a flush answered has reached whoever awaited the flush).
    """

    def __init__(self) -> None:
        self._unread: deque[Transcript] = deque()
        self._lock = threading.Lock()
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._closed = False
        self._error: NemotronVoiceError | None = None

    def put(self, transcript: Transcript) -> None:
        """Add a transcript; after close() it is ignored."""
        with self._lock:
            if self._closed:
                return
            if self._unread and not self._unread[-1].is_final:
                self._unread.pop()  # what follows says at least as much
            if len(self._unread) >= MAX_UNREAD:
                lost = self._unread.popleft()
                _log.warning(
                    "%d transcripts unread; dropping the oldest (%d words); iterate over it",
                    MAX_UNREAD,
                    len(lost.words),
                )
            self._unread.append(transcript)
            self._wake()

    def close(self, error: NemotronVoiceError | None = None) -> None:
        """End the iteration after what is unread; with an error, by raising it."""
        with self._lock:
            if not self._closed:
                self._closed, self._error = True, error
                self._wake()

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Transcript:
        while True:
            with self._lock:
                if self._unread:
                    return self._unread.popleft()
                if self._closed:
                    if self._error is not None:
                        raise self._error
                    raise StopAsyncIteration
                loop = asyncio.get_running_loop()
                future: asyncio.Future[None] = loop.create_future()
                self._waiting = (loop, future)
            await future

    def _wake(self) -> None:
        if self._waiting is not None:
            loop, future = self._waiting
            self._waiting = None
            with contextlib.suppress(RuntimeError):  # that loop has ended, and its consumer
                loop.call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
