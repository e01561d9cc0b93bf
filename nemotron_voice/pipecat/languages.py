"""The model's locales as Pipecat's `Language`, and back."""

from __future__ import annotations

from collections.abc import Collection

from pipecat.transcriptions.language import Language

from nemotron_voice.languages import nearest

# Pipecat has no "ar-AR": Modern Standard Arabic is plain "ar" there.
_NAMES = {language.value: language for language in Language} | {"ar-AR": Language.AR}
# Written without spaces: finals are joined without one.
_UNSPACED = ("zh", "ja", "th")


def to_language(locale: str | None) -> Language | None:
    """Pipecat's name of a locale; None where no language was detected.

    Each of the 40 has one. A locale that a fine-tuned model has beside them may not: then it is
    that of the language without a region, or None where Pipecat lacks it too.
    """
    if locale is None:
        return None
    return _NAMES.get(locale) or _NAMES.get(locale.partition("-")[0])


def to_locale(language: Language | str | None, supported: Collection[str] | None = None) -> str:
    """The locale ("es-ES") or "auto" that a Pipecat language or a string means, or is nearest to.

    Args:
        language: None is "auto".
        supported: locales of the model in use; None for all.

    Raises:
        ConfigurationError: the model has no such language.
    """
    return nearest(language or "auto", supported)


def joins_without_space(locale: str | None) -> bool:
    """Whether texts of this language are put together without a space."""
    return locale is not None and locale.startswith(_UNSPACED)
