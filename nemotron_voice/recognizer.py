"""The two protocols that adapters talk to: a recogniser, and one caller's stream on it.

`Engine` is a Recognizer in this process. Whatever is above (Pipecat, LiveKit, the command line, a
server) is written against these protocols only, never against the engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nemotron_voice.config import StreamOptions
    from nemotron_voice.transcript import Transcript

    PCM = bytes | bytearray | memoryview | NDArray[np.generic]


@runtime_checkable
class RecognizerStream(Protocol):
    """One caller's audio in, their transcripts out."""

    def push(self, pcm: PCM) -> None:
        """Take mono audio at the stream's sample rate: PCM16 bytes or an array. Never blocks.

        Raises:
            AudioFormatError: odd byte count, NaN, several channels; nothing was taken.
            AudioOverflowError: the queue is at its bound; nothing was taken.
            StreamClosedError: the stream has ended.
        """

    def update(self, *, language: object | None = None, latency_ms: int | None = None) -> None:
        """Change language or latency from the audio pushed next onwards, without a gap."""

    def flush(self, *, deadline_s: float = 2.0) -> Coroutine[Any, Any, Transcript]:
        """Finalise what was said in the audio pushed so far, now; the answer may be empty.

        "So far" is when this is called; when the answer is awaited doesn't matter. The same
        transcript also appears in the iteration. The stream goes on undisturbed. After
        `deadline_s` the answer is what has been decoded by then.

        Raises:
            StreamClosedError: the stream has ended, or has failed.
        """

    async def finish(self, *, deadline_s: float = 60.0) -> Transcript:
        """The audio has ended: finalise all of it, then end the iteration and free the slot."""

    async def drained(self, max_buffered_s: float = 0.5) -> None:
        """Wait until less than `max_buffered_s` seconds of pushed audio are undecoded."""

    async def aclose(self) -> None:
        """Drop the stream: undecoded audio is discarded, the iteration ends, the slot is free.

        An engine waits for the stream's step if one is on the device; a recogniser behind a socket
        doesn't wait for its server.
        """

    def __aiter__(self) -> AsyncIterator[Transcript]:
        """Transcripts in order, interim and final; one consumer at a time."""


@runtime_checkable
class Recognizer(Protocol):
    """Opens streams, many at a time."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Locales that the model can transcribe."""

    def open(self, options: StreamOptions | None = None, **overrides: Any) -> RecognizerStream:
        """Open a stream.

        Raises:
            EngineFullError: every slot is taken; the accepted streams don't notice. A recogniser
                behind a socket says so later: the iteration raises it.
            ConfigurationError: an option has no such value, or the model lacks the language.
        """
