"""Copy demo calls into the package: `python scripts/bundle_calls.py build/training/demo_calls`.

The folder holds calls.jsonl, a call a line: audio (a file beside it), title, and turns with start,
end (seconds into the call; the caller stops at `end`), language and text. All calls are checked
before any is copied.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from nemotron_voice import languages
from nemotron_voice.audio import read_file
from nemotron_voice.cli.demo import Call, read_calls

TARGET = Path(__file__).parents[1] / "nemotron_voice" / "demo" / "calls"
SHORTEST_PAUSE_S = 0.3  # between turns: the caller must be heard to stop


def main(source: Path) -> None:
    """Check all calls of a folder, then copy them all."""
    calls = read_calls(source)
    for call in calls:
        _check(call)
    TARGET.mkdir(parents=True, exist_ok=True)
    for call in calls:
        shutil.copyfile(call.audio, TARGET / call.audio.name)
    shutil.copyfile(source / "calls.jsonl", TARGET / "calls.jsonl")


def _check(call: Call) -> None:
    audio = read_file(call.audio)
    duration_s = sum(block.size for block in audio) / audio.sample_rate
    before = -SHORTEST_PAUSE_S
    for turn in call.turns:
        if turn.language not in languages.BY_CODE:
            raise SystemExit(f"{call.title}: {turn.language} is no locale")
        pause_s = turn.start - before
        if not (pause_s >= SHORTEST_PAUSE_S and turn.start < turn.end):
            raise SystemExit(f"{call.title}: the turn at {turn.start} s follows after {pause_s} s")
        before = turn.end
    if before > duration_s:
        raise SystemExit(f"{call.title}: its last turn ends after its audio")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
