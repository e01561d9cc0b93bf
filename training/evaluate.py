"""Word error rate and language accuracy of a checkpoint through NeMo, whole utterances.

One command: `python -m training.evaluate --work build/training --split test_a`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch

from nemotron_voice.languages import AUTO_PROMPT_INDEX, PROMPT_DICTIONARY
from training.dataset import ENCODER_FRAME, Clip, Corpus
from training.features import LogMel
from training.model_config import LEFT_CONTEXT, LOOKAHEADS, add_prompt

TAG = re.compile(r"<([a-z]{2}-[A-Z]{2})>")


@dataclass(frozen=True, slots=True)
class Heard:
    """What was decoded from a clip: its text without tags, and the first tag."""

    text: str
    language: str | None


def decode(
    model: Any, log_mel: LogMel, clips: list[Clip], *, lookahead: int, auto: bool, batch: int = 20
) -> list[Heard]:
    """Greedy decoding of clips with a look-ahead's mask."""
    model.encoder.set_default_att_context_size([LEFT_CONTEXT, lookahead])
    device = next(model.parameters()).device
    order = sorted(range(len(clips)), key=lambda n: clips[n].seconds)
    heard: dict[int, Heard] = {}
    for at in range(0, len(order), batch):
        numbers = order[at : at + batch]
        # Silence behind, as an engine's flush appends it.
        takes = [np.pad(clips[n].samples / np.float32(32768), (0, 9600)) for n in numbers]
        frames = max(len(take) for take in takes) // ENCODER_FRAME + 1
        samples = torch.zeros(len(takes), frames * ENCODER_FRAME)
        for row, take in enumerate(takes):
            samples[row, : len(take)] = torch.from_numpy(take)
        prompt = torch.tensor(
            [AUTO_PROMPT_INDEX if auto else PROMPT_DICTIONARY[clips[n].language] for n in numbers]
        )
        with torch.inference_mode():
            mel = log_mel(samples).to(device)
            length = torch.full((len(takes),), mel.shape[2], device=device)
            encoded, _ = model.encoder(audio_signal=mel, length=length)
            encoded = add_prompt(model, encoded.transpose(1, 2)[:, :frames], prompt.to(device))
            found = model.decoding.rnnt_decoder_predictions_tensor(
                encoder_output=encoded.transpose(1, 2),
                encoded_lengths=torch.full((len(takes),), frames, device=device),
                return_hypotheses=False,
            )
        for number, hypothesis in zip(numbers, found, strict=True):
            text = hypothesis if isinstance(hypothesis, str) else hypothesis.text
            tags = TAG.findall(text)
            bare = re.sub(r"\s+", " ", TAG.sub(" ", text)).strip()
            heard[number] = Heard(bare, tags[0] if tags else None)
    return [heard[n] for n in range(len(clips))]


def plain_words(text: str) -> str:
    """Lower case, no punctuation but apostrophes and hyphens inside words."""
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s'-]", " ", text.lower())).strip()


@dataclass(slots=True)
class Score:
    """Errors counted over clips."""

    clips: int = 0
    errors: int = 0
    words: int = 0
    written_errors: int = 0
    written_words: int = 0
    right_language: int = 0

    def add(self, clip: Clip, heard: Heard) -> None:
        """Count one clip."""
        self.clips += 1
        measured = jiwer.process_words(plain_words(clip.text), plain_words(heard.text))
        self.errors += measured.substitutions + measured.deletions + measured.insertions
        self.words += measured.hits + measured.substitutions + measured.deletions
        measured = jiwer.process_words(clip.text, heard.text)
        self.written_errors += measured.substitutions + measured.deletions + measured.insertions
        self.written_words += measured.hits + measured.substitutions + measured.deletions
        self.right_language += heard.language == clip.language

    def figures(self) -> dict[str, float]:
        """Percentages."""
        return {
            "clips": self.clips,
            "wer": round(100 * self.errors / max(self.words, 1), 2),
            "written_wer": round(100 * self.written_errors / max(self.written_words, 1), 2),
            "language": round(100 * self.right_language / max(self.clips, 1), 1),
        }


def evaluate(
    model: Any, log_mel: LogMel, clips: list[Clip], *, lookahead: int, auto: bool
) -> tuple[dict[str, dict[str, float]], list[Heard]]:
    """Figures of all clips and of each language, and what was heard."""
    heard = decode(model, log_mel, clips, lookahead=lookahead, auto=auto)
    scores: dict[str, Score] = defaultdict(Score)
    for clip, one in zip(clips, heard, strict=True):
        scores["all"].add(clip, one)
        scores[clip.language].add(clip, one)
    return {name: score.figures() for name, score in sorted(scores.items())}, heard


def main() -> None:
    """Command line."""
    from training.checkpoint import load_weights, open_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--split", default="test_a")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--modes", type=int, nargs="*", default=sorted(LOOKAHEADS))
    parser.add_argument("--show", action="store_true", help="print every clip with an error")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, log_mel = open_model(args.work)
    state = load_weights(args.work, model)
    corpus = Corpus(args.work, args.split)
    corpus.refresh()
    clips = corpus.clips[: args.limit]
    print(f"{len(clips)} clips, checkpoint of step {state['step']}")
    results = {}
    for lookahead in args.modes:
        for auto in (False, True):
            figures, heard = evaluate(model, log_mel, clips, lookahead=lookahead, auto=auto)
            name = f"{80 * (lookahead + 1)} ms {'auto' if auto else 'forced'}"
            results[name] = figures
            row = " ".join(f"{k} {v['wer']}" for k, v in figures.items())
            whole = figures["all"]
            print(f"{name}: {row} | written {whole['written_wer']} language {whole['language']}")
            if args.show:
                for clip, one in zip(clips, heard, strict=True):
                    wrong = plain_words(clip.text) != plain_words(one.text)
                    if wrong or (auto and one.language != clip.language):
                        print(f"  {clip.language} {clip.text!r} -> {one.text!r} {one.language}")
    path = args.work / f"evaluation-{args.split}.json"
    path.write_text(json.dumps({"step": state["step"], "figures": results}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
