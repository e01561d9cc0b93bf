"""Errors between what was said and what was heard, counted after a named normalisation.

Errors are those of the shortest edit [Levenshtein; jiwer], in words, or in characters without
spaces for ja, ko, zh and th. The rate of a set is all its errors over all its reference units. The
intervals are percentile bootstraps over clips [Efron 1979; Bisani and Ney, ICASSP 2004].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import jiwer
import numpy as np
from numpy.typing import NDArray

from nemotron_voice.evaluation.normalisation import Normaliser, normalise
from nemotron_voice.languages import BY_CODE, ErrorUnit

Column = NDArray[np.float64]
RESAMPLES: Final = 1_000
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Errors:
    """Edits from the reference to what was heard, and the reference's length."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0  # words, or characters

    @property
    def count(self) -> int:
        """All of them."""
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )

    @property
    def rate(self) -> float:
        """Error rate, %; not a number where nothing was said."""
        return 100 * self.count / self.length if self.length else float("nan")


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def unit_of(locale: str | None) -> ErrorUnit:
    """What a locale's errors are counted in; words where no locale is known."""
    return "WER" if locale is None else BY_CODE[locale].error_unit


def count_errors(reference: str, heard: str, locale: str | None, normaliser: Normaliser) -> Errors:
    """Errors of one clip, in the locale's unit."""
    said, got = (normalise(text, locale, normaliser) for text in (reference, heard))
    edits: jiwer.WordOutput | jiwer.CharacterOutput
    if unit_of(locale) == "CER":
        said, got = said.replace(" ", ""), got.replace(" ", "")
        edits, length = jiwer.process_characters(said, got), len(said)
    else:
        edits, length = jiwer.process_words(said, got), len(said.split())
    return Errors(edits.substitutions, edits.deletions, edits.insertions, length)


def rate_interval(errors: Sequence[Errors], *, seed: int = 0) -> Interval:
    """Error rate of a set of clips, %, with its interval."""
    sums = _resampled_sums([_counts(errors), _lengths(errors)], seed)
    return Interval(sum(errors, Errors()).rate, *_bounds(_rates(sums)))


def difference_interval(
    ones: Sequence[Errors], others: Sequence[Errors], *, seed: int = 0
) -> Interval:
    """Error rate of `others` less that of `ones`, points, over the same clips in the same order.

    Each resample takes the same clips of both, so that what makes a clip hard cancels out.
    """
    sums = _resampled_sums([_counts(others) - _counts(ones), _lengths(ones)], seed)
    difference = sum(others, Errors()).rate - sum(ones, Errors()).rate
    return Interval(difference, *_bounds(_rates(sums)))


def share_interval(right: Sequence[bool], *, seed: int = 0) -> Interval:
    """Share of clips, %, with its interval."""
    values = np.array(right, float)
    sums = _resampled_sums([values, np.ones_like(values)], seed)
    return Interval(100 * float(values.mean()), *_bounds(_rates(sums)))


def _counts(errors: Sequence[Errors]) -> Column:
    return np.array([one.count for one in errors], float)


def _lengths(errors: Sequence[Errors]) -> Column:
    return np.array([one.length for one in errors], float)


def _resampled_sums(columns: Sequence[Column], seed: int) -> Column:
    """Sums [RESAMPLES, columns] over clips drawn with replacement, the same for every column."""
    table = np.stack(columns)
    rng = np.random.default_rng(seed)
    clips = table.shape[1]
    return np.stack([table[:, rng.integers(0, clips, clips)].sum(1) for _ in range(RESAMPLES)])


def _rates(sums: Column) -> Column:
    return 100 * sums[:, 0] / np.maximum(sums[:, 1], 1)


def _bounds(values: Column) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
