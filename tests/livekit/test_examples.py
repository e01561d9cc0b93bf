"""The example agents, offline, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("livekit.agents")

from livekit.agents import inference

from tests.example_runs import first_turn, run, words_of

needs_detector = pytest.mark.skipif(
    not hasattr(inference, "VAD"), reason="LiveKit 1.5 has no detector of its own"
)


@needs_detector
def test_a_recording_is_heard_and_answered(tmp_path: Path) -> None:
    path, words = first_turn(tmp_path)
    done = run("livekit_agent.py", "--offline", "--file", str(path))
    assert done.returncode == 0, done.stderr
    assert len(words & words_of(done.stdout)) >= len(words) / 2, done.stdout
    assert "[en, anna]" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["livekit_agent.py", "livekit_room_transcriber.py"])
def test_help_teaches(name: str) -> None:
    teaches = run(name, "--help")
    assert teaches.returncode == 0
    assert "--offline" in teaches.stdout
    assert "LIVEKIT_URL" in teaches.stdout
    assert "AGENT_STT" in teaches.stdout
