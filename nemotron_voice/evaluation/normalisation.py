"""How texts are made comparable before errors are counted: a named choice, printed with results."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Final


class Normaliser(StrEnum):
    """The choices; the first is the default."""

    multilingual = "multilingual"
    basic = "basic"
    whisper = "whisper"
    none = "none"


DESCRIPTIONS: Final = {
    Normaliser.multilingual: "lower case, no punctuation; accents and vowel marks of every script "
    "are kept (whisper-normalizer's basic one with marks)",
    Normaliser.basic: "Whisper's basic one: as multilingual, but breaks words of Hindi and Thai at "
    "vowel marks",
    Normaliser.whisper: "Whisper's English one for English (digits, contractions spelled out), "
    "multilingual for others",
    Normaliser.none: "as written, with case and punctuation",
}


def normalise(text: str, locale: str | None, normaliser: Normaliser) -> str:
    """A text as it is compared, words apart by one space.

    Args:
        text: of the reference, or what was heard.
        locale: of the clip; None where nobody says.
        normaliser: which.
    """
    english = locale is not None and locale.startswith("en-")
    return " ".join(_function(normaliser, english=english)(text).split())


@cache
def _function(normaliser: Normaliser, *, english: bool) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer  # noqa: PLC0415 - of an extra
    from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415

    if normaliser is Normaliser.none:
        return str
    if normaliser is Normaliser.whisper and english:
        chosen: Callable[[str], str] = EnglishTextNormalizer()
    else:
        chosen = BasicTextNormalizer(preserve_marks=normaliser is not Normaliser.basic)
    return chosen
