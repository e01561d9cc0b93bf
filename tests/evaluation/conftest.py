"""Clips of the bundled calls, with the text and times of their turns, as a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls

RATE = 16_000
Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def engine():
    with Engine.load("demo", threads=1, max_streams=8) as engine:
        yield engine


@pytest.fixture(scope="session")
def turns(tmp_path_factory) -> Path:
    """A manifest of the first call's turns, one file each."""
    folder = tmp_path_factory.mktemp("turns")
    call = bundled_calls()[0]
    samples = read_samples(call.audio)
    rows = []
    for number, turn in enumerate(call.turns):
        own = samples[int((turn.start - 0.1) * RATE) : int((turn.end + 0.2) * RATE)]
        soundfile.write(folder / f"{number}.flac", own, RATE)
        rows.append(
            {
                "audio_filepath": f"{number}.flac",
                "text": turn.text,
                "duration": round(own.size / RATE, 3),
                "target_lang": turn.language,
                "turn": "first" if number == 0 else "later",
            }
        )
    write_rows(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def write_rows(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def manifest(tmp_path) -> Callable[[Rows], Path]:
    """Writes a manifest beside one second of quiet noise, `ok.wav`."""
    noise = np.random.default_rng(0).normal(0, 0.01, RATE).astype(np.float32)
    soundfile.write(tmp_path / "ok.wav", noise, RATE)
    return lambda rows: write_rows(tmp_path / "manifest.jsonl", rows)
