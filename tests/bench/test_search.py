"""The search finds the largest number that holds, and asks little."""

from __future__ import annotations

import pytest

from nemotron_voice.bench.search import largest


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 1000])
def test_the_largest_number_that_holds_is_found(limit):
    asked = []

    def holds(number):
        asked.append(number)
        return number <= limit

    assert largest(holds, resolution=0.0) == limit
    assert len(asked) == len(set(asked)) <= 20


def test_a_coarse_answer_takes_fewer_trials_and_is_never_too_large():
    asked = []

    def holds(number):
        asked.append(number)
        return number <= 777

    assert 777 * 0.9 <= largest(holds, resolution=0.1) <= 777
    assert len(asked) <= 12


def test_no_more_than_the_most_is_tried():
    asked = []
    assert largest(lambda number: asked.append(number) or True, most=100) == 100
    assert max(asked) == 100


def test_what_is_known_isnt_asked_again():
    asked = []

    def holds(number):
        asked.append(number)
        return number <= 100

    assert largest(holds, low=80, high=128, resolution=0.0) == 100
    assert all(80 < number < 128 for number in asked)
