"""When finals show another language, and when they only seem to."""

from __future__ import annotations

import pytest

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.language_switch import LanguageSwitchPolicy
from nemotron_voice.transcript import Transcript, Word


def final(
    text: str,
    language: str | None,
    *,
    source: str = "tag",
    confidence: float = 0.9,
    is_final: bool = True,
) -> Transcript:
    pieces = list(text) if language in {"zh-CN", "ja-JP"} else text.split()
    words = tuple(Word(piece, 0.0, 0.1, confidence, language) for piece in pieces)
    return Transcript(text, is_final, language, source, (), words, 0.0, 1.0, confidence, None, 0)  # type: ignore[arg-type]


def test_a_sentence_in_another_language_switches_at_once_and_only_once() -> None:
    policy = LanguageSwitchPolicy(["en-US", "es-ES"])
    change = policy.hear(final("Quiero una mesa.", "es-ES"))
    assert change is not None
    assert (change.before, change.after, change.detected, change.spoken) == (
        "en-US",
        "es-ES",
        "es-ES",
        True,
    )
    assert policy.current == "es-ES"
    assert policy.hear(final("Para cuatro personas.", "es-ES")) is None


@pytest.mark.parametrize("text", ["No.", "OK.", "No no no no."])
def test_a_word_that_many_languages_have_never_switches(text: str) -> None:
    policy = LanguageSwitchPolicy(["en-US", "es-ES"])
    for _ in range(5):
        assert policy.hear(final(text, "es-ES")) is None


def test_short_finals_in_a_row_add_up_and_one_in_between_starts_anew() -> None:
    policy = LanguageSwitchPolicy(["en-US", "es-ES"])
    assert policy.hear(final("Sí.", "es-ES")) is None
    assert policy.hear(final("Muchas gracias.", "es-ES")) is not None
    policy = LanguageSwitchPolicy(["en-US", "es-ES"])
    assert policy.hear(final("Sí.", "es-ES")) is None
    assert policy.hear(final("Thank you.", "en-US")) is None
    assert policy.hear(final("Muchas gracias.", "es-ES")) is None


@pytest.mark.parametrize(
    "weak",
    [
        final("Quiero una mesa.", "es-ES", source="carried"),
        final("Quiero una mesa.", "es-ES", source="forced"),
        final("Quiero una mesa.", "es-ES", confidence=0.3),
        final("Quiero una mesa.", "es-ES", is_final=False),
        final("", None),
    ],
)
def test_what_the_model_did_not_tell_for_sure_is_no_evidence(weak: Transcript) -> None:
    policy = LanguageSwitchPolicy(["en-US", "es-ES"])
    assert policy.hear(weak) is None
    assert policy.current == "en-US"


def test_another_region_gets_the_voice_that_there_is() -> None:
    policy = LanguageSwitchPolicy(["en-US", "es-MX"])
    change = policy.hear(final("Quiero una mesa.", "es-ES"))
    assert change is not None
    assert (change.after, change.detected) == ("es-MX", "es-ES")
    assert LanguageSwitchPolicy(["en-US"]).hear(final("A lovely little table.", "en-GB")) is None


def test_a_language_that_the_agent_lacks_is_told_once_and_changes_nothing() -> None:
    policy = LanguageSwitchPolicy(["en-US", "es-ES"])
    change = policy.hear(final("Ich möchte einen Tisch.", "de-DE"))
    assert change is not None
    assert (change.after, change.detected, change.spoken) == ("en-US", "de-DE", False)
    assert policy.hear(final("Für vier Personen bitte.", "de-DE")) is None
    assert policy.hear(final("A table for four.", "en-US")) is None
    again = policy.hear(final("Ich möchte einen Tisch.", "de-DE"))
    assert again is not None
    assert not again.spoken


def test_languages_without_spaces_count_letters() -> None:
    policy = LanguageSwitchPolicy(["en-US", "zh-CN"])
    assert policy.hear(final("好。", "zh-CN")) is None
    assert policy.hear(final("我想订一张桌子。", "zh-CN")) is not None


@pytest.mark.parametrize(
    ("languages", "options", "said"),
    [
        ([], {}, "empty"),
        (["tlh"], {}, "tlh"),
        (["auto"], {}, "auto"),
        (["en-US"], {"initial": "es-ES"}, "es-ES"),
        (["en-US"], {"min_words": 0}, "min_words"),
        (["en-US"], {"min_confidence": 2.0}, "min_confidence"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(
    languages: list[str], options: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        LanguageSwitchPolicy(languages, **options)  # type: ignore[arg-type]
