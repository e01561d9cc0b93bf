"""The example agents, offline, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("livekit.agents")

from livekit.agents import inference

from benchmarks.clips import Clip
from nemotron_voice.cli.demo import bundled_calls

AGENTS = Path(__file__).parents[2] / "examples" / "agents"
needs_detector = pytest.mark.skipif(
    not hasattr(inference, "VAD"), reason="LiveKit 1.5 has no detector of its own"
)


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(AGENTS / name), *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=170,
    )


@needs_detector
def test_a_recording_is_heard_and_answered(tmp_path: Path) -> None:
    call = bundled_calls()[0]
    turn = call.turns[0]
    samples = Clip(call.audio, call.title, "en-US").samples()
    samples = np.concatenate([samples[: int((turn.end + 0.3) * 16_000)], np.zeros(16_000)])
    path = tmp_path / "caller.wav"
    soundfile.write(path, samples, 16_000)
    done = run("livekit_agent.py", "--offline", "--file", str(path))
    assert done.returncode == 0, done.stderr
    words = {word.strip(",.?").casefold() for word in turn.text.split()}
    heard = {word.strip(",.?").casefold() for word in done.stdout.split()}
    assert len(words & heard) >= len(words) / 2, done.stdout
    assert "[en, anna]" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["livekit_agent.py", "livekit_room_transcriber.py"])
def test_help_teaches(name: str) -> None:
    teaches = run(name, "--help")
    assert teaches.returncode == 0
    assert "--offline" in teaches.stdout
    assert "LIVEKIT_URL" in teaches.stdout
    assert "AGENT_STT" in teaches.stdout
