"""Delays of words, on events made by hand."""

from __future__ import annotations

import pytest

from nemotron_voice.evaluation.emission import Event, delays
from nemotron_voice.evaluation.hypotheses import Delays
from nemotron_voice.evaluation.manifest import TimedWord
from nemotron_voice.transcript import Transcript

WORDS = (TimedWord("One", 0.0, 0.3), TimedWord("two", 0.4, 0.6), TimedWord("three.", 0.7, 1.0))


def event(at_s: float, text: str, *, final: bool = False) -> Event:
    transcript = Transcript(
        text=text,
        is_final=final,
        language=None,
        language_source=None,
        languages=(),
        words=(),
        start=0.0,
        end=at_s,
        confidence=None,
        flush_id=None,
        revision=0,
    )
    return Event(at_s, transcript)


def plain(text: str) -> str:
    return text.lower().strip(".")


def measured(*events: Event) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = delays(WORDS, events, plain)
    return found.shown, found.final


def test_a_word_is_shown_when_it_is_first_in_its_place_and_final_with_its_final():
    shown, final = measured(
        event(0.5, "one"),
        event(0.8, "one to"),
        event(0.9, "one two"),
        event(1.5, "one two three."),
        event(2.0, "one two three.", final=True),
    )
    assert shown == pytest.approx((200, 300, 500))
    assert final == pytest.approx((1700, 1400, 1000))


def test_finals_in_parts_count_for_their_own_words():
    shown, final = measured(
        event(0.7, "one two", final=True), event(1.2, "three"), event(1.4, "three", final=True)
    )
    assert shown == pytest.approx((400, 100, 200))
    assert final == pytest.approx((400, 100, 400))


def test_words_that_were_heard_wrong_arent_measured():
    shown, _ = measured(event(2.0, "one too three", final=True))
    assert shown == pytest.approx((1700, 1000))


def test_nothing_heard_has_no_delays():
    assert measured() == ((), ())
    assert delays(WORDS, [event(2.0, "", final=True)], plain) == Delays()
