"""The bundled checkpoint and calls, end to end, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemotron_voice.cli.demo import Call, bundled_calls, plain_words, word_errors
from nemotron_voice.languages import BY_CODE

DEMO = Path(__file__).parents[1] / "nemotron_voice" / "demo"

# Of the checkpoint as shipped: measured 12.6 % and 47 of 49 turns (`nemotron-voice demo --fast`).
MOST_ERRORS = 0.18
LEAST_RIGHT = 0.9


def nemotron_voice(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from nemotron_voice.cli import app; app()", *arguments]
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        command, capture_output=True, check=False, text=True, env=environment, timeout=240
    )


@pytest.fixture(scope="module")
def call() -> Call:
    return bundled_calls()[0]


def test_the_calls_change_language_and_are_of_the_demo_s_languages() -> None:
    for call in bundled_calls():
        spoken = [turn.language for turn in call.turns]
        assert set(spoken) <= {"en-US", "es-ES", "fr-FR", "it-IT", "pt-BR"}
        assert len(set(spoken)) >= 2
        assert call.audio.is_file()


def test_the_demo_plays_and_is_mostly_right() -> None:
    result = nemotron_voice("demo", "--fast")
    assert result.returncode == 0, result.stderr
    row = next(line for line in result.stdout.splitlines() if line.startswith("│ all"))
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    right, turns = (int(count) for count in cells[4].split("/"))
    assert float(cells[3].removesuffix(" %")) <= 100 * MOST_ERRORS
    assert right >= LEAST_RIGHT * turns


def test_a_call_is_transcribed_as_json(call: Call) -> None:
    result = nemotron_voice(
        "transcribe", str(call.audio), "--model", "demo", "--format", "json", "--offline"
    )
    assert result.returncode == 0, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(event["is_final"] and event["file"] == str(call.audio) for event in events)
    assert {event["language"] for event in events} <= {*BY_CODE, None}
    assert [event["start"] for event in events] == sorted(event["start"] for event in events)
    script = plain_words(" ".join(turn.text for turn in call.turns))
    heard = plain_words(" ".join(event["text"] for event in events))
    assert word_errors(script, heard) <= MOST_ERRORS * len(script)


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--language", "de-DE"], 2, "en-US, es-ES, fr-FR, it-IT, pt-BR"),
        (["--language", "no"], 2, "nb-NO or nn-NO"),
    ],
)
def test_what_the_demo_can_t_do_is_refused_by_name(
    arguments: list[str], code: int, what: str, call: Call
) -> None:
    result = nemotron_voice("transcribe", str(call.audio), "--model", "demo", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert what in result.stderr
    assert "Traceback" not in result.stderr
