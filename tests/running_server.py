"""A real server in a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nemotron_voice import Engine
from nemotron_voice.server import ServerOptions, create_app
from nemotron_voice.server.app import Service
from nemotron_voice.server.run import Server, make_server


@dataclass(frozen=True)
class RunningServer:
    """Where it listens, and what it holds."""

    port: int
    service: Service
    server: Server

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def running_server(
    engine: Engine, options: ServerOptions | None = None, *, port: int | None = None
) -> Iterator[RunningServer]:
    """Serve `engine` until the block ends."""
    app = create_app(engine, options)
    port = port or free_port()
    server = make_server(app, host="127.0.0.1", port=port)
    thread = threading.Thread(target=server.run, name="test-server", daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield RunningServer(port, app.state.service, server)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"


async def within(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


async def all_is_free(server: RunningServer, within_s: float = 5.0) -> None:
    """No stream, no connection of ours, none of uvicorn's."""
    await within(
        lambda: (
            server.service.engine.stats().streams == 0
            and not server.service.connections
            and not server.server.server_state.connections
        ),
        within_s,
    )
