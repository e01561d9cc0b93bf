"""A stream's connections, one after another, until the stream ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import aiohttp
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random_exponential

from nemotron_voice import errors
from nemotron_voice.config import StreamOptions
from nemotron_voice.errors import (
    AudioError,
    ConfigurationError,
    EngineFullError,
    NemotronVoiceError,
    ProtocolError,
    ServerRefusedError,
    ServerUnreachableError,
    is_permanent,
)
from nemotron_voice.protocol import (
    LISTEN_PATH,
    CloseStream,
    Configure,
    Error,
    Finalize,
    KeepAlive,
    Metadata,
    Results,
    parse_server_text,
    stream_query,
)
from nemotron_voice.protocol.messages import MAX_DEADLINE_MS
from nemotron_voice.remote.history import EndMark, FlushMark, UpdateMark
from nemotron_voice.remote.stream import RemoteStream

_log = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 4.0  # without audio; servers close after 10
FIRST_WAIT_S: Final = 0.1  # between attempts, at most and at random; doubled each time
LAST_WAIT_S: Final = 5.0
MAX_MESSAGE_BYTES: Final = 8 << 20  # of a server's message
CLOSE_S: Final = 0.5  # for the server's goodbye
FULL: Final = 4  # refusals of a stream's first connection: behind one URL may be several engines
FRUITLESS: Final = 3  # connections in a row that ended in an error and told nothing new


@dataclass(frozen=True, slots=True)
class Dial:
    """How servers are reached."""

    urls: Sequence[str]  # tried in turn
    headers: Mapping[str, str]
    connect_s: float  # one attempt
    reconnect_s: float  # all attempts in a row, connections that told nothing new among them
    heartbeat_s: float  # a connection silent for 1.5 times as long is given up


class _AgainError(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, cause: NemotronVoiceError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Connections:
    """Keeps one stream connected."""

    def __init__(
        self, stream: RemoteStream, session: aiohttp.ClientSession, dial: Dial, first_url: int
    ) -> None:
        self.more = asyncio.Event()  # set: there may be something to send
        self._stream = stream
        self._session = session
        self._dial = dial
        self._url = first_url
        self._ever = False  # a connection has stood
        self._full = 0  # times that all servers refused, for want of room
        self._fruitless = 0  # connections in a row that told nothing new

    async def run(self) -> None:
        """Serve the stream to its end; whatever goes wrong for good becomes its error."""
        try:
            while not self._stream.closed:
                await self._be_heard()
        except NemotronVoiceError as error:
            self._stream.fail(error)
        except Exception as error:  # noqa: BLE001 - whoever waits for the stream must hear of it
            _log.exception("a stream's connection failed")
            failure = ServerUnreachableError(f"the connection failed: {error!r}")
            failure.__cause__ = error
            self._stream.fail(failure)

    # ---- connecting

    async def _be_heard(self) -> None:
        """Try the servers until one has taken the stream and its connection has ended.

        Raises:
            ConfigurationError, ServerRefusedError: at once.
            EngineFullError: no server has had room, several times within a second or so, for a
                stream that never had a connection.
            ServerUnreachableError: for `reconnect_s` no server has taken the stream, or each that
                did has dropped it and told nothing new.
        """
        began = time.monotonic()
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_AgainError),
                wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LAST_WAIT_S),
                stop=stop_after_delay(self._dial.reconnect_s),
            ):
                with attempt:
                    await self._connect()
        except RetryError as error:
            last = error.last_attempt.exception()
            raise ServerUnreachableError(
                f"no server has served the stream for {time.monotonic() - began:.0f} s; tried "
                f"{', '.join(self._dial.urls)}; the last said: {last}"
            ) from last

    async def _connect(self) -> None:
        """One connection, from its beginning to its end.

        When one ends, the next is tried at once; after a second one in a row that told nothing
        new, with pauses, and for `reconnect_s` in all.

        Raises:
            _AgainError: no server took the stream, or dropped it as the one before did.
            NemotronVoiceError: what another connection wouldn't do better.
        """
        socket = await self._try_each()
        self._ever = True
        began = time.monotonic()
        try:
            ended, fruitful = await self._converse(socket)
        finally:
            await socket.close()
        if ended is None:
            self._stream.done()
            return
        self._fruitless = 0 if fruitful else self._fruitless + 1
        if self._fruitless >= FRUITLESS and not isinstance(ended, ServerUnreachableError):
            raise ended
        _log.warning("connection lost (%s); hearing again what it may have missed", ended)
        self._url += 1
        stood = time.monotonic() - began > self._dial.reconnect_s  # a caller may be silent so long
        if self._fruitless > 1 and not stood:
            raise _AgainError(ended)

    async def _try_each(self) -> aiohttp.ClientWebSocketResponse:
        causes: list[NemotronVoiceError] = []
        for _ in self._dial.urls:
            url = self._dial.urls[self._url % len(self._dial.urls)]
            try:
                return await self._try(url)
            except _AgainError as error:
                causes.append(error.cause)
                self._url += 1
        full = [cause for cause in causes if isinstance(cause, EngineFullError)]
        if full and not self._ever and len(full) == len(causes):
            self._full += 1
            if self._full == FULL:
                raise full[-1]
        raise _AgainError(causes[-1])

    async def _try(self, url: str) -> aiohttp.ClientWebSocketResponse:
        options, settings = self._stream.options, self._stream.settings
        asked = StreamOptions(
            language=settings.language,
            latency_ms=settings.latency_ms,
            sample_rate=options.sample_rate,
            interim_results=options.interim_results,
            finalize=options.finalize,
        )
        try:
            async with asyncio.timeout(self._dial.connect_s):
                return await self._session.ws_connect(
                    url + LISTEN_PATH,
                    params=stream_query(asked, replays=True),
                    headers=self._dial.headers,
                    heartbeat=self._dial.heartbeat_s,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                    max_msg_size=MAX_MESSAGE_BYTES,
                    compress=0,
                )
        except aiohttp.WSServerHandshakeError as error:
            refused = refusal(error.status, error.headers or {})
            raise (refused if is_permanent(refused) else _AgainError(refused)) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            unreachable = ServerUnreachableError(f"{url} does not answer: {error!r}")
            raise _AgainError(unreachable) from error

    # ---- talking

    async def _converse(
        self, socket: aiohttp.ClientWebSocketResponse
    ) -> tuple[NemotronVoiceError | None, bool]:
        """Talk until the connection ends: why (None: all was told), and whether it told anything.

        Raises:
            NemotronVoiceError: what another connection wouldn't do better.
        """
        self._stream.begin()
        sender = asyncio.create_task(self._send(socket), name="remote-send")
        try:
            return await self._receive(socket)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            while True:
                self.more.clear()
                while (entry := self._stream.next()) is not None:
                    if isinstance(entry, bytes):
                        await socket.send_bytes(entry)
                    elif isinstance(entry, FlushMark):
                        deadline_ms = int(min(1000 * entry.deadline_s, MAX_DEADLINE_MS))
                        await socket.send_str(Finalize(deadline_ms).to_text())
                    elif isinstance(entry, UpdateMark):
                        change = Configure(entry.language, entry.latency_ms)
                        await socket.send_str(change.to_text())
                    elif isinstance(entry, EndMark):
                        await socket.send_str(CloseStream().to_text())
                try:  # not wait_for: in Python 3.11 it may swallow a cancellation
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await self.more.wait()
                except TimeoutError:
                    await socket.send_str(KeepAlive().to_text())
        except (aiohttp.ClientError, OSError) as error:  # the receiver sees the end as well
            _log.debug("sending failed: %r", error)
            await socket.close()

    async def _receive(
        self, socket: aiohttp.ClientWebSocketResponse
    ) -> tuple[NemotronVoiceError | None, bool]:
        fruitful = complete = False
        failure: NemotronVoiceError | None = None
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            told = parse_server_text(message.data)
            if isinstance(told, Results):
                fruitful = self._stream.take(told) or fruitful
            elif isinstance(told, Metadata):
                complete = True
            elif isinstance(told, Error):
                failure = named_error(told.variant, told.description)
                if isinstance(failure, ConfigurationError | AudioError | ProtocolError):
                    raise failure
        if complete and failure is None and self._stream.ended:
            return None, fruitful
        lost = ServerUnreachableError(f"the connection ended with code {socket.close_code}")
        return failure or lost, fruitful


def named_error(name: str, message: str) -> NemotronVoiceError:
    """The exception that a server names; one that we don't know is a ServerRefusedError."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, NemotronVoiceError):
        return kind(message)
    return ServerRefusedError(message or name)


def refusal(status: int, headers: Mapping[str, str], message: str = "") -> NemotronVoiceError:
    """What a refusal with an HTTP status means; permanent, unless trying again may help.

    A gateway says 502 to 504 while its servers restart, and 404 before it knows any.
    """
    told = unquote(headers.get("dg-error", ""))
    message = message or told or f"the server refused with HTTP {status}"
    error = named_error(headers.get("x-nemotron-error", ""), message)
    passing = status in {404, 429} or status >= 500
    return ServerUnreachableError(message) if passing and is_permanent(error) else error
