"""Each of the 40 locales under Pipecat's name, there and back."""

from __future__ import annotations

import pytest

pytest.importorskip("pipecat")

from pipecat.transcriptions.language import Language

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.languages import BY_CODE
from nemotron_voice.pipecat.languages import joins_without_space, to_language, to_locale

LOCALES = tuple(BY_CODE)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_locale_has_a_name_there_and_back(locale: str) -> None:
    language = to_language(locale)
    assert isinstance(language, Language)
    assert to_locale(language) == locale


def test_forty_locales_have_forty_names() -> None:
    assert len({to_language(locale) for locale in LOCALES}) == len(LOCALES) == 40


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("eu-ES", Language.EU_ES),
        ("tl-PH", Language.TL),
        ("rw-RW", None),
        (None, None),
    ],
)
def test_a_locale_that_pipecat_lacks_is_its_language_or_none(
    locale: str | None, language: Language | None
) -> None:
    assert to_language(locale) is language


@pytest.mark.parametrize(
    ("language", "locale"),
    [
        (Language.AR, "ar-AR"),
        (Language.AR_EG, "ar-AR"),
        (Language.NO, "nb-NO"),
        (Language.NN, "nn-NO"),
        (Language.AR_SA, "ar-AR"),
        (Language.ES_419, "es-US"),
        (Language.NL_BE, "nl-NL"),
        (Language.ES_MX, "es-US"),
        (Language.EN_AU, "en-GB"),
        (Language.FR_BE, "fr-FR"),
        (Language.DE_AT, "de-DE"),
    ],
)
def test_a_neighbour_s_language_is_the_nearest_locale(language: Language, locale: str) -> None:
    assert to_locale(language) == locale


@pytest.mark.parametrize("language", [Language.SW, Language.ZH_HK, Language.ZH_TW, Language.CY])
def test_a_language_that_the_model_has_not_is_refused_by_name(language: Language) -> None:
    with pytest.raises(ConfigurationError, match=language.value):
        to_locale(language)


def test_a_region_is_told_in_any_spelling() -> None:
    assert to_locale("ES_mx") == "es-US"
    with pytest.raises(ConfigurationError, match="zh_HK"):
        to_locale("zh_HK")


def test_only_scripts_without_spaces_join_without_one() -> None:
    unspaced = [locale for locale in LOCALES if joins_without_space(locale)]
    assert unspaced == ["ja-JP", "zh-CN", "th-TH"]
    assert not joins_without_space(None)
