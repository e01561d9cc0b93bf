"""Errors against counts by hand, intervals against the known distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nemotron_voice.evaluation.normalisation import DESCRIPTIONS, Normaliser, normalise
from nemotron_voice.evaluation.scoring import (
    Errors,
    count_errors,
    difference_interval,
    rate_interval,
    share_interval,
    unit_of,
)

PLAIN = Normaliser.multilingual


def test_errors_are_counted_in_words():
    found = count_errors("One two, three four.", "one too three four five", "en-US", PLAIN)
    assert found == Errors(substitutions=1, deletions=0, insertions=1, length=4)
    assert found.rate == 50.0


@pytest.mark.parametrize("locale", ["ja-JP", "ko-KR", "zh-CN", "th-TH"])
def test_and_in_characters_without_spaces_where_words_arent_separated(locale):
    assert unit_of(locale) == "CER"
    assert count_errors("東 京都。", "東京 府", locale, PLAIN) == Errors(1, 0, 0, 3)


def test_nothing_heard_is_all_deleted_and_nothing_is_divided_by_nothing():
    assert count_errors("one two", "", "en-US", PLAIN) == Errors(0, 2, 0, 2)
    assert math.isnan(Errors().rate)


@pytest.mark.parametrize(
    ("text", "locale", "normaliser", "expected"),
    [
        ("¿Qué tal, señor?", "es-ES", "multilingual", "qué tal señor"),
        ("हिन्दी में।", "hi-IN", "multilingual", "हिन्दी में"),
        ("हिन्दी में।", "hi-IN", "basic", "ह न द म"),
        ("I'm twenty-one.", "en-US", "whisper", "i am 21"),
        ("Ventuno, prego.", "it-IT", "whisper", "ventuno prego"),
        ("As  written.", "en-US", "none", "As written."),
    ],
)
def test_each_normaliser_does_what_its_description_says(text, locale, normaliser, expected):
    assert normalise(text, locale, Normaliser(normaliser)) == expected
    assert DESCRIPTIONS[Normaliser(normaliser)]


def test_the_interval_of_a_rate_is_that_of_the_binomial():
    rng = np.random.default_rng(1)
    errors = [Errors(substitutions=int(wrong), length=1) for wrong in rng.random(2000) < 0.2]
    interval = rate_interval(errors)
    width = 1.96 * 100 * math.sqrt(0.2 * 0.8 / 2000)
    assert interval.value - interval.low == pytest.approx(width, rel=0.15)
    assert interval.high - interval.value == pytest.approx(width, rel=0.15)
    assert rate_interval(errors) == interval  # the same seed


def test_a_paired_difference_is_surer_than_two_rates():
    rng = np.random.default_rng(2)
    hard = rng.integers(0, 9, 300)
    ones = [Errors(substitutions=int(count), length=10) for count in hard]
    others = [Errors(substitutions=int(count) + 1, length=10) for count in hard]
    difference = difference_interval(ones, others)
    assert (difference.value, difference.low, difference.high) == pytest.approx((10, 10, 10))
    rate = rate_interval(ones)
    assert rate.high - rate.low > 2


def test_a_share_is_of_clips():
    interval = share_interval([True, True, False, True])
    assert interval.value == 75.0
    assert interval.low < 75 < interval.high
    assert share_interval([True] * 5).low == 100.0
