"""Synthesises test (b): held-out sentences in engines that were never trained on.

`python -m training.synthesise_test_b`

SVOX Pico speaks English, Spanish, French and Italian (Debian non-free `libttspico-utils`),
RHVoice's Letícia Brazilian Portuguese (Debian non-free `rhvoice`,
`rhvoice-brazilian-portuguese`). No word times: neither engine gives any.
"""

import argparse
import json
import logging
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.progress import track

from training.corpus import LANGUAGES, CorpusPlan

SENTENCES = 30
OUTPUT_RATE = 16_000
MARGIN_S = 0.15

_log = logging.getLogger(__name__)


def main() -> None:
    """Write `audio/test_b` and `manifests/test_b.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    for program, package in (("pico2wave", "libttspico-utils"), ("RHVoice-test", "rhvoice")):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: install Debian's non-free package {package}")
    manifest = arguments.work / "manifests" / "test_b.jsonl"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for language in track(LANGUAGES, "test (b)"):
        for item in CorpusPlan(language, arguments.seed).held_out("test_b", SENTENCES):
            samples = _trimmed(_spoken(item.text, language))
            path = Path("audio/test_b") / language / f"{item.id}.flac"
            (arguments.work / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(arguments.work / path, samples, OUTPUT_RATE, subtype="PCM_16")
            line = {
                "id": item.id,
                "audio_filepath": f"../{path.as_posix()}",
                "duration": round(len(samples) / OUTPUT_RATE, 4),
                "target_lang": language,
                "text": item.text,
                "kind": item.kind,
                "voice": "rhvoice-leticia" if language == "pt-BR" else "pico",
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    manifest.write_text("".join(lines), encoding="utf-8")
    _log.info("%d clips", len(lines))


def _spoken(text: str, language: str) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        if language == "pt-BR":
            command = ["RHVoice-test", "-p", "Leticia-F123", "-o", str(path)]
            subprocess.run(command, input=text.encode(), check=True, capture_output=True)
        else:
            command = ["pico2wave", "-l", language, "-w", str(path), "--", text]
            subprocess.run(command, check=True, capture_output=True)
        samples, rate = soundfile.read(path, dtype="float32")
    resampled: NDArray[np.float32] = soxr.resample(samples, rate, OUTPUT_RATE)
    return resampled


def _trimmed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut the silence at both ends to `MARGIN_S`."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    margin = round(MARGIN_S * OUTPUT_RATE)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]


if __name__ == "__main__":
    main()
