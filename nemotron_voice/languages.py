"""The 40 locales of Nemotron 3.5 ASR, their prompt indices, and the many names people call them.

Sources: tiers, error units and alias slots from the model card; the prompt dictionary is
`DEFAULT_PROMPT_DICTIONARY` of transformers 5.23 (`processing_nemotron3_5_asr.py`), which equals
NeMo's `fastconformer_transducer_bpe_streaming_prompt.yaml`.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal

from nemotron_voice.errors import (
    AmbiguousLanguageError,
    ConfigurationError,
    UnknownLanguageError,
    UnsupportedLanguageError,
)

_log = logging.getLogger(__name__)

AUTO: Final = "auto"
AUTO_PROMPT_INDEX: Final = 101
PROMPTS: Final = 128  # slots of the one-hot language prompt

Tier = Literal["transcription-ready", "broad-coverage", "adaptation-ready"]
ErrorUnit = Literal["WER", "CER"]

READY: Final = "transcription-ready"
BROAD: Final = "broad-coverage"
ADAPT: Final = "adaptation-ready"


@dataclass(frozen=True, slots=True)
class Locale:
    """A language as spoken somewhere, as the model tells it apart."""

    code: str  # "es-ES"
    english: str  # the language: "Spanish"
    region: str  # "Spain"
    native: str  # the language in its own words: "español"
    tier: Tier  # how well it works out of the box, by the model card
    prompt_index: int  # 0..127: the slot of the one-hot language prompt
    aliases: tuple[str, ...]  # other names that resolve() takes for this very locale
    error_unit: ErrorUnit = "WER"  # what its accuracy is counted in: words or characters

    @property
    def name(self) -> str:
        """Language and region: "Spanish (Spain)"."""
        return f"{self.english} ({self.region})"

    @property
    def language(self) -> str:
        """The bare language: "es"."""
        return self.code.partition("-")[0]


# Bare codes ("es") stand at the locale that the model's own dictionary gives them: es is es-US,
# pt is pt-PT. ja, zh, vi, he, th and mt have no bare entry there; they have one locale each.
# ISO 639-3 codes stand beside them. Thai is written without spaces, so it is counted in
# characters, as the card counts Japanese, Korean and Chinese.
LOCALES: Final[tuple[Locale, ...]] = (
    Locale("en-US", "English", "United States", "English", READY, 0, ("en", "eng")),
    Locale("en-GB", "English", "United Kingdom", "English", READY, 1, ("enGB", "en-UK")),
    Locale("es-ES", "Spanish", "Spain", "español", READY, 2, ("esES",)),
    Locale("es-US", "Spanish", "United States", "español", READY, 3, ("es", "spa")),
    Locale("fr-FR", "French", "France", "français", READY, 8, ("fr", "fra")),
    Locale("fr-CA", "French", "Canada", "français", READY, 100, ()),
    Locale("it-IT", "Italian", "Italy", "italiano", READY, 15, ("it", "ita")),
    Locale("pt-BR", "Portuguese", "Brazil", "português", READY, 12, ()),
    Locale("pt-PT", "Portuguese", "Portugal", "português", READY, 13, ("pt", "por")),
    Locale("nl-NL", "Dutch", "Netherlands", "Nederlands", READY, 16, ("nl", "nld")),
    Locale("de-DE", "German", "Germany", "Deutsch", READY, 9, ("de", "deu")),
    Locale("tr-TR", "Turkish", "Türkiye", "Türkçe", READY, 18, ("tr", "tur")),
    Locale("ru-RU", "Russian", "Russia", "русский", READY, 11, ("ru", "rus")),
    Locale("ar-AR", "Arabic", "Modern Standard", "العربية", READY, 7, ("ar", "ara")),
    Locale("hi-IN", "Hindi", "India", "हिन्दी", READY, 6, ("hi", "hi-HI", "hin")),
    Locale("ja-JP", "Japanese", "Japan", "日本語", READY, 10, ("ja", "ja-JA", "jpn"), "CER"),
    Locale("ko-KR", "Korean", "South Korea", "한국어", READY, 14, ("ko", "ko-KO", "kor"), "CER"),
    Locale("vi-VN", "Vietnamese", "Vietnam", "tiếng Việt", READY, 33, ("vi", "vie")),
    Locale("uk-UA", "Ukrainian", "Ukraine", "українська", READY, 19, ("uk", "ukr")),
    Locale("pl-PL", "Polish", "Poland", "polski", BROAD, 17, ("pl", "pol")),
    Locale("sv-SE", "Swedish", "Sweden", "svenska", BROAD, 24, ("sv", "swe")),
    Locale("cs-CZ", "Czech", "Czechia", "čeština", BROAD, 22, ("cs", "ces")),
    Locale("nb-NO", "Norwegian Bokmål", "Norway", "norsk bokmål", BROAD, 103, ("nb", "nob")),
    Locale("da-DK", "Danish", "Denmark", "dansk", BROAD, 25, ("da", "dan")),
    Locale("bg-BG", "Bulgarian", "Bulgaria", "български", BROAD, 30, ("bg", "bul")),
    Locale("fi-FI", "Finnish", "Finland", "suomi", BROAD, 26, ("fi", "fin")),
    Locale("hr-HR", "Croatian", "Croatia", "hrvatski", BROAD, 29, ("hr", "hrv")),
    Locale("sk-SK", "Slovak", "Slovakia", "slovenčina", BROAD, 28, ("sk", "slk")),
    Locale(
        "zh-CN",
        "Chinese",
        "Mainland China",
        "中文",
        BROAD,
        4,
        ("zh", "zh-ZH", "zho", "cmn", "zh-Hans", "zh-Hans-CN", "cmn-Hans-CN", "Mandarin"),
        "CER",
    ),
    Locale("hu-HU", "Hungarian", "Hungary", "magyar", BROAD, 23, ("hu", "hun")),
    Locale("ro-RO", "Romanian", "Romania", "română", BROAD, 20, ("ro", "ron")),
    Locale("et-EE", "Estonian", "Estonia", "eesti", BROAD, 60, ("et", "est")),
    Locale("el-GR", "Greek", "Greece", "ελληνικά", ADAPT, 21, ("el", "ell")),
    Locale("lt-LT", "Lithuanian", "Lithuania", "lietuvių", ADAPT, 31, ("lt", "lit")),
    Locale("lv-LV", "Latvian", "Latvia", "latviešu", ADAPT, 61, ("lv", "lav")),
    Locale("mt-MT", "Maltese", "Malta", "Malti", ADAPT, 102, ("mt", "mlt")),
    Locale("sl-SI", "Slovenian", "Slovenia", "slovenščina", ADAPT, 62, ("sl", "sl-SL", "slv")),
    Locale("he-IL", "Hebrew", "Israel", "עברית", ADAPT, 64, ("he", "iw", "heb")),
    Locale("th-TH", "Thai", "Thailand", "ไทย", ADAPT, 32, ("th", "tha"), "CER"),
    Locale("nn-NO", "Norwegian Nynorsk", "Norway", "norsk nynorsk", ADAPT, 104, ("nn", "nno")),
)

BY_CODE: Final[dict[str, Locale]] = {locale.code: locale for locale in LOCALES}
"""The 40, and what `add` has made known."""

# Slots of the dictionary that the card doesn't list: nobody says that they were trained.
# fmt: off
_OFF_CARD: Final[dict[str, int]] = {
    "zh-TW": 5, "no-NO": 27, "no": 27, "id-ID": 34, "ms-MY": 35, "bn-IN": 36, "ur-PK": 37,
    "fa-IR": 38, "ta-IN": 39, "te-IN": 40, "mr-IN": 41, "gu-IN": 42, "kn-IN": 43, "ml-IN": 44,
    "si-LK": 45, "ne-NP": 46, "km-KH": 47, "sw-KE": 48, "am-ET": 49, "ha-NG": 50, "zu-ZA": 51,
    "yo-NG": 52, "ig-NG": 53, "af-ZA": 54, "rw-RW": 55, "so-SO": 56, "ny-MW": 57, "ln-CD": 58,
    "or-KE": 59, "ku-TR": 65, "az-AZ": 66, "ka-GE": 67, "hy-AM": 68, "uz-UZ": 69, "tg-TJ": 70,
    "ky-KG": 71, "qu-PE": 80, "ay-BO": 81, "gn-PY": 82, "nah-MX": 83, "mi-NZ": 96,
    "haw-US": 97, "sm-WS": 98, "to-TO": 99,
}
# fmt: on
_IN_DICTIONARY = re.compile(r"[a-z]{2}(-?[A-Z]{2})?")
_NOT_IN_DICTIONARY: Final = frozenset({"ja", "zh", "vi", "he", "iw", "th", "mt", "en-UK", "sl-SL"})

PROMPT_DICTIONARY: Final[dict[str, int]] = {
    **{locale.code: locale.prompt_index for locale in LOCALES},
    **{
        alias: locale.prompt_index
        for locale in LOCALES
        for alias in locale.aliases
        if _IN_DICTIONARY.fullmatch(alias) and alias not in _NOT_IN_DICTIONARY
    },
    **_OFF_CARD,
    AUTO: AUTO_PROMPT_INDEX,
}
"""Name to prompt index, exactly as the checkpoint's processor has it."""


_AMBIGUOUS: Final = ("no", "nor", "no-NO", "Norwegian", "norsk")  # nb-NO or nn-NO


def _key(name: str) -> str:
    """A name without its case, and with one way to join its parts."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_\-(),.]+", "-", letters).strip("-")


def _exact_names() -> dict[str, str]:
    """Names of one locale: codes, aliases that are more than a bare language, "Spanish (Spain)"."""
    names = {}
    for locale in LOCALES:
        full = [alias for alias in locale.aliases if not _BARE.fullmatch(alias)]
        for name in (locale.code, locale.name, f"{locale.native} ({locale.region})", *full):
            names[_key(name)] = locale.code
    return names


def _language_names() -> dict[str, tuple[str, ...]]:
    """Names of a language: its locales, the one that the model's dictionary means first."""
    names: dict[str, tuple[str, ...]] = {}
    for locale in LOCALES:
        bare = [alias for alias in locale.aliases if _BARE.fullmatch(alias)]
        if bare:
            others = (other.code for other in LOCALES if other.language == locale.language)
            codes = tuple(dict.fromkeys((locale.code, *others)))
            for name in (*bare, locale.english, locale.native):
                names[_key(name)] = codes
    return names | {_key(name): ("nb-NO", "nn-NO") for name in _AMBIGUOUS}


_BARE: Final = re.compile(r"[a-z]{2,3}")
_EXACT: Final = _exact_names()
_LANGUAGES: Final = _language_names()
_NO_DEFAULT: Final = frozenset(_key(name) for name in _AMBIGUOUS)

_warned: set[str] = set()


def resolve(name: object, supported: Collection[str] | None = None) -> str:
    """The locale that a name means: "auto", or one of the 40 codes.

    Takes codes in any case ("es-ES", "es_es"), bare languages ("es"), ISO 639-3 ("spa"), English
    and native names ("Spanish", "español"), and enum members with such a value. A bare language
    is the only supported locale of that language if there is just one, else what the model's own
    dictionary calls so (es is es-US, pt is pt-PT, en is en-US, fr is fr-FR). Nothing is ever
    turned into "auto" silently.

    Args:
        name: what the caller wrote.
        supported: codes that the model in use can transcribe; None for all 40.

    Raises:
        UnknownLanguageError: no locale goes by that name; close ones are named.
        AmbiguousLanguageError: several do ("no", "Norwegian").
        UnsupportedLanguageError: the locale is known, the model isn't made for it.
    """
    value = getattr(name, "value", name)
    if not isinstance(value, str) or not value.strip():
        raise UnknownLanguageError(
            f"language={name!r} is not a language; give a locale such as 'es-ES', or 'auto'"
        )
    key = _key(value)
    if key == AUTO:
        return AUTO
    code = _EXACT.get(key) or _of_language(value, key, supported)
    if supported is not None and code not in supported:
        raise UnsupportedLanguageError(
            f"language={value!r} means {code}, which this model can't transcribe; "
            f"it has {', '.join(supported)}"
        )
    if BY_CODE[code].tier == ADAPT and code not in _warned:
        _warned.add(code)
        _log.warning(
            "%s (%s) is adaptation-ready: by its model card the model needs fine-tuning before "
            "it transcribes this language usefully",
            code,
            BY_CODE[code].english,
        )
    return code


def add(locale: Locale) -> None:
    """Make a locale known that a fine-tuned checkpoint has beside the 40, in this process.

    Its slot is what the prompt dictionary has for its code ("id-ID" is 34), else a free one.

    Args:
        locale: with a code "ll-CC"; adding the same again does nothing.

    Raises:
        ConfigurationError: the code or the slot is another's.
    """
    if BY_CODE.get(locale.code) == locale:
        return
    if not re.fullmatch(r"[a-z]{2,3}-[A-Z]{2}", locale.code) or locale.code in BY_CODE:
        raise ConfigurationError(
            f"a locale can't be added as {locale.code!r}; give a code such as 'ca-ES' that isn't "
            "one of the model's own"
        )
    own, free = _OFF_CARD.get(locale.code), _free_slots()
    if locale.prompt_index not in (free if own is None else {own}):
        raise ConfigurationError(
            f"{locale.code} can't have the prompt slot {locale.prompt_index}; take "
            f"{free_slot(locale.code)}"
        )
    BY_CODE[locale.code] = locale
    bare = [locale.language, *(alias for alias in locale.aliases if _BARE.fullmatch(alias))]
    full = [alias for alias in locale.aliases if not _BARE.fullmatch(alias)]
    native = f"{locale.native} ({locale.region})"
    _EXACT.update({_key(name): locale.code for name in (locale.code, locale.name, native, *full)})
    for name in (*bare, locale.english, locale.native):
        _LANGUAGES[_key(name)] = (*_LANGUAGES.get(_key(name), ()), locale.code)
    _TAGS[locale.code.casefold()] = locale.code


def described(codes: Collection[str]) -> list[dict[str, Any]]:
    """Those of some locales that `add` made known, for `add_described` in another process.

    Args:
        codes: of known locales; the 40 need no description, they are known everywhere.
    """
    names = ("code", "english", "region", "native", "prompt_index")
    own = {locale.code for locale in LOCALES}
    return [
        {name: getattr(BY_CODE[code], name) for name in names} for code in codes if code not in own
    ]


def add_described(entry: object) -> None:
    """Make a locale known that `described` describes.

    Raises:
        ConfigurationError: the entry lacks something, or its code or slot is another's.
    """
    try:
        fields = dict(entry)  # type: ignore[call-overload]
        locale = Locale(**(fields | {"tier": READY, "aliases": ()}))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"a locale is described as {entry!r}; code, english, region, native and prompt_index "
            "are due"
        ) from error
    add(locale)


def free_slot(code: str) -> int:
    """The prompt slot for a locale beside the 40: the dictionary's own, or the last free one."""
    return _OFF_CARD.get(code) or max(_free_slots())


def _free_slots() -> set[int]:
    taken = {*PROMPT_DICTIONARY.values(), *(known.prompt_index for known in BY_CODE.values())}
    return set(range(PROMPTS)) - taken


# Regions that the model has no locale for, where the language has several; the rest go by the last.
_NEAREST: Final = {
    "en": ({"au", "ie", "nz", "za", "gi", "mt"}, "en-GB", "en-US"),
    "es": ({"gq", "ad", "gi", "ph"}, "es-ES", "es-US"),
    "fr": ({"us"}, "fr-CA", "fr-FR"),
    "pt": ({"us"}, "pt-BR", "pt-PT"),
}
_CANTONESE: Final = ("zh", "hk")  # no neighbour of Mandarin's


def nearest(name: object, supported: Collection[str] | None = None) -> str:
    """As `resolve`, and another region of a language is the nearest locale: es-MX is es-US.

    Norwegian without more is Bokmål. Chinese of Taiwan and Hong Kong is refused: the model wasn't
    trained on it.

    Raises:
        UnknownLanguageError, UnsupportedLanguageError: as `resolve`.
    """
    try:
        return resolve(name, supported)
    except AmbiguousLanguageError:
        return resolve("nb-NO", supported)
    except UnknownLanguageError:
        value = str(getattr(name, "value", name))
        base, _, region = _key(value).partition("-")
        if not (region and base in _LANGUAGES) or (base, region) == _CANTONESE:
            raise
    if base in _NEAREST:
        regions, there, elsewhere = _NEAREST[base]
        code = there if region in regions else elsewhere
    else:
        code = _LANGUAGES[base][0]
    if supported is not None and code not in supported:
        code = resolve(base, supported)
    _log.info("language=%r is heard as %s, the nearest locale of the model", value, code)
    return code


def names_region(name: object) -> bool:
    """Whether a name is one locale's ("es-ES"), not a language's wherever spoken ("es")."""
    return _key(str(getattr(name, "value", name))) in _EXACT


def _of_language(value: str, key: str, supported: Collection[str] | None) -> str:
    if key not in _LANGUAGES:
        raise _unknown(value, key)
    locales = _LANGUAGES[key]
    usable = [code for code in locales if supported is None or code in supported]
    if len(usable) == 1:
        return usable[0]
    default = locales[0]
    if key in _NO_DEFAULT or (usable and default not in usable):
        raise AmbiguousLanguageError(
            f"language={value!r} may mean {' or '.join(usable or locales)}; name one of them"
        )
    return default


def _unknown(value: str, key: str) -> UnknownLanguageError | UnsupportedLanguageError:
    locales = _LANGUAGES.get(key.partition("-")[0], ())
    if any(_key(slot) == key for slot in _OFF_CARD):
        nearest = f"; the nearest is {' or '.join(locales)}" if locales else ""
        return UnsupportedLanguageError(
            f"language={value!r} has a slot in the model's prompt dictionary, but isn't on the "
            f"model card, so it is untrained{nearest}; `nemotron-voice languages` lists what works"
        )
    if locales and re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]+)+", key):
        hint = f"of that language the model has {' and '.join(locales)}"
    else:
        close = get_close_matches(key, [*_EXACT, *_LANGUAGES], n=5, cutoff=0.6)
        codes = dict.fromkeys(_EXACT.get(match) or _LANGUAGES[match][0] for match in close)
        hint = f"did you mean {' or '.join(codes)}?" if codes else "no name is close"
    return UnknownLanguageError(
        f"language={value!r} is not a language of the model; {hint} "
        "(`nemotron-voice languages` lists all 40; 'auto' detects)"
    )


def _tags() -> dict[str, str]:
    """Spellings with a region, as the vocabulary and the dictionary have them."""
    by_index = {locale.prompt_index: locale.code for locale in LOCALES}
    tags = {
        name.casefold(): by_index[index]
        for name, index in PROMPT_DICTIONARY.items()
        if "-" in name and index in by_index
    }
    return tags | {"sl-sl": "sl-SI", "no-no": "nb-NO"}


_TAGS: Final = _tags()
_ONLY_LOCALE: Final = {
    name: codes[0] for name, codes in _LANGUAGES.items() if len(codes) == 1 and len(name) == 2
}


def locale_of_tag(spelling: str) -> str | None:
    """The locale that a language tag `<spelling>` means, however the vocabulary misspells it.

    "es-ES" is es-ES, and "sl-SL", "ja-JA", "ko-KO", "zh-ZH" are what they try to be. A region that
    no locale has is forgiven where the language has one locale only.
    """
    key = spelling.strip().casefold()
    if key in _TAGS:
        return _TAGS[key]
    language, dash, region = key.partition("-")
    if dash and region.isalpha() and language in _ONLY_LOCALE:
        return _ONLY_LOCALE[language]
    return None
