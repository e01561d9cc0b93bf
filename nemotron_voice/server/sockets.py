"""Uvicorn's two protocols, with an end where they would wait for a client without one."""

from __future__ import annotations

import asyncio
from typing import Final

import h11
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_S: Final = 10.0  # a request's head must be there; uvicorn itself waits for ever
# After a connection's work, for the client to read what was written and to close: a client that
# reads nothing would keep its socket and up to some MB of buffers for as long as it likes.
CLOSE_S: Final = 10.0

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)


class HttpProtocol(H11Protocol):
    """HTTP/1.1 by h11, which bounds a request's head (64 KiB); httptools doesn't."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A request should follow."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """A head, whole or in part, or a body."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_watching()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSockets, sans-I/O; a client is gone when it is silent, not when it is slow."""

    _heard_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Whatever comes shows that the client is there."""
        self._heard_at = self.loop.time()
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # websockets takes lines of 8 KiB and 128 headers. Uvicorn would leave a larger request
            # without an answer, and fail on it when the server ends.
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            self.transport.write(_TOO_LARGE)
            self.transport.close()
            self.loop.call_later(CLOSE_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """No pong in time: it may wait behind audio that the engine isn't ready to hear yet."""
        if self.read_paused or self._heard_at > self.ping_sent_at:
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    async def send(self, message: ASGISendEvent) -> None:
        """Pass on what the app says; uvicorn logs a refused handshake as the app's error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True

    async def run_asgi(self) -> None:
        """Serve the connection; whatever of it is left after its end is cut off."""
        try:
            await super().run_asgi()
        finally:
            self.loop.call_later(CLOSE_S, self.transport.abort)
