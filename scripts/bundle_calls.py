"""Copy demo calls into the package: `python scripts/bundle_calls.py build/training/demo_calls`.

The folder holds calls.jsonl, a call a line: audio (a file beside it, any format), title, and turns
with start, end (seconds into the call; the caller stops at `end`), language and text. Audio becomes
FLAC, PCM16 mono at its own rate; everything is checked before anything is written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np

from nemotron_voice import languages
from nemotron_voice.audio import read_file
from nemotron_voice.cli.demo import Call, read_calls
from nemotron_voice.resampler import Samples

TARGET = Path(__file__).parents[1] / "nemotron_voice" / "demo" / "calls"
SHORTEST_PAUSE_S = 0.3  # between turns: the caller must be heard to stop


def main(source: Path) -> None:
    """Check all calls of a folder, then write them all."""
    calls = read_calls(source)
    audio = [_checked(call) for call in calls]
    TARGET.mkdir(parents=True, exist_ok=True)
    lines = []
    for call, (samples, sample_rate) in zip(calls, audio, strict=True):
        name = f"{call.audio.stem}.flac"
        _write_flac(TARGET / name, samples, sample_rate)
        turns = [
            {"start": turn.start, "end": turn.end, "language": turn.language, "text": turn.text}
            for turn in call.turns
        ]
        line = {"audio": name, "title": call.title, "turns": turns}
        lines.append(json.dumps(line, ensure_ascii=False))
    (TARGET / "calls.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _checked(call: Call) -> tuple[Samples, int]:
    file = read_file(call.audio)
    samples = np.concatenate(list(file))
    before = -SHORTEST_PAUSE_S
    for turn in call.turns:
        if turn.language not in languages.BY_CODE:
            raise SystemExit(f"{call.title}: {turn.language} is no locale")
        pause_s = turn.start - before
        if not (pause_s >= SHORTEST_PAUSE_S and turn.start < turn.end):
            raise SystemExit(f"{call.title}: the turn at {turn.start} s follows after {pause_s} s")
        before = turn.end
    if before > samples.size / file.sample_rate:
        raise SystemExit(f"{call.title}: its last turn ends after its audio")
    return samples, file.sample_rate


def _write_flac(path: Path, samples: Samples, sample_rate: int) -> None:
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm[None], "s16", "mono")
    frame.sample_rate = sample_rate
    with av.open(path, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=sample_rate, layout="mono")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
