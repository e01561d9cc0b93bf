"""When a detected language means "switch now": a policy over finals, free of any framework."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nemotron_voice import languages
from nemotron_voice.errors import (
    AmbiguousLanguageError,
    ConfigurationError,
    UnknownLanguageError,
    UnsupportedLanguageError,
)
from nemotron_voice.transcript import Transcript

# Languages that an agent can't tell apart when it speaks: one bot for both.
_SAME_AS: Final = {"nb": "no", "nn": "no"}
# Where no spaces part the words: letters that say as much as one word elsewhere.
_LETTERS_PER_WORD: Final = {"zh": 2, "ja": 3, "th": 4}


@dataclass(frozen=True, slots=True)
class LanguageChange:
    """The caller has gone over to another language, and this is what the agent does."""

    before: str  # locale that the agent spoke until now
    after: str  # locale that it speaks from now on; `before` where it can't follow
    detected: str  # the caller's locale, one of the 40
    spoken: bool  # whether the agent speaks that language


class LanguageSwitchPolicy:
    """Follows the caller's language from final to final.

    policy = LanguageSwitchPolicy(["en-US", "es-US"])
    change = policy.hear(transcript)  # None, or a LanguageChange

    A language counts as the caller's once finals in a row have brought `min_words` different words
    of it. So a sentence switches at once; "No." or "OK", which the model may take for any language,
    never does, however often it is said; "Sí." and then "Muchas gracias." do. Evidence is only what
    the model told (`language_source="tag"`) with enough confidence. A language that was carried on
    or forced says nothing about the caller, and neither adds nor clears.

    A region alone never switches: a caller detected as es-ES gets the agent's es-US when that is
    its Spanish. A language that the agent doesn't speak leaves it in its own, and is reported once,
    until the caller's language has changed again.

    Not thread-safe: one policy for one call.
    """

    def __init__(
        self,
        agent_languages: Iterable[object],
        *,
        initial: object | None = None,
        min_words: int = 3,
        min_confidence: float = 0.5,
    ) -> None:
        """Start a call.

        Args:
            agent_languages: what the agent speaks: any names that `languages.resolve` takes, or
                another region of such a language ("es-MX"). Where several are of one language, the
                caller's own region is chosen if it is there, else the first.
            initial: what the agent speaks first; None: the first of `agent_languages`.
            min_words: different words that show a language. In Chinese 2 letters count as a word,
                in Japanese 3, in Thai 4.
            min_confidence: mean of the words' confidence, 0..1, below which a final is no evidence.

        Raises:
            ConfigurationError: no languages, a name of none, `initial` not among them, or a number
                out of range.
        """
        self.agent_languages = tuple(dict.fromkeys(map(agent_locale, agent_languages)))
        if not self.agent_languages:
            raise ConfigurationError(
                "agent_languages is empty; name what the agent speaks, such as ['en-US', 'es-US']"
            )
        self.current = self.agent_languages[0] if initial is None else agent_locale(initial)
        if self.current not in self.agent_languages:
            raise ConfigurationError(
                f"initial={initial!r} is none of the agent's languages; "
                f"it speaks {', '.join(self.agent_languages)}"
            )
        if isinstance(min_words, bool) or not isinstance(min_words, int) or min_words < 1:
            raise ConfigurationError(
                f"min_words={min_words!r} must be a whole number, 1 or more; the default is 3"
            )
        if not 0 <= min_confidence <= 1:
            raise ConfigurationError(
                f"min_confidence={min_confidence!r} must be from 0 to 1; the default is 0.5"
            )
        self._min_words = min_words
        self._min_confidence = min_confidence
        self._caller = _language_of(self.current)
        self._candidate: str | None = None
        self._evidence: dict[str, float] = {}

    def hear(self, transcript: Transcript) -> LanguageChange | None:
        """Take the next transcript of the call; interims and silence change nothing.

        Returns:
            The change that this final has made certain, once; None otherwise.
        """
        detected = transcript.language
        if not transcript.is_final or transcript.language_source != "tag" or detected is None:
            return None
        weights = self._weights(transcript, detected)
        if not weights:
            return None
        language = _language_of(detected)
        if language != self._candidate:
            self._candidate, self._evidence = language, {}
        if language == self._caller:
            return None
        self._evidence |= weights
        if sum(self._evidence.values()) < self._min_words:
            return None
        self._caller, self._evidence = language, {}
        return self._follow(detected)

    def _follow(self, detected: str) -> LanguageChange | None:
        before = self.current
        after = self._in_agents_words(detected)
        if after is None:
            return LanguageChange(before, before, detected, spoken=False)
        if after == before:  # back from a language that the agent doesn't speak
            return None
        self.current = after
        return LanguageChange(before, after, detected, spoken=True)

    def _in_agents_words(self, detected: str) -> str | None:
        """The agent's locale for a caller's: the one spoken, the same, or the first akin."""
        akin = [
            locale
            for locale in self.agent_languages
            if _language_of(locale) == _language_of(detected)
        ]
        for choice in (self.current, detected):
            if choice in akin:
                return choice
        return akin[0] if akin else None

    def _weights(self, transcript: Transcript, language: str) -> dict[str, float]:
        """What the final says in its language, each different piece with its weight in words."""
        words = [word for word in transcript.words if word.language == language]
        if not words or sum(word.confidence for word in words) / len(words) < self._min_confidence:
            return {}
        pieces = [_letters(word.text) for word in words]
        per_word = _LETTERS_PER_WORD.get(_language_of(language))
        if per_word is not None:
            phrase = "".join(pieces)
            return {phrase: len(phrase) / per_word} if phrase else {}
        return {piece: 1.0 for piece in pieces if piece}


def agent_locale(name: object) -> str:
    """The locale that an agent's language means: one of the 40, or another region of theirs.

    Agents speak with voices, of which there are more regions than the model tells apart.

    Raises:
        ConfigurationError: the model can't detect a language of that name.
    """
    try:
        locale = languages.resolve(name)
    except (UnknownLanguageError, UnsupportedLanguageError):
        value = str(getattr(name, "value", name)).strip().replace("_", "-")
        base, dash, region = value.partition("-")
        if not (dash and region and _is_language(base)):
            raise
        return f"{base.lower()}-{region.upper() if len(region) == 2 else region}"
    except AmbiguousLanguageError:  # Norwegian: the two are one for an agent
        return "nb-NO"
    if locale == languages.AUTO:
        raise ConfigurationError(
            f"{name!r} is not a language that an agent can speak; name a locale such as 'es-US'"
        )
    return locale


def language_name(locale: str) -> str:
    """English name of a locale's language: "Spanish" for es-US, and for es-MX too."""
    if locale in languages.BY_CODE:
        return languages.BY_CODE[locale].english
    base = locale.partition("-")[0]
    return next(known.english for known in languages.BY_CODE.values() if known.language == base)


def _is_language(base: str) -> bool:
    return any(base.lower() == locale.language for locale in languages.BY_CODE.values())


def _language_of(locale: str) -> str:
    base = locale.partition("-")[0]
    return _SAME_AS.get(base, base)


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())
