"""An engine on a tiny random network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nemotron_voice import Engine
from nemotron_voice.config import EngineOptions
from tests.random_checkpoint import tiny_checkpoint


@pytest.fixture
def make_tiny_engine() -> Iterator[Callable[[], Engine]]:
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
