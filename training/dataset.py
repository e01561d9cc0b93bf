"""Clips from the growing manifests, recombined, distorted and packed into batches with targets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import soundfile
import soxr
import torch

from nemotron_voice.languages import AUTO_PROMPT_INDEX, PROMPT_DICTIONARY
from training.augment import RATE, Augmenter
from training.features import LogMel
from training.model_config import MEL_MEAN
from training.targets import FRAME_S, TERMINALS, Nodes, TargetMaker, Targets, TimedWord, path_nodes

MEL_FRAME = 160
ENCODER_FRAME = 1280
# Batches come in few shapes: oneDNN compiles its kernels anew for every shape (up to seconds).
BUCKETS = (28, 36, 44, 52, 60, 72, 88, 104, 128, 160, 208)


@dataclass(frozen=True, slots=True)
class Clip:
    """A synthesised utterance."""

    samples: np.ndarray  # int16
    language: str
    text: str
    words: tuple[TimedWord, ...]

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / RATE


class Corpus:
    """The clips of one split; `refresh` takes up manifest lines written since."""

    def __init__(self, work: Path, split: str) -> None:
        self.work = work
        self.path = work / "manifests" / f"{split}.jsonl"
        self.clips: list[Clip] = []
        self.lowered: set[str] = set()
        self._read = 0

    def refresh(self) -> None:
        """Read new whole lines; lines whose words don't match their text are left out."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                clip = read_clip(self.path.parent, json.loads(line))
                if clip is not None:
                    self.clips.append(clip)
                    self.lowered.update(w.text for w in clip.words if w.text[0].islower())

    @property
    def hours(self) -> float:
        """Audio in all."""
        return sum(clip.seconds for clip in self.clips) / 3600


def read_clip(manifests: Path, entry: dict[str, Any]) -> Clip | None:
    """A manifest entry and its audio, whose path begins at the manifests' folder."""
    words = tuple(
        TimedWord(w["word"], float(w["start"]), float(w["end"]), entry["target_lang"])
        for w in entry["words"]
    )
    if [w.text for w in words] != entry["text"].split():
        return None
    samples, rate = soundfile.read(manifests / entry["audio_filepath"], dtype="int16")
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE)
    return Clip(samples, entry["target_lang"], entry["text"], words)


@dataclass(frozen=True, slots=True)
class Take:
    """What one row of a batch is made from: samples at 16 kHz and the words in them."""

    samples: np.ndarray
    words: list[TimedWord]


class Composer:
    """Makes takes of clips: alone, several in a row, or words cut out and joined."""

    def __init__(self, corpus: Corpus, rng: np.random.Generator) -> None:
        self.corpus = corpus
        self.rng = rng
        self.joined = joined_share(0.0)
        self.by_language: dict[str, list[int]] = {}

    def index(self) -> None:
        """Take up the corpus as it is now."""
        self.by_language = {}
        for number, clip in enumerate(self.corpus.clips):
            self.by_language.setdefault(clip.language, []).append(number)

    def plan(self) -> list[list[int]]:
        """One epoch: every clip once, some with company."""
        clips, rng = self.corpus.clips, self.rng
        plans = []
        for first in rng.permutation(len(clips)):
            group = [int(first)]
            if rng.random() < 0.35:
                same = rng.random() < 0.5
                pool = self.by_language[clips[first].language] if same else range(len(clips))
                group.append(int(pool[rng.integers(len(pool))]))
                if rng.random() < 0.2:
                    group.append(int(rng.integers(len(clips))))
            plans.append(group)
        return plans

    def take(self, group: list[int]) -> Take:
        """Samples and words of a plan, with silence before, between and after."""
        rng = self.rng
        parts: list[np.ndarray] = [_silence(rng.uniform(0.0, 0.4))]
        words: list[TimedWord] = []
        at = len(parts[0])
        for place, number in enumerate(group):
            if place:
                gap = _silence(rng.uniform(0.1, 0.8))
                parts.append(gap)
                at += len(gap)
            clip = self.corpus.clips[number]
            if rng.random() < self.joined:
                samples, timed = self._joined_words(clip.language)
            else:
                samples, timed = clip.samples.astype(np.float32) / 32768, list(clip.words)
            factor = rng.uniform(0.85, 1.2) if rng.random() < 0.7 else 1.0
            if factor != 1.0:
                samples = soxr.resample(samples, RATE, RATE * factor, "LQ")
            shift = at / RATE
            words += [
                TimedWord(w.text, shift + w.start * factor, shift + w.end * factor, w.language)
                for w in timed
            ]
            parts.append(samples)
            at += len(samples)
        parts.append(_silence(rng.uniform(0.45, 0.9)))
        return Take(np.concatenate(parts), words)

    def _joined_words(self, language: str) -> tuple[np.ndarray, list[TimedWord]]:
        """A sentence of no grammar: spans of words of several clips."""
        rng = self.rng
        pool = self.by_language[language]
        parts: list[np.ndarray] = [_silence(0.1)]
        words: list[TimedWord] = []
        at = len(parts[0])
        wanted = int(rng.choice([1, 2, 3, 4, 5, 7]))
        while len(words) < wanted:
            clip = self.corpus.clips[int(pool[rng.integers(len(pool))])]
            first = int(rng.integers(len(clip.words)))
            last = min(first + int(rng.choice([1, 1, 2, 3])), len(clip.words)) - 1
            start, end = _cuts(clip, first, last)
            span = clip.samples[int(start * RATE) : int(end * RATE)].astype(np.float32) / 32768
            span = _faded(span)
            shift = at / RATE - start
            for word in clip.words[first : last + 1]:
                text = self._as_inner(word.text)
                words.append(TimedWord(text, word.start + shift, word.end + shift, language))
            parts.append(span)
            at += len(span)
        head, tail = words[0], words[-1]
        words[0] = TimedWord(_capitalised(head.text), head.start, head.end, language)
        tail = words[-1]
        words[-1] = TimedWord(tail.text.rstrip(",") + ".", tail.start, tail.end, language)
        parts.append(_silence(0.1))
        return np.concatenate(parts), words

    def _as_inner(self, text: str) -> str:
        """A word as it stands inside a sentence."""
        text = text.strip(TERMINALS + ",¿¡") or text
        lowered = text[0].lower() + text[1:]
        return lowered if lowered in self.corpus.lowered else text


def _cuts(clip: Clip, first: int, last: int) -> tuple[float, float]:
    """Where to cut around words: in the middle of the gaps."""
    words = clip.words
    before = words[first - 1].end if first else max(words[0].start - 0.1, 0.0)
    after = min(words[-1].end + 0.1, clip.seconds)
    if last + 1 < len(words):
        after = words[last + 1].start
    start = max((before + words[first].start) / 2, words[first].start - 0.1)
    return start, min((after + words[last].end) / 2, words[last].end + 0.1)


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def _faded(samples: np.ndarray, count: int = 64) -> np.ndarray:
    if len(samples) > 2 * count:
        ramp = np.linspace(0.0, 1.0, count, dtype=np.float32)
        samples[:count] *= ramp
        samples[-count:] *= ramp[::-1]
    return samples


@dataclass(slots=True)
class Batch:
    """Tensors of one step."""

    mel: torch.Tensor  # [rows, 128, mel frames]
    prompt: torch.Tensor  # [rows]
    tokens: torch.Tensor  # [rows, longest], padded with 0
    letters: torch.Tensor  # [rows, encoder frames]
    node_row: torch.Tensor  # [nodes] and so on
    node_frame: torch.Tensor
    node_written: torch.Tensor
    node_step: torch.Tensor
    node_weight: torch.Tensor
    token_counts: torch.Tensor  # [rows]
    seconds: float
    epoch: int
    hours: float

    def to(self, device: torch.device) -> Batch:
        """Move every tensor."""
        moved = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name in self.__slots__
            for value in [getattr(self, name)]
        }
        return Batch(**moved)


class Batches(torch.utils.data.IterableDataset[Batch]):
    """Endless batches of about `batch_s` seconds, taking up new clips at each epoch."""

    def __init__(
        self,
        work: Path,
        log_mel: LogMel,
        blank: int,
        *,
        batch_s: float = 64.0,
        seed: int = 0,
        augment: bool = True,
        limit: int | None = None,
    ) -> None:
        self.work, self.log_mel, self.blank = work, log_mel, blank
        self.batch_s, self.seed, self.augment, self.limit = batch_s, seed, augment, limit
        # The trainer says how far the run is while this works in a process of its own.
        self.progress = torch.multiprocessing.get_context("fork").Value("d", 0.0)

    def __iter__(self) -> Iterator[Batch]:
        """Work as one loader process."""
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        tokenizer = sentencepiece.SentencePieceProcessor(
            model_file=str(self.work / "tokenizer" / "tokenizer.model")
        )
        maker = TargetMaker(tokenizer)
        corpus = Corpus(self.work, "train")
        composer = Composer(corpus, rng)
        augmenter = Augmenter(rng) if self.augment else None
        epoch = 0
        waiting: dict[int, list[Take]] = {size: [] for size in BUCKETS}
        while True:
            corpus.refresh()
            composer.joined = joined_share(self.progress.value)
            del corpus.clips[self.limit or len(corpus.clips) :]
            composer.index()
            if augmenter is not None:
                augmenter.learn_babble(
                    [clip.samples.astype(np.float32) / 32768 for clip in corpus.clips[-200:]]
                )
            plans = composer.plan() if self.augment else [[n] for n in range(len(corpus.clips))]
            for plan in plans:
                take = composer.take(plan) if self.augment else plain(corpus, plan)
                needed = len(take.samples) // ENCODER_FRAME + 1
                if needed > BUCKETS[-1]:
                    continue
                frames = next(size for size in BUCKETS if size >= needed)
                waiting[frames].append(take)
                if len(waiting[frames]) * frames >= self.batch_s / FRAME_S:
                    batch = self._pack(waiting.pop(frames), frames, maker, augmenter, rng)
                    waiting[frames] = []
                    batch.epoch, batch.hours = epoch, corpus.hours
                    yield batch
            epoch += 1

    def _pack(
        self,
        takes: list[Take],
        frames: int,
        maker: TargetMaker,
        augmenter: Augmenter | None,
        rng: np.random.Generator,
    ) -> Batch:
        samples = np.zeros((len(takes), frames * ENCODER_FRAME), np.float32)
        share = distorted_share(self.progress.value)
        for row, take in enumerate(takes):
            samples[row, : len(take.samples)] = (
                augmenter(take.samples) if augmenter and rng.random() < share else take.samples
            )
        mel = self.log_mel(torch.from_numpy(samples))
        if augmenter:
            for row in mel.numpy():
                augmenter.another_throat(row)
                if rng.random() < 2 * share:
                    augmenter.mask(row, MEL_MEAN)
        # Encoder frame k needs mel frames up to 8k; a last one, past the samples, would be cut off.
        targets, prompts = [], []
        for take in takes:
            languages = {word.language for word in take.words}
            forced = len(languages) == 1 and rng.random() < 0.55
            prompts.append(
                PROMPT_DICTIONARY[take.words[0].language] if forced else AUTO_PROMPT_INDEX
            )
            targets.append(maker.make(take.words, frames, tags=not forced))
        return _batch(mel, prompts, targets, self.blank, sum(len(t.samples) for t in takes) / RATE)


def distorted_share(progress: float) -> float:
    """Share of rows that are distorted, by the share of the run that is over.

    None at first: distortion from the start kept a deaf network deaf (letters at 1.6 nats a frame
    after 475 steps; without it 1.4 after 200).
    """
    return min(max((progress - 0.1) / 0.3, 0.0), 0.4)


def joined_share(progress: float) -> float:
    """Share of clips replaced by words without grammar: fewer as the network learns to listen."""
    return 0.2 - 0.15 * progress


def plain(corpus: Corpus, plan: list[int]) -> Take:
    """A clip as it is, with 0.6 s of silence behind: what is overfitted to, and evaluated."""
    clip = corpus.clips[plan[0]]
    samples = np.concatenate([clip.samples.astype(np.float32) / 32768, _silence(0.6)])
    return Take(samples, list(clip.words))


def _batch(
    mel: torch.Tensor, prompts: list[int], targets: list[Targets], blank: int, seconds: float
) -> Batch:
    counts = [len(t.tokens) for t in targets]
    tokens = np.zeros((len(targets), max(counts)), np.int64)
    nodes: list[Nodes] = []
    for row, target in enumerate(targets):
        tokens[row, : counts[row]] = target.tokens
        nodes.append(path_nodes(target, blank, token_weight=1.0, stray_weight=0.3))
    rows = np.concatenate([np.full(len(n.frame), row) for row, n in enumerate(nodes)])
    return Batch(
        mel=mel,
        prompt=torch.tensor(prompts),
        tokens=torch.from_numpy(tokens),
        letters=torch.from_numpy(np.stack([t.letters for t in targets])),
        node_row=torch.from_numpy(rows),
        node_frame=torch.from_numpy(np.concatenate([n.frame for n in nodes])),
        node_written=torch.from_numpy(np.concatenate([n.written for n in nodes])),
        node_step=torch.from_numpy(np.concatenate([n.step for n in nodes])),
        node_weight=torch.from_numpy(np.concatenate([n.weight for n in nodes]).astype(np.float32)),
        token_counts=torch.tensor(counts),
        seconds=seconds,
        epoch=0,
        hours=0.0,
    )
