"""Decides which sentences, short phrases and word salads each split holds, from one seed."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.corpus.grammar import Grammar, capitalised

Kind = Literal["sentence", "short", "salad"]

# Shares of the training clips. The salads keep the prediction network from learning the
# grammar instead of listening; the short phrases are what callers mostly answer.
SHORT_SHARE = 0.25
SALAD_SHARE = 0.17

MARKS = ".,?!¿¡।"
_HELD_OUT_PERCENT = 12
_MIN_TRAIN_COUNT = 5


@dataclass(frozen=True, slots=True)
class Utterance:
    """One thing to be spoken."""

    id: str
    language: str
    text: str
    kind: Kind


class CorpusPlan:
    """The texts of one language, split so that no held-out sentence is ever trained on."""

    def __init__(
        self, language: str, seed: int = 1, train_size: int = 2500, grammar: Path | None = None
    ) -> None:
        """Generate `train_size` training utterances and the pool of held-out sentences.

        `grammar` is a folder of grammars; the restaurant's phone line by default.
        """
        self.language = language
        self.grammar = Grammar(language, grammar)
        self._stop = "।" if language == "hi-IN" else "."
        self._seed = seed
        self._spoken: Counter[str] = Counter()
        self._vocabulary = grammar_vocabulary(self.grammar, self._rng("vocabulary"))
        self.train = list(self._train(train_size))
        self.counts = Counter(word for item in self.train[:900] for word in words_of(item.text))

    def held_out(self, split: str, size: int, longest_words: int = 40) -> list[Utterance]:
        """`size` sentences of `split` ("dev", "test_a", "test_b", "demo"), disjoint from all."""
        rng = self._rng(split)
        # A short phrase can be a whole sentence ("Yes, please."), and those aren't split.
        trained = {item.text for item in self.train}
        found: dict[str, None] = {}
        while len(found) < size:
            text = self.grammar.sentence(rng)
            words = words_of(text)
            if held_out_split(text) != split or text in trained:
                continue
            if not 3 <= len(words) <= longest_words:
                continue
            if all(self.counts[word] >= _MIN_TRAIN_COUNT for word in words):
                found[text] = None
        return [
            Utterance(f"{self.language}-{split}-{n:05d}", self.language, text, "sentence")
            for n, text in enumerate(found)
        ]

    def sentences(self, size: int) -> list[str]:
        """`size` different training texts, for the SentencePiece model."""
        rng = self._rng("text")
        found: dict[str, None] = {}
        while len(found) < size:
            found[self._train_text(rng)[0]] = None
        return list(found)

    def _train(self, size: int) -> Iterator[Utterance]:
        rng = self._rng("train")
        seen: Counter[str] = Counter()
        made = 0
        while made < size:
            text, kind = self._train_text(rng)
            # The same words may return in other voices.
            if seen[text] >= (8 if kind == "short" else 3):
                continue
            seen[text] += 1
            self._spoken.update(words_of(text))
            yield Utterance(f"{self.language}-train-{made:05d}", self.language, text, kind)
            made += 1

    def _train_text(self, rng: random.Random) -> tuple[str, Kind]:
        draw = rng.random()
        if draw < SHORT_SHARE:
            text = self.grammar.expand("short", rng)
            if rng.random() < 0.15:
                text += f"{self._stop} " + self.grammar.expand("short", rng)
            return capitalised(text + self._stop), "short"
        if draw < SHORT_SHARE + SALAD_SHARE:
            return self._salad(rng), "salad"
        # Of four the one with the least spoken words: a fixed grammar says digits 100 times as
        # often as "lamb".
        some = [text for text in self._sentences(rng, 4) if held_out_split(text) is None]
        return max(some, key=self._rarity), "sentence"

    def _sentences(self, rng: random.Random, size: int) -> Iterator[str]:
        """Sentences of which at least `size` belong to training."""
        while size:
            text = self.grammar.sentence(rng)
            size -= held_out_split(text) is None
            yield text

    def _rarity(self, text: str) -> float:
        words = words_of(text)
        return sum(1 / (1 + self._spoken[word]) for word in words) / len(words)

    def _salad(self, rng: random.Random) -> str:
        """Words (two in three) and short phrases in random order, under one full stop."""
        pieces = []
        for _ in range(rng.randint(2, 7)):
            if rng.random() < 0.35:
                pieces.append(self.grammar.expand("short", rng))
            else:
                # The least spoken of four: salads also level out how often words occur.
                some = rng.sample(self._vocabulary, 4)
                pieces.append(min(some, key=lambda word: self._spoken[word.lower()]))
        text = pieces[0]
        for piece in pieces[1:]:
            text += (", " if rng.random() < 0.12 else " ") + piece
        closing = "?" if rng.random() < 0.12 else self._stop
        opening = "¿" if closing == "?" and self.language == "es-ES" else ""
        return capitalised(opening + text + closing)

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}/{self.language}/{purpose}")


def grammar_vocabulary(grammar: Grammar, rng: random.Random) -> list[str]:
    """The word types that 6,000 random expansions show, sorted."""
    forms: dict[str, Counter[str]] = {}
    for _ in range(6000):
        for rule in ("utterance", "short"):
            for word in grammar.expand(rule, rng).split():
                bare = word.strip(MARKS)
                forms.setdefault(bare.lower(), Counter())[bare] += 1
    # "Yes" is lower case inside a sentence; "Anna" and "I" never are. The grammar writes a
    # capital only at the start of a line or in a name, and "short" has both in lower case.
    proper = {
        word
        for rule in ("name", "day", "month", "language_name")
        for word in grammar.rules.get(rule, ())
        if word[0].isupper()
    } | {"I", "I'd", "I'll", "I'm"}
    by_lower = {word.lower(): word for word in proper}
    return sorted(by_lower.get(lower, lower) for lower in forms)


def held_out_split(text: str) -> str | None:
    """The split to which a sentence belongs by its hash alone; None is training."""
    bucket = int(hashlib.sha256(text.lower().encode()).hexdigest(), 16) % 100
    if bucket >= _HELD_OUT_PERCENT:
        return None
    return ("test_a", "test_a", "test_a", "test_a", "test_a", "dev", "dev", "dev",
            "test_b", "test_b", "demo", "demo")[bucket]  # fmt: skip


def words_of(text: str) -> list[str]:
    """The words of `text` in lower case without punctuation."""
    return [word.strip(MARKS).lower() for word in text.split()]
