"""Real servers, each on an engine of its own with the bundled checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from nemotron_voice import Engine
from nemotron_voice.server import ServerOptions
from tests.running_server import RunningServer, running_server

Serve = Callable[..., RunningServer]


def _start(
    ends: ExitStack, options: ServerOptions | None = None, **engine_options: Any
) -> RunningServer:
    engine = ends.enter_context(Engine.load("demo", **{"threads": 1} | engine_options))
    return ends.enter_context(running_server(engine, options))


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """One open server for all tests that need no limits of their own."""
    with ExitStack() as ends:
        yield _start(ends)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(ServerOptions(idle_s=1), max_streams=2)`: a server that ends with the test."""
    with ExitStack() as ends:
        yield lambda options=None, **engine_options: _start(ends, options, **engine_options)
