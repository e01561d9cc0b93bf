"""Reads synthetic clips back with Whisper base: a check that what was spoken can be understood.

`python -m training.read_back --split train --clips 6`

Whisper writes digits where the corpus writes words, so its error is an upper bound; what
matters is which speakers stand out.
"""

import argparse
import json
import logging
import re
from pathlib import Path

from faster_whisper import WhisperModel

_log = logging.getLogger(__name__)


def word_errors(reference: list[str], heard: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def main() -> None:
    """Log every clip with what Whisper heard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--split", default="train")
    parser.add_argument("--clips", type=int, default=6, help="sentences per language")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = str(arguments.work / "voices" / "whisper")
    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1)
    left: dict[str, int] = {}
    manifest = arguments.work / "manifests" / f"{arguments.split}.jsonl"
    for line in manifest.read_text(encoding="utf-8").splitlines():
        clip = json.loads(line)
        if clip["kind"] != "sentence" or clip["duration"] < 2 or clip["text"].count(" ") < 4:
            continue
        language = clip["target_lang"]
        if left.setdefault(language, arguments.clips) == 0:
            continue
        left[language] -= 1
        segments, info = model.transcribe(
            str(manifest.parent / clip["audio_filepath"]), beam_size=1
        )
        heard = " ".join(segment.text.strip() for segment in segments)
        words = [re.findall(r"[\w'-]+", text.lower()) for text in (clip["text"], heard)]
        _log.info(
            "%s as %s (%.2f) %d/%d %s\n    %s\n    %s",
            language, info.language, info.language_probability, word_errors(*words),
            len(words[0]), clip["voice"], clip["text"], heard,
        )  # fmt: skip


if __name__ == "__main__":
    main()
