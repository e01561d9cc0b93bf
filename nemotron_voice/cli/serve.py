"""`nemotron-voice serve`: an engine behind a socket."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING

from nemotron_voice.cli import screen
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.server import ServerOptions, create_app
from nemotron_voice.server.run import freeze_heap, make_server

if TYPE_CHECKING:
    from nemotron_voice.engine import Engine


def check_exposure(host: str, *, has_keys: bool, no_auth: bool) -> None:
    """Refuse to serve a network without keys, unless that is asked for.

    Raises:
        ConfigurationError.
    """
    if has_keys or no_auth or is_loopback(host):
        return
    raise ConfigurationError(
        f"--host {host} lets others connect, and there is no API key; give --api-key-file FILE, "
        "or --no-auth if the network itself keeps strangers out"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(engine: Engine, options: ServerOptions, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl+C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    app = create_app(engine, options)
    server = make_server(app, host=host, port=port)
    shown = "localhost" if is_loopback(host) else host
    out = screen.out()
    out.print(
        f"[bold]{engine.model_name}[/bold], {engine.options.max_streams} streams, "
        f"{len(engine.languages)} languages"
    )
    out.print(f"  page        http://{shown}:{port}/")
    out.print(f"  streams     ws://{shown}:{port}/v1/listen   (Deepgram's protocol, RemoteEngine)")
    out.print(f"  files       http://{shown}:{port}/v1/audio/transcriptions   (OpenAI's form)")
    out.print(f"  watch       http://{shown}:{port}/metrics, /healthz, /readyz")
    out.print("Ctrl+C ends it; what was said is still delivered.")
    freeze_heap()
    server.run()
    if not server.started:
        raise ConfigurationError(
            f"port {port} of {host} can't be had; another server may hold it: choose --port"
        )
