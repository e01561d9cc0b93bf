"""Synthesises the demo calls: FLAC with a JSON Lines script, and small Ogg/Opus to bundle.

`python -m training.synthesise_demo_calls`
"""

import argparse
import json
import logging
import random
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.progress import track

from training.corpus import LANGUAGES, CorpusPlan
from training.corpus.plan import held_out_split
from training.demo_calls import DEMO_CALLS, DemoCall
from training.kokoro import OUTPUT_RATE, Kokoro
from training.kokoro_graph import fetch
from training.voices import HELD_OUT

_log = logging.getLogger(__name__)


def main() -> None:
    """Write `demo_calls/<name>.flac` and `.ogg`, and `calls.jsonl` with a call a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    trained = {
        item.text for language in LANGUAGES for item in CorpusPlan(language, arguments.seed).train
    }
    for call in DEMO_CALLS:
        _check(call, trained)
    folder = arguments.work / "demo_calls"
    folder.mkdir(parents=True, exist_ok=True)
    fetch(arguments.work / "voices")
    kokoro = Kokoro(arguments.work / "voices")
    scripts = []
    for call in track(DEMO_CALLS, "demo calls"):
        samples, lines = _spoken(call, kokoro, random.Random(f"{arguments.seed}/{call.name}"))
        soundfile.write(folder / f"{call.name}.flac", samples, OUTPUT_RATE, subtype="PCM_16")
        # The bundled form: Opus at about 33 kbit/s, 570 KB in all; a bundle may weigh 700 KB.
        ogg = folder / f"{call.name}.ogg"
        soundfile.write(
            ogg, samples, OUTPUT_RATE, format="OGG", subtype="OPUS", compression_level=0.86
        )
        scripts.append({"audio": ogg.name, "title": call.title, "turns": lines})
        _log.info("%s: %.1f s, %d bytes", call.name, len(samples) / OUTPUT_RATE, ogg.stat().st_size)
    text = "".join(json.dumps(script, ensure_ascii=False) + "\n" for script in scripts)
    (folder / "calls.jsonl").write_text(text, encoding="utf-8")


def _check(call: DemoCall, trained: set[str]) -> None:
    for turn in call.turns:
        if held_out_split(turn.text) is None or turn.text in trained:
            raise ValueError(f"{call.name}: {turn.text!r} belongs to the training sentences")
        if call.voices[turn.language] not in HELD_OUT[turn.language]:
            raise ValueError(f"{call.name}: {call.voices[turn.language]} isn't held out")


def _spoken(
    call: DemoCall, kokoro: Kokoro, rng: random.Random
) -> tuple[NDArray[np.float32], list[dict[str, object]]]:
    pieces = [np.zeros(round(0.4 * OUTPUT_RATE), np.float32)]
    lines: list[dict[str, object]] = []
    at = len(pieces[0])
    for turn in call.turns:
        voice = call.voices[turn.language]
        speech = kokoro.speak(turn.text, turn.language, voice, speed=1.0, margin_s=0.05)
        start_s = at / OUTPUT_RATE
        lines.append(
            {
                "text": turn.text,
                "language": turn.language,
                "start": round(start_s + speech.words[0].start_s, 3),
                "end": round(start_s + speech.words[-1].end_s, 3),
            }
        )
        pause = np.zeros(round(rng.uniform(0.5, 0.9) * OUTPUT_RATE), np.float32)
        pieces += [speech.samples, pause]
        at += len(speech.samples) + len(pause)
    return np.concatenate(pieces), lines


if __name__ == "__main__":
    main()
