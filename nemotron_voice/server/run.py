"""The app on uvicorn, ended in order: on SIGTERM nobody new, finals delivered, then the end."""

from __future__ import annotations

import gc
import logging
import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.server.app import Service
from nemotron_voice.server.sockets import HttpProtocol, WebSocketProtocol

_log = logging.getLogger(__name__)

PING_S = 20.0  # a client that doesn't answer a ping for so long is gone


class Server(uvicorn.Server):
    """Drains the app's connections before uvicorn closes them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, drain, then end as uvicorn does."""
        for server in self.servers:
            server.close()
        service: Service = self.config.app.state.service  # type: ignore[union-attr]
        if service.connections:
            _log.info("ending %d connections", len(service.connections))
        await service.drain()
        if service.connections:  # they don't read what they are told: nobody waits for them
            for protocol in list(self.server_state.connections):
                if isinstance(protocol, WebSocketProtocol) and not protocol.close_sent:
                    protocol.transport.abort()
        await super().shutdown(sockets)


def make_server(app: Starlette, *, host: str, port: int) -> Server:
    """A server of an app made by `create_app`; `server.run()` blocks until a signal."""
    service: Service = app.state.service
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=HttpProtocol,
            ws=WebSocketProtocol,
            ws_max_size=service.options.max_message_bytes,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
            ws_per_message_deflate=False,  # speech doesn't shrink, and bombs would
            server_header=False,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=2,
        )
    )


def freeze_heap() -> None:
    """Tell the garbage collector that what is loaded by now is here to stay.

    To be called once, by a process that is its own, after the model has been loaded and warmed up:
    otherwise a full collection looks at every object of PyTorch's and the model's over and over,
    which was measured elsewhere to stop all callers for 0.4 s.
    """
    gc.collect()
    gc.freeze()


def read_keys(path: Path) -> tuple[str, ...]:
    """API keys from a file: one a line; empty lines and lines that begin with # don't count.

    Raises:
        ConfigurationError: the file can't be read or holds no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--api-key-file {path} can't be read: {error}") from error
    keys = tuple(
        line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")
    )
    if not keys:
        raise ConfigurationError(f"--api-key-file {path} holds no key; write one a line")
    return keys
