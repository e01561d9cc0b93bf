"""A WebSocket client that does what no library lets one do, and a network that falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlencode

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455's own example


def frame(opcode: int, payload: bytes = b"", *, announced: int | None = None) -> bytes:
    """A client's frame, masked by zeros; `announced` is the length that its head tells."""
    size = len(payload) if announced is None else announced
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    return head + bytes(4) + payload


class Message(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE, self
        code: int = struct.unpack("!H", self.payload[:2])[0]
        return code


class RawSocket:
    """One TCP connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def upgrade(self, query: dict[str, str], **headers: str) -> None:
        """Ask for a WebSocket."""
        lines = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
        } | headers
        self.request(f"GET /v1/listen?{urlencode(query)}", lines)

    def request(self, line: str, headers: dict[str, str]) -> None:
        """Any request without a body."""
        told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"{line} HTTP/1.1\r\n{told}\r\n".encode("latin-1"))

    async def head(self) -> tuple[int, str]:
        """Status and head of a response."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        return int(head.split()[1]), head.lower()

    async def message(self) -> Message:
        """The server's next frame; it sends whole messages."""
        first, second = await self.reader.readexactly(2)
        assert first & 0x80
        size = second & 0x7F
        if size == 126:
            size = struct.unpack("!H", await self.reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", await self.reader.readexactly(8))[0]
        return Message(first & 0x0F, await self.reader.readexactly(size))

    async def ended(self) -> list[Message]:
        """All frames up to the server's close, or to the end of the connection."""
        messages = []
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not messages or messages[-1].opcode != CLOSE:
                messages.append(await self.message())
        return messages


@contextlib.asynccontextmanager
async def raw_socket(port: int, *, receive_bytes: int | None = None) -> AsyncIterator[RawSocket]:
    """A connection; `receive_bytes` bounds what the system takes in for one that won't read."""
    there = socket.socket()
    if receive_bytes is not None:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    there.setblocking(False)
    await asyncio.get_running_loop().sock_connect(there, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=there, limit=1 << 20)
    try:
        yield RawSocket(reader, writer)
    finally:
        writer.transport.abort()


class SilentNetwork:
    """A proxy that, once `silent`, passes nothing on and closes nothing."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.silent = False
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> SilentNetwork:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            await asyncio.gather(
                self._forward(reader, far_writer), self._forward(far_reader, writer)
            )
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(4096):
            if self.silent:
                await asyncio.Event().wait()
            writer.write(block)
