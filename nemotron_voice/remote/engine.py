"""RemoteEngine: opens streams on a server, or on whichever of several answers."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp

from nemotron_voice import languages as language_table
from nemotron_voice.config import StreamOptions
from nemotron_voice.errors import (
    ConfigurationError,
    EngineClosedError,
    NemotronVoiceError,
    ProtocolError,
    ServerUnreachableError,
    UnsupportedLatencyError,
)
from nemotron_voice.protocol import ENGINE_PATH
from nemotron_voice.remote.connection import Connections, Dial, refusal
from nemotron_voice.remote.stream import RemoteStream

_T = TypeVar("_T")

KEY_VARIABLE: Final = "NEMOTRON_VOICE_API_KEY"
_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


class RemoteEngine:
    """A Recognizer on a server: `nemotron-voice serve`.

        engine = RemoteEngine("ws://gpu-box:8080", api_key="secret")
        stream = engine.open(language="auto", sample_rate=8000)

    Streams behave as an Engine's do. When a connection breaks, another takes over (of several URLs
    the next one), hears the last `replay_s` seconds again, and tells only what was not told before.
    Audio travels as PCM16: float audio is rounded to it.
    All connections share one thread with an event loop of its own.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        api_key: str | None = None,
        connect_s: float = 5.0,
        reconnect_s: float = 30.0,
        heartbeat_s: float = 5.0,
        replay_s: float = 60.0,
    ) -> None:
        """Ask a server what it can hear; waits for the answer up to `connect_s` a server.

        Args:
            url: "ws://host:8080" or "wss://..."; of several, the next is tried when one fails.
            api_key: of the server; None: the environment's NEMOTRON_VOICE_API_KEY, if it is set.
            connect_s: seconds that one attempt to connect may take.
            reconnect_s: seconds without any server, or with servers that take the stream and drop
                it, after which a stream fails.
            heartbeat_s: a ping is sent so often; without an answer within half of it, the
                connection is taken for dead.
            replay_s: seconds of audio that a stream keeps to send again, 2 bytes a sample; up to
                twice as many where no flush comes. A break within the first `replay_s` of a call
                changes nothing in its text; a later one may change a word near the break.

        Raises:
            ServerUnreachableError, ServerRefusedError, ConfigurationError.
        """
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ConfigurationError("RemoteEngine needs a URL, for example 'ws://localhost:8080'")
        key = api_key or os.environ.get(KEY_VARIABLE)
        self._dial = Dial(
            urls=[_normal(one) for one in urls],
            headers={"Authorization": f"Token {key}"} if key else {},
            connect_s=connect_s,
            reconnect_s=reconnect_s,
            heartbeat_s=heartbeat_s,
        )
        self._replay_s = replay_s
        self._lock = threading.Lock()
        self._streams: dict[RemoteStream, tuple[Connections, asyncio.Task[None]]] = {}
        self._turn = itertools.count()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="nemotron-voice-remote", daemon=True
        )
        self._thread.start()
        try:
            self._session = self._run(_session())
            about = self._run(self._ask_about())
            for entry in about["locales"]:  # of a fine-tuned model, beside the 40
                if entry.get("code") not in language_table.BY_CODE:
                    language_table.add_described(entry)
        except BaseException:
            self.close()
            raise
        self.model_name: str = about["model"]
        self._languages = tuple(about["languages"])
        self._latencies_ms = tuple(about["latencies_ms"])

    @property
    def languages(self) -> tuple[str, ...]:
        """Locales that the server's model can transcribe."""
        return self._languages

    def open(self, options: StreamOptions | None = None, **overrides: Any) -> RemoteStream:
        """Open a stream; `overrides` are fields of StreamOptions.

        Returns at once, while the connection is made. A full server is told by the iteration and
        by flushes: EngineFullError.

        Raises:
            EngineClosedError: close() was called.
            ConfigurationError: an option has no such value, or the model lacks the language.
        """
        asked = replace(options or StreamOptions(), **overrides)
        locale = self._check(asked.language, asked.latency_ms)
        stream = RemoteStream(
            replace(asked, language=locale),
            check=self._check,
            replay_s=self._replay_s,
            wake=self._wake,
            cut=self._cut,
        )
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine is closed; make a new RemoteEngine")
            self._loop.call_soon_threadsafe(self._begin, stream)
        return stream

    def close(self) -> None:
        """End every stream with EngineClosedError, and the thread. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- what streams need of their engine

    def _check(self, language: object | None, latency_ms: int | None) -> str | None:
        if latency_ms is not None and latency_ms not in self._latencies_ms:
            StreamOptions(latency_ms=latency_ms)  # says what no model has
            allowed = ", ".join(map(str, self._latencies_ms))
            raise UnsupportedLatencyError(
                f"{self.model_name} has no mode of latency_ms={latency_ms}; choose one of {allowed}"
            )
        if language is None:
            return None
        return language_table.resolve(language, self._languages)

    def _wake(self, stream: RemoteStream) -> None:
        entry = self._streams.get(stream)
        if entry is not None and not entry[0].more.is_set():
            self._call(entry[0].more.set)

    def _cut(self, stream: RemoteStream) -> None:
        entry = self._streams.get(stream)
        if entry is not None:
            self._call(entry[1].cancel)

    def _call(self, what: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the engine has been closed, and every stream with it
            return

    # ---- on the thread's event loop

    def _begin(self, stream: RemoteStream) -> None:
        connections = Connections(stream, self._session, self._dial, next(self._turn))
        task = self._loop.create_task(connections.run(), name="remote-stream")
        self._streams[stream] = (connections, task)
        task.add_done_callback(lambda _: self._streams.pop(stream, None))
        if stream.closed:  # before there was a task to cut
            task.cancel()

    async def _ask_about(self) -> dict[str, Any]:
        failure: NemotronVoiceError | None = None
        for url in self._dial.urls:
            http = "http" + url.removeprefix("ws")
            try:
                async with (
                    asyncio.timeout(self._dial.connect_s),
                    self._session.get(http + ENGINE_PATH, headers=self._dial.headers) as response,
                ):
                    if response.status == 200:
                        return _about(await response.json())
                    said = (await response.text())[:300]
                    message = f"{url} refused with HTTP {response.status}: {said}"
                    failure = refusal(response.status, response.headers, message)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = ServerUnreachableError(
                    f"{url} does not answer ({error!r}); is `nemotron-voice serve` running there?"
                )
        assert failure is not None  # noqa: S101 - there is at least one URL
        raise failure

    async def _end(self) -> None:
        streams = list(self._streams.items())
        for stream, _ in streams:
            stream.fail(EngineClosedError("the engine was closed while the stream was open"))
        await asyncio.gather(*(task for _, (_, task) in streams), return_exceptions=True)
        if hasattr(self, "_session"):
            await self._session.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


def _normal(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.casefold() not in _SCHEMES or not rest.strip("/"):
        raise ConfigurationError(
            f"url={url!r} is not the address of a server; write 'ws://host:8080' or 'wss://host'"
        )
    return f"{_SCHEMES[scheme.casefold()]}://{rest.rstrip('/')}"


def _about(told: Any) -> dict[str, Any]:
    try:
        return {
            "model": str(told["model"]),
            "languages": [str(code) for code in told["languages"]],
            "locales": [dict(entry) for entry in told.get("locales", ())],
            "latencies_ms": [int(mode) for mode in told["latencies_ms"]],
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"what the server says of its engine makes no sense: {told}") from error
