"""A TCP proxy that cuts, stalls and truncates connections at random, by a seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal, Self

Fault = Literal["cut", "stall", "truncate", "refuse"]

BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad the network is. Bytes are those of both directions together."""

    mean_bytes: float = 1_000_000.0  # between faults of one connection
    refuse: float = 0.15  # of new connections are closed at once
    stall_s: tuple[float, float] = (0.2, 4.0)  # a stall ends with the connection, or goes on


class ChaosProxy:
    """Forwards to a port of this machine, as badly as it is told to.

    async with ChaosProxy(port, seed=1) as proxy:
        engine = RemoteEngine(f"ws://127.0.0.1:{proxy.port}")
    """

    def __init__(self, target_port: int, *, seed: int, faults: Faults | None = None) -> None:
        self.counts: Counter[Fault] = Counter()
        self.port = 0
        self.bad = True
        self._target_port = target_port
        self._faults = faults or Faults()
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        if self.bad and self._random.random() < self._faults.refuse:
            self.counts["refuse"] += 1
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:  # the server is down
            writer.transport.abort()
            return
        line = _Line(self)
        ways = [
            asyncio.create_task(line.forward(reader, far_writer)),
            asyncio.create_task(line.forward(far_reader, writer)),
        ]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, far_writer):
            end.transport.abort()

    def cut_all(self) -> None:
        """Cut every connection now."""
        for connection in self._connections:
            connection.cancel()

    def next_fault(self) -> tuple[float, Fault]:
        """After how many bytes what happens."""
        kind = self._random.choice(("cut", "stall", "truncate"))
        return self._random.expovariate(1 / self._faults.mean_bytes), kind

    def stall_s(self) -> float:
        """How long a stall lasts."""
        return self._random.uniform(*self._faults.stall_s)

    def part(self, size: int) -> int:
        """How much of a block gets through before a cut."""
        return self._random.randrange(size)


class _Line:
    """One connection, both ways."""

    def __init__(self, proxy: ChaosProxy) -> None:
        self._proxy = proxy
        self._left, self._fault = proxy.next_fault()
        self._flows = asyncio.Event()
        self._flows.set()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while block := await reader.read(BLOCK):
                await self._flows.wait()
                self._left -= len(block) if self._proxy.bad else 0
                if self._left <= 0:
                    fault, (self._left, self._fault) = self._fault, self._proxy.next_fault()
                    self._proxy.counts[fault] += 1
                    if fault == "cut":
                        return
                    if fault == "truncate":
                        writer.write(block[: self._proxy.part(len(block))])
                        await writer.drain()
                        return
                    self._flows.clear()
                    await asyncio.sleep(self._proxy.stall_s())
                    self._flows.set()
                writer.write(block)
                await writer.drain()
