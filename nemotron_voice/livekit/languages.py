"""Languages as LiveKit names them, as the model's locales."""

from __future__ import annotations

from collections.abc import Collection

from nemotron_voice.languages import nearest


def to_locale(language: str | None, supported: Collection[str] | None = None) -> str:
    """The locale ("es-ES") or "auto" that a `LanguageCode` or a string means, or is nearest to.

    Args:
        language: LiveKit's own words for "several" mean "auto", as does None.
        supported: locales of the model in use; None for all.

    Raises:
        ConfigurationError: the model has no such language.
    """
    if language is None or str(language).lower() in {"", "auto", "multi"}:
        return "auto"
    return nearest(str(language), supported)
