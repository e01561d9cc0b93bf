"""The example agents as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls

AGENTS = Path(__file__).parents[1] / "examples" / "agents"


def run(example: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(AGENTS / example), *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )


def first_turn(folder: Path) -> tuple[Path, set[str]]:
    """A recording of the first turn of a bundled call, and its words."""
    call = bundled_calls()[0]
    turn = call.turns[0]
    samples = read_samples(call.audio)[: int((turn.end + 0.3) * 16_000)]
    path = folder / "caller.wav"
    soundfile.write(path, np.concatenate([samples, np.zeros(16_000)]), 16_000)
    return path, words_of(turn.text)


def words_of(text: str) -> set[str]:
    return {word.strip(",.?").casefold() for word in text.split()}
