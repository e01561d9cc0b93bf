"""From word times to the one path through the transducer lattice that training teaches."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sentencepiece

FRAME_S = 0.08
DELAY = 2  # a piece is written in the second frame that begins after its end
COMMA_S = 0.12  # after the word
TERMINAL_S = 0.25
TERMINALS = ".?!।"
COMMAS = ",;:"

# Classes of the auxiliary head: what is being said in a frame.
SILENCE = 0
CLASSES = 28  # silence, a-z, anything else


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as written, with its times in seconds and its language."""

    text: str
    start: float
    end: float
    language: str


@dataclass(frozen=True, slots=True)
class Targets:
    """What a clip of `frames` encoder frames should make."""

    tokens: np.ndarray  # [tokens] piece numbers
    emitted: np.ndarray  # [tokens] the frame in which each is written, never falling
    letters: np.ndarray  # [frames] class of the letter being said


class TargetMaker:
    """Makes targets with one vocabulary; keeps each word's pieces."""

    def __init__(
        self,
        tokenizer: sentencepiece.SentencePieceProcessor,
        tag_of: Callable[[str], list[int]] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.tag_of = tag_of or self._tag  # a language's tag: the pieces that spell it
        self._pieces: dict[str, list[tuple[int, str]]] = {}

    def pieces(self, word: str) -> list[tuple[int, str]]:
        """The numbers and spellings of a word's pieces, "▁" first."""
        found = self._pieces.get(word)
        if found is None:
            ids = self.tokenizer.encode(word)
            found = [(i, self.tokenizer.id_to_piece(i)) for i in ids]
            self._pieces[word] = found
        return found

    def _tag(self, language: str) -> list[int]:
        return [int(self.tokenizer.piece_to_id(f"<{language}>"))]

    def make(self, words: list[TimedWord], frames: int, *, tags: bool) -> Targets:
        """The targets of one clip; `tags` is true when the prompt is `auto`."""
        tokens: list[int] = []
        times: list[float] = []
        letters = np.zeros(frames, np.int64)
        for word in words:
            self._add_word(word, tokens, times, tags=tags)
            _add_letters(word, letters)
        emitted = np.floor(np.asarray(times, np.float64) / FRAME_S).astype(np.int64) + DELAY
        emitted = np.minimum(emitted, frames - 1)
        emitted = np.minimum.accumulate(emitted[::-1])[::-1]
        return Targets(np.asarray(tokens, np.int64), emitted, letters)

    def _add_word(
        self, word: TimedWord, tokens: list[int], times: list[float], *, tags: bool
    ) -> None:
        pieces = self.pieces(word.text)
        sounding = max(sum(_letters_in(text) for _, text in pieces), 1)
        said = 0
        for number, text in pieces:
            said += _letters_in(text)
            time = word.start + (word.end - word.start) * said / sounding
            if said == sounding and text in COMMAS:
                time = word.end + COMMA_S
            elif said == sounding and text in TERMINALS:
                time = word.end + TERMINAL_S
            tokens.append(number)
            times.append(time)
        if tags and word.text[-1] in TERMINALS:
            for number in self.tag_of(word.language):
                tokens.append(number)
                times.append(word.end + TERMINAL_S)


def _letters_in(text: str) -> int:
    return sum(char.isalnum() for char in text)


def _add_letters(word: TimedWord, letters: np.ndarray) -> None:
    """Mark the frames whose newest sound (60 ms before the window's end) is in the word."""
    said = [char for char in word.text if char.isalnum()]
    if not said:
        return
    first = max(int(np.ceil((word.start + 0.05) / FRAME_S)), 0)
    for frame in range(first, len(letters)):
        position = (frame * FRAME_S - 0.05 - word.start) / max(word.end - word.start, 1e-3)
        if position >= 1.0:
            break
        base = unicodedata.normalize("NFD", said[int(position * len(said))])[0].lower()
        letters[frame] = ord(base) - ord("a") + 1 if "a" <= base <= "z" else CLASSES - 1


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of the lattice with the step to take there."""

    frame: np.ndarray  # [nodes]
    written: np.ndarray  # [nodes] how many tokens were written before
    step: np.ndarray  # [nodes] a piece, or blank
    weight: np.ndarray  # [nodes]


def path_nodes(targets: Targets, blank: int, *, token_weight: float, stray_weight: float) -> Nodes:
    """The path's nodes, and some a frame or two beside it, from which it leads back.

    On the path: every token at its frame, a blank at each frame's end. Beside it: a token not
    yet written one or two frames late is still due; after a token written a frame early comes
    blank.
    """
    frames, count = len(targets.letters), len(targets.tokens)
    written_after = np.searchsorted(targets.emitted, np.arange(frames), side="right")
    order = np.arange(count)
    parts = [
        (targets.emitted, order, targets.tokens, token_weight),
        (np.arange(frames), written_after, np.full(frames, blank), 1.0),
    ]
    if stray_weight > 0.0:
        for late in (1, 2):
            inside = targets.emitted + late < frames
            parts.append(
                (
                    targets.emitted[inside] + late,
                    order[inside],
                    targets.tokens[inside],
                    stray_weight * token_weight / late,
                )
            )
        inside = targets.emitted > 0
        blanks = np.full(int(inside.sum()), blank)
        parts.append((targets.emitted[inside] - 1, order[inside] + 1, blanks, stray_weight))
    return Nodes(
        np.concatenate([p[0] for p in parts]),
        np.concatenate([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
        np.concatenate([np.full(len(p[0]), p[3], np.float32) for p in parts]),
    )
