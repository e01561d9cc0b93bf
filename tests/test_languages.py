"""Names of languages: what resolves, what is refused, and the dictionary against the reference."""

from __future__ import annotations

import hashlib
import json
import logging
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_voice import languages
from nemotron_voice.errors import (
    AmbiguousLanguageError,
    ConfigurationError,
    UnknownLanguageError,
    UnsupportedLanguageError,
)
from nemotron_voice.languages import BY_CODE, LOCALES, PROMPT_DICTIONARY, locale_of_tag, resolve

DEMO = ("en-US", "es-ES", "fr-FR", "it-IT", "pt-BR")

# sha256 of the sorted JSON of transformers 5.23's DEFAULT_PROMPT_DICTIONARY.
REFERENCE_DICTIONARY = "aa6527d9c1bc9065c5751c6d4eb683e990841567cbf5e7e25893e49668ef5ffa"


class PipecatLanguage(str, Enum):  # noqa: UP042  (as Pipecat defines it)
    ES_ES = "es-ES"


class Plain(Enum):
    GERMAN = "de"


def test_there_are_40_locales_in_the_tiers_of_the_model_card() -> None:
    tiers = [locale.tier for locale in LOCALES]
    assert len(BY_CODE) == len(LOCALES) == 40
    assert [tiers.count(tier) for tier in dict.fromkeys(tiers)] == [19, 13, 8]
    assert len({locale.prompt_index for locale in LOCALES}) == 40


def test_the_prompt_dictionary_is_the_recorded_reference() -> None:
    text = json.dumps(PROMPT_DICTIONARY, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == REFERENCE_DICTIONARY


@pytest.mark.reference
def test_the_prompt_dictionary_is_that_of_transformers() -> None:
    from transformers.models.nemotron3_5_asr import processing_nemotron3_5_asr as processing

    assert dict(processing.DEFAULT_PROMPT_DICTIONARY) == PROMPT_DICTIONARY


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: locale.code)
def test_a_locale_answers_to_its_code_its_name_and_its_aliases(locale: languages.Locale) -> None:
    for name in (locale.code, locale.name, *locale.aliases):
        assert resolve(name) == locale.code
        assert resolve(name.upper().replace("-", "_")) == locale.code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("auto", "auto"),
        (" AUTO ", "auto"),
        ("es", "es-US"),  # the model's own dictionary says so
        ("pt", "pt-PT"),
        ("en", "en-US"),
        ("fr", "fr-FR"),
        ("zh", "zh-CN"),
        ("ja", "ja-JP"),
        ("vi", "vi-VN"),
        ("he", "he-IL"),
        ("th", "th-TH"),
        ("mt", "mt-MT"),
        ("nb", "nb-NO"),
        ("pt_br", "pt-BR"),
        ("Spanish", "es-US"),
        ("español", "es-US"),
        ("Portuguese (Brazil)", "pt-BR"),
        ("日本語", "ja-JP"),
        ("zh-Hans", "zh-CN"),
        (PipecatLanguage.ES_ES, "es-ES"),
        (Plain.GERMAN, "de-DE"),
    ],
)
def test_names_people_use(name: object, code: str) -> None:
    assert resolve(name) == code


@pytest.mark.parametrize(
    ("name", "code"), [("es", "es-ES"), ("Spanish", "es-ES"), ("pt", "pt-BR"), ("fra", "fr-FR")]
)
def test_a_bare_language_is_the_one_locale_that_the_model_has(name: str, code: str) -> None:
    assert resolve(name, DEMO) == code


def test_a_bare_language_with_two_locales_and_no_default_among_them_is_ambiguous() -> None:
    with pytest.raises(AmbiguousLanguageError, match="nb-NO or nn-NO"):
        resolve("Norwegian")
    assert resolve("no", ("nb-NO", "sv-SE")) == "nb-NO"


@pytest.mark.parametrize("name", ["Klingon", "", "  ", None, 7, "e", "auto-detect"])
def test_what_is_no_language_is_never_auto(name: object) -> None:
    with pytest.raises(UnknownLanguageError, match=r"auto"):
        resolve(name)


def test_a_misspelt_name_is_answered_with_close_ones() -> None:
    with pytest.raises(UnknownLanguageError, match="did you mean de-DE"):
        resolve("Germn")


def test_a_region_off_the_card_is_answered_with_those_of_its_language() -> None:
    with pytest.raises(UnknownLanguageError, match="es-US and es-ES"):
        resolve("es-MX")


@pytest.mark.parametrize(("name", "supported"), [("zh-TW", None), ("id-ID", None), ("de", DEMO)])
def test_what_the_model_was_not_trained_for_is_refused(
    name: str, supported: tuple[str, ...] | None
) -> None:
    with pytest.raises(UnsupportedLanguageError, match=name):
        resolve(name, supported)


def test_an_adaptation_ready_locale_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    languages._warned.discard("lt-LT")
    with caplog.at_level(logging.WARNING):
        assert [resolve("lt"), resolve("lt-LT")] == ["lt-LT", "lt-LT"]
    assert [record.getMessage().split()[0] for record in caplog.records] == ["lt-LT"]


@given(st.text())
def test_any_text_is_a_locale_or_a_configuration_error(name: str) -> None:
    try:
        code = resolve(name)
    except ConfigurationError:
        return
    assert code == "auto" or code in BY_CODE


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        *((locale.code, locale.code) for locale in LOCALES),
        ("sl-SL", "sl-SI"),  # the vocabulary's own misspelling
        ("ja-JA", "ja-JP"),
        ("ko-KO", "ko-KR"),
        ("zh-ZH", "zh-CN"),
        ("hi-HI", "hi-IN"),
        ("mt-TM", "mt-MT"),  # one locale has that language
        ("es-MX", None),  # two have
        ("xx-YY", None),
        ("es", None),
        ("", None),
    ],
)
def test_a_tag_means_a_locale_however_it_is_spelled(spelling: str, code: str | None) -> None:
    assert locale_of_tag(spelling) == code


@pytest.fixture
def known(monkeypatch):
    """What `add` does is undone."""
    for name in ("BY_CODE", "_EXACT", "_LANGUAGES", "_TAGS"):
        monkeypatch.setattr(languages, name, dict(getattr(languages, name)))


def catalan(slot: int, code: str = "ca-ES") -> languages.Locale:
    return languages.Locale(code, "Catalan", "Spain", "català", languages.READY, slot, ())


def test_a_fine_tuned_checkpoint_may_bring_a_locale_of_its_own(known):
    slot = languages.free_slot("ca-ES")
    assert slot not in languages.PROMPT_DICTIONARY.values()
    languages.add(catalan(slot))
    languages.add(catalan(slot))  # each time that the checkpoint is loaded
    for name in ("ca-ES", "ca", "Catalan", "català", "Catalan (Spain)"):
        assert languages.resolve(name) == "ca-ES"
    assert languages.locale_of_tag("ca-ES") == "ca-ES"
    assert languages.BY_CODE["ca-ES"].prompt_index == slot
    assert languages.resolve("es-ES") == "es-ES"


def test_a_slot_of_the_dictionary_belongs_to_its_code(known):
    assert languages.free_slot("id-ID") == 34
    for wrong in (0, 34, 101, 128):  # en-US, id-ID, auto, none
        with pytest.raises(ConfigurationError, match="can't have the prompt slot"):
            languages.add(catalan(wrong))
    with pytest.raises(ConfigurationError, match="take 34"):
        languages.add(catalan(105, "id-ID"))
    for wrong_code in ("es-ES", "catalan"):
        with pytest.raises(ConfigurationError, match="can't be added"):
            languages.add(catalan(105, wrong_code))
