"""The model's locales as Pipecat's `Language`, and back."""

from __future__ import annotations

from collections.abc import Collection

from pipecat.transcriptions.language import Language

from nemotron_voice.languages import nearest

# Pipecat has no "ar-AR": Modern Standard Arabic is plain "ar" there.
_OWN_NAMES = {"ar-AR": Language.AR}
# Written without spaces: finals are joined without one.
_UNSPACED = ("zh", "ja", "th")


def to_language(locale: str | None) -> Language | None:
    """Pipecat's name of one of the 40 locales; None where no language was detected."""
    if locale is None:
        return None
    return _OWN_NAMES.get(locale) or Language(locale)


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
