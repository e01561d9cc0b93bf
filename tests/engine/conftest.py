"""An engine on a tiny random network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nemotron_voice import Engine
from nemotron_voice.config import EngineOptions
from nemotron_voice.engine import engine as engine_module
from nemotron_voice.model.graphs import launch_each
from tests.random_checkpoint import tiny_checkpoint


@pytest.fixture
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With "fixed", engines run as on a GPU, but for the graphs."""
    if getattr(request, "param", None) == "fixed":
        monkeypatch.setattr(engine_module, "capture_for", lambda device, *, graphs: launch_each)


@pytest.fixture
def make_tiny_engine(steps: None) -> Iterator[Callable[[], Engine]]:
    engines = []

    def make() -> Engine:
        engines.append(Engine(tiny_checkpoint(), EngineOptions(max_streams=16, threads=1)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def tiny_engine(make_tiny_engine: Callable[[], Engine]) -> Engine:
    return make_tiny_engine()
