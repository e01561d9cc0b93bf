"""Two sets of hypotheses of the same clips: how they differ, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation.hypotheses import Hypothesis
from nemotron_voice.evaluation.normalisation import Normaliser, normalise
from nemotron_voice.evaluation.scoring import (
    Errors,
    Interval,
    difference_interval,
    rate_interval,
    unit_of,
)
from nemotron_voice.evaluation.summary import ALL, UNKNOWN
from nemotron_voice.languages import ErrorUnit


@dataclass(frozen=True, slots=True)
class Pair:
    """One clip, heard twice."""

    one: Hypothesis
    other: Hypothesis
    errors: Errors  # of `one`
    other_errors: Errors

    @property
    def change(self) -> int:
        """Errors more in `other`; below 0: it is better."""
        return self.other_errors.count - self.errors.count


@dataclass(frozen=True, slots=True)
class Difference:
    """A group of clips."""

    group: str
    unit: ErrorUnit
    clips: int
    one: Interval  # error rates, %
    other: Interval
    difference: Interval  # points; below 0: `other` is better
    changed: int  # clips whose normalised text differs
    better: int  # clips on which `other` has fewer errors
    worse: int

    @property
    def verdict(self) -> str:
        """What the interval says."""
        if self.difference.high < 0:
            return "B is better"
        return "A is better" if self.difference.low > 0 else "no difference shown"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was found in one pair of latency modes."""

    latency_ms: int
    other_latency_ms: int
    groups: tuple[Difference, ...]
    pairs: tuple[Pair, ...]  # the largest change first
    unpaired: int  # clips that only one of them has


def compare(
    ones: Sequence[Hypothesis],
    others: Sequence[Hypothesis],
    normaliser: Normaliser,
    *,
    seed: int = 0,
) -> list[Comparison]:
    """Compare by the same latency; where each side has one only, those two.

    Raises:
        ConfigurationError: no common latency or clip, or another text of the same clip.
    """
    modes = [_by_latency(side) for side in (ones, others)]
    if all(len(mode) == 1 for mode in modes):
        latencies = [(min(modes[0]), min(modes[1]))]
    else:
        latencies = [(ms, ms) for ms in sorted(modes[0].keys() & modes[1].keys())]
    if not latencies:
        sides = " and ".join(", ".join(f"{ms} ms" for ms in sorted(mode)) for mode in modes)
        raise ConfigurationError(
            f"no latency is in both ({sides}); choose one of each by --latency-a and --latency-b"
        )
    return [_compare(modes[0][a], modes[1][b], normaliser, seed) for a, b in latencies]


def _by_latency(hypotheses: Sequence[Hypothesis]) -> dict[int, list[Hypothesis]]:
    modes: dict[int, list[Hypothesis]] = {}
    for one in hypotheses:
        modes.setdefault(one.latency_ms, []).append(one)
    return modes


def _compare(
    ones: Sequence[Hypothesis],
    others: Sequence[Hypothesis],
    normaliser: Normaliser,
    seed: int,
) -> Comparison:
    by_id = {other.id: other for other in others}
    common = [(one, by_id[one.id]) for one in ones if one.id in by_id]
    if not common:
        raise ConfigurationError(
            "the two have no clip in common: an id appears in one of them only"
        )
    for one, other in common:
        if one.text != other.text:
            raise ConfigurationError(
                f"{one.id} says {one.text!r} in one and {other.text!r} in the other; compare "
                "hypotheses of the same manifest"
            )
    pairs = [
        Pair(one, other, one.errors(normaliser), other.errors(normaliser)) for one, other in common
    ]
    groups = []
    for unit in dict.fromkeys(unit_of(pair.one.target_lang) for pair in pairs):
        own = [pair for pair in pairs if unit_of(pair.one.target_lang) == unit]
        groups.append(_difference(ALL, own, normaliser, seed))
    locales = sorted({pair.one.target_lang or UNKNOWN for pair in pairs})
    if len(locales) > 1:
        groups += [
            _difference(
                code,
                [pair for pair in pairs if (pair.one.target_lang or UNKNOWN) == code],
                normaliser,
                seed,
            )
            for code in locales
        ]
    return Comparison(
        latency_ms=ones[0].latency_ms,
        other_latency_ms=others[0].latency_ms,
        groups=tuple(groups),
        pairs=tuple(sorted(pairs, key=lambda pair: -abs(pair.change))),
        unpaired=len(ones) + len(others) - 2 * len(pairs),
    )


def _difference(group: str, pairs: Sequence[Pair], normaliser: Normaliser, seed: int) -> Difference:
    ones, others = [p.errors for p in pairs], [p.other_errors for p in pairs]
    return Difference(
        group=group,
        unit=unit_of(pairs[0].one.target_lang),
        clips=len(pairs),
        one=rate_interval(ones, seed=seed),
        other=rate_interval(others, seed=seed),
        difference=difference_interval(ones, others, seed=seed),
        changed=sum(_text(p.one, normaliser) != _text(p.other, normaliser) for p in pairs),
        better=sum(p.change < 0 for p in pairs),
        worse=sum(p.change > 0 for p in pairs),
    )


def _text(one: Hypothesis, normaliser: Normaliser) -> str:
    return normalise(one.pred_text, one.target_lang, normaliser)
