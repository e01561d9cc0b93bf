"""Figures of hypotheses: by latency, locale, and any field of the manifest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nemotron_voice.evaluation.hypotheses import Hypothesis
from nemotron_voice.evaluation.normalisation import Normaliser
from nemotron_voice.evaluation.scoring import Interval, rate_interval, share_interval, unit_of
from nemotron_voice.languages import ErrorUnit

ALL = "all"
MEAN = "mean of locales"
UNKNOWN = "no locale"


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of how many, their median, and what 95 % are below."""

    count: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class DelayFigures:
    """Milliseconds, in real time. Of words only where the manifest has their times, else NaN."""

    shown: Quantiles  # from a word's end until it was shown, of words that were heard right
    final: Quantiles  # until it was final
    answer: Quantiles  # from a clip's end to its last final


@dataclass(frozen=True, slots=True)
class Figures:
    """What one group of clips came to in one latency mode."""

    group: str  # a locale, ALL, or MEAN
    latency_ms: int
    clips: int
    unit: ErrorUnit
    error_rate: Interval  # %; of MEAN without an interval (NaN)
    length: int  # of the references, in the unit
    language: Interval | None  # share of clips in the right language, %, where it was detected
    delays: DelayFigures | None  # where the run was in real time
    failed: int  # clips that couldn't be heard to their end; they count as heard


def summarise(
    hypotheses: Sequence[Hypothesis], normaliser: Normaliser, *, seed: int = 0
) -> list[Figures]:
    """For each latency: all clips of each unit, the mean of locales, and each locale.

    Words and characters aren't added up: where locales of both kinds are there, ALL appears twice.
    """
    rows = []
    for latency_ms in sorted({one.latency_ms for one in hypotheses}):
        here = [one for one in hypotheses if one.latency_ms == latency_ms]
        units = _by(here, lambda one: unit_of(one.target_lang))
        locales = _by(here, lambda one: one.target_lang or UNKNOWN)
        each = [_figures(code, own, normaliser, seed) for code, own in sorted(locales.items())]
        if len(locales) > 1:
            rows += [_figures(ALL, own, normaliser, seed) for own in units.values()]
            rows.append(_mean(each))
        rows += each
    return rows


def _figures(
    group: str, hypotheses: Sequence[Hypothesis], normaliser: Normaliser, seed: int
) -> Figures:
    errors = [one.errors(normaliser) for one in hypotheses]
    right = [one.right_language for one in hypotheses if one.right_language is not None]
    return Figures(
        group=group,
        latency_ms=hypotheses[0].latency_ms,
        clips=len(hypotheses),
        unit=unit_of(hypotheses[0].target_lang),
        error_rate=rate_interval(errors, seed=seed),
        length=sum(one.length for one in errors),
        language=share_interval(right, seed=seed) if right else None,
        delays=_delays(hypotheses),
        failed=sum(one.error is not None for one in hypotheses),
    )


def _mean(locales: Sequence[Figures]) -> Figures:
    """Each locale counts the same, as on the model card; WER and CER together, as there."""
    first = locales[0]
    languages = [one.language.value for one in locales if one.language]
    return Figures(
        group=MEAN,
        latency_ms=first.latency_ms,
        clips=sum(one.clips for one in locales),
        unit=first.unit,
        error_rate=Interval(fmean(one.error_rate.value for one in locales), math.nan, math.nan),
        length=sum(one.length for one in locales),
        language=Interval(fmean(languages), math.nan, math.nan) if languages else None,
        delays=None,
        failed=sum(one.failed for one in locales),
    )


def _delays(hypotheses: Iterable[Hypothesis]) -> DelayFigures | None:
    own = list(hypotheses)
    answers = [one.answer_ms for one in own if one.answer_ms is not None]
    if not answers:
        return None
    return DelayFigures(
        shown=_quantiles([ms for one in own for ms in one.delays.shown]),
        final=_quantiles([ms for one in own for ms in one.delays.final]),
        answer=_quantiles(answers),
    )


def _quantiles(values: Sequence[float]) -> Quantiles:
    if not values:
        return Quantiles(0, math.nan, math.nan)
    return Quantiles(len(values), *(round(float(np.percentile(values, q)), 1) for q in (50, 95)))


def _by(
    hypotheses: Iterable[Hypothesis], key: Callable[[Hypothesis], str]
) -> dict[str, list[Hypothesis]]:
    groups: dict[str, list[Hypothesis]] = {}
    for one in hypotheses:
        groups.setdefault(key(one), []).append(one)
    return groups


def as_json(value: Any) -> Any:
    """Figures as JSON has them: what isn't a number (an interval that isn't known) is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def by_field(hypotheses: Sequence[Hypothesis], name: str) -> dict[str, list[Hypothesis]]:
    """Hypotheses by what the manifest has in a field, in order of first appearance."""
    return _by(hypotheses, lambda one: str(one.row.get(name)))
