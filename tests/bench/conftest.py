"""An engine on a tiny random network, and a caller who pauses often."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nemotron_voice import Engine
from nemotron_voice.bench import trial
from nemotron_voice.bench.speech import RATE, Recording, pauses, speech_like
from nemotron_voice.config import EngineOptions
from tests.random_checkpoint import tiny_checkpoint


@pytest.fixture
def engine() -> Iterator[Engine]:
    options = EngineOptions(max_streams=16, threads=1)
    with Engine(tiny_checkpoint(), options) as engine:
        yield engine


@pytest.fixture
def pausing(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Half a second of sound, half a second of silence, over and over."""
    sound = speech_like(8.0)
    sound[np.arange(sound.size) % RATE >= RATE // 2] = 0.0
    recording = Recording(sound, pauses(sound))
    assert len(recording.pauses) >= 7
    monkeypatch.setattr(trial, "recordings", lambda _: [recording])
    monkeypatch.setattr(trial, "_WARM_S", 0.5)
    return recording
