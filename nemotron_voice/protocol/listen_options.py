"""The query of `/v1/listen`: Deepgram's options and our own, honoured, reported or refused.

Deepgram's parameters: https://developers.deepgram.com/reference/speech-to-text/listen-streaming.
An option that can't be honoured is never ignored silently. Where the text would still be what was
said, it is reported in `warnings`; where the caller relies on it (redaction, speakers), the request
is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from nemotron_voice import languages
from nemotron_voice.config import LATENCIES_MS, Finalize, StreamOptions, check_sample_rate
from nemotron_voice.errors import ConfigurationError, UnknownLanguageError

Encoding = Literal["linear16", "mulaw", "alaw", "opus"]

# G.711 is telephony's, and Opus always decodes at 48 kHz; linear PCM says nothing of its rate.
_DEFAULT_RATES: Final = {"mulaw": 8_000, "alaw": 8_000, "opus": 48_000}

MIN_ENDPOINTING_MS: Final = 10
MAX_ENDPOINTING_MS: Final = 10_000
MAX_QUERY_PARAMETERS: Final = 100
MAX_LANGUAGE: Final = 100  # characters of a name
MAX_SHOWN: Final = 60  # characters of a value in a message

_TRUE: Final = {"true", "1", "yes"}
_FALSE: Final = {"false", "0", "no", "null", "none", ""}

# Options without which the text would not be what the caller relies on.
_REFUSED: Final = {
    "redact": "nothing is redacted here, so text would leak",
    "profanity_filter": "nothing is filtered here",
    "diarize": "speakers aren't told apart; open a stream for each",
    "diarize_model": "speakers aren't told apart; open a stream for each",
    "multichannel": "channels are heard apart only as streams of their own; open one for each",
    "callback": "the server calls nobody; read the results from this connection",
    "replace": "words are not replaced",
    "search": "nothing is searched for",
    "detect_entities": "entities are not told",
    "translate": "nothing is translated",
    "summarize": "nothing is summarised",
    "sentiment": "sentiment is not told",
    "topics": "topics are not told",
    "intents": "intents are not told",
}
# Options that only shape or bias the text; with what happens instead.
_REPORTED: Final = {
    "smart_format": "numbers and dates are written as the model writes them",
    "numerals": "numbers are written as the model writes them",
    "dictation": "spoken punctuation stays words",
    "measurements": "units are written as the model writes them",
    "filler_words": "the model decides which filler words it writes",
    "paragraphs": "text is not divided into paragraphs",
    "utterances": "text is divided by sentences",
    "keyterm": "the model can't be biased towards terms",
    "keywords": "the model can't be biased towards words",
    "language_hint": "languages can't be hinted at; give language=LOCALE, or multi",
    "version": "the server has one version of one model",
    "callback_method": "the server calls nobody",
}
_HARMLESS: Final = {"model", "tag", "extra", "no_delay", "mip_opt_out", "token", "access_token"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """What a client asked for, as far as it is honoured."""

    encoding: Encoding
    sample_rate: int  # Hz of the audio that comes
    language: str = languages.AUTO
    interim_results: bool = False
    endpointing_ms: int | None = None  # silence that ends an utterance, by a detector; None: never
    utterance_end_ms: int | None = None  # gap between words after which UtteranceEnd is sent
    vad_events: bool = False  # send SpeechStarted
    latency_ms: int = 320  # ours
    finalize: Finalize = "sentence"  # ours: finals on Finalize only, or also as sentences end
    replays: bool = False  # ours: the client sends again what a broken connection had heard
    warnings: tuple[str, ...] = ()  # what isn't honoured, to be told to the client

    @property
    def needs_detector(self) -> bool:
        """Whether a voice activity detector must listen."""
        return self.endpointing_ms is not None or self.vad_events

    def stream_options(self) -> StreamOptions:
        """How the engine is to hear it."""
        return StreamOptions(
            language=self.language,
            sample_rate=self.sample_rate,
            latency_ms=self.latency_ms,
            interim_results=self.interim_results or self.utterance_end_ms is not None,
            finalize=self.finalize,
        )


def parse_query(
    pairs: Iterable[tuple[str, str]], supported: Iterable[str] | None = None
) -> ListenOptions:
    """Read a query string's parameters.

    Args:
        pairs: names and values in order, percent-decoded.
        supported: locales of the model, or None for all.

    Raises:
        ConfigurationError: or one of its kinds: a parameter has no such value, or asks for what
            isn't done here.
    """
    given: dict[str, list[str]] = {}
    for count, (name, value) in enumerate(pairs):
        if count >= MAX_QUERY_PARAMETERS:
            raise ConfigurationError(f"more than {MAX_QUERY_PARAMETERS} query parameters")
        given.setdefault(name, []).append(value)
    query = {name: values[-1] for name, values in given.items()}
    warnings = _unhonoured(query)
    encoding = _encoding(query.get("encoding"))
    return ListenOptions(
        encoding=encoding,
        sample_rate=_sample_rate(query.get("sample_rate"), encoding),
        language=_language(query, list(supported) if supported is not None else None, warnings),
        interim_results=_flag(query, "interim_results"),
        endpointing_ms=_endpointing(query.get("endpointing")),
        utterance_end_ms=_utterance_end(query.get("utterance_end_ms")),
        vad_events=_flag(query, "vad_events"),
        latency_ms=_latency(query.get("latency_ms")),
        finalize=_finalize(query.get("finalize")),
        replays=_flag(query, "replays"),
        warnings=tuple(warnings),
    )


def parse_file_query(
    pairs: Iterable[tuple[str, str]], supported: Iterable[str]
) -> tuple[str, tuple[str, ...]]:
    """Read the query of a request whose body is a whole file.

    Returns:
        The locale, or "auto"; and what isn't honoured.

    Raises:
        ConfigurationError: as `parse_query`.
    """
    query = dict(pairs)
    if "encoding" in query:
        raise ConfigurationError(
            "encoding= says that the body is raw audio; send a file with a header (wav, flac, "
            "ogg, mp3), or stream raw audio over WS /v1/listen"
        )
    warnings = _unhonoured(query)
    warnings += [f"{name} is for streams, not for files" for name in query if name in _OF_STREAMS]
    return _language(query, list(supported), warnings), tuple(warnings)


def stream_query(options: StreamOptions, *, replays: bool) -> dict[str, str]:
    """The query that asks a server for a stream with these options; audio is PCM16."""
    return {
        "encoding": "linear16",
        "sample_rate": str(options.sample_rate),
        "channels": "1",
        "language": str(getattr(options.language, "value", options.language)),
        "latency_ms": str(options.latency_ms),
        "interim_results": "true" if options.interim_results else "false",
        "finalize": options.finalize,
        "punctuate": "true",
        "replays": "true" if replays else "false",
    }


_HONOURED: Final = {
    *("encoding", "sample_rate", "channels", "language", "detect_language", "interim_results"),
    *("endpointing", "utterance_end_ms", "vad_events", "punctuate", "latency_ms", "finalize"),
    "replays",
}

_OF_STREAMS: Final = _HONOURED - {"language", "detect_language", "punctuate", "channels"}


def _unhonoured(query: dict[str, str]) -> list[str]:
    """Warnings for what is reported; refuses what is refused."""
    warnings = []
    for name, value in query.items():
        asked = value.casefold() not in _FALSE
        if name in _REFUSED and asked:
            raise ConfigurationError(
                f"{name}={_short(value)} can't be honoured: {_REFUSED[name]}; leave it out"
            )
        if name in _REPORTED and asked:
            warnings.append(f"{name}={_short(value)} is not honoured: {_REPORTED[name]}")
        known = name in _HONOURED or name in _REFUSED or name in _REPORTED or name in _HARMLESS
        if not known:
            warnings.append(f"{_short(name)} is not a parameter of this server")
    if query.get("punctuate", "true").casefold() in _FALSE:
        warnings.append("punctuate=false is not honoured: the model writes its punctuation itself")
    if (channels := query.get("channels", "1")) != "1":
        raise ConfigurationError(
            f"channels={_short(channels)} can't be heard as one caller; send one channel, or "
            "open a stream for each"
        )
    return warnings


def _encoding(value: str | None) -> Encoding:
    name = (value or "").casefold()
    for known in get_args(Encoding):
        if name == known:
            return known  # type: ignore[no-any-return]
    given = f"encoding={_short(value)} is not understood" if value else "encoding is missing"
    raise ConfigurationError(
        f"{given}; choose {', '.join(get_args(Encoding))}, and raw packets of it (a file or a "
        "container goes to POST /v1/listen)"
    )


def _sample_rate(value: str | None, encoding: Encoding) -> int:
    if value is None:
        if encoding not in _DEFAULT_RATES:
            raise ConfigurationError(
                "sample_rate is missing: linear16 doesn't say its own; give it in Hz (8000 for "
                "telephony, 16000, 24000, 48000)"
            )
        return _DEFAULT_RATES[encoding]
    rate = _number("sample_rate", value)
    check_sample_rate(rate)
    return rate


def _language(query: dict[str, str], supported: list[str] | None, warnings: list[str]) -> str:
    value = query.get("language")
    detect = _flag(query, "detect_language")
    if value is None or value.casefold() in {"multi", languages.AUTO}:
        return languages.AUTO
    if len(value) > MAX_LANGUAGE:
        raise UnknownLanguageError(f"language={_short(value)} is no language's name")
    if detect:
        warnings.append(f"language={value} is set aside: detect_language=true detects it")
        return languages.AUTO
    try:
        return languages.resolve(value, supported)
    except ConfigurationError:  # another region than the model's, or no name of a language
        code = languages.nearest(value, supported)
    warnings.append(f"language={value} is heard as {code}, the nearest locale of the model")
    return code


def _endpointing(value: str | None) -> int | None:
    if value is None or value.casefold() in _FALSE - {"0"}:
        return None
    if value.casefold() == "true":
        return MIN_ENDPOINTING_MS  # Deepgram's default
    return _bounded("endpointing", value, MIN_ENDPOINTING_MS, MAX_ENDPOINTING_MS)


def _utterance_end(value: str | None) -> int | None:
    if value is None or value.casefold() in _FALSE:
        return None
    return _bounded("utterance_end_ms", value, 100, 60_000)


def _latency(value: str | None) -> int:
    if value is None:
        return 320
    latency_ms = _number("latency_ms", value)
    if latency_ms not in LATENCIES_MS:
        choices = ", ".join(map(str, LATENCIES_MS))
        raise ConfigurationError(f"latency_ms={latency_ms} is not a mode; choose one of {choices}")
    return latency_ms


def _finalize(value: str | None) -> Finalize:
    for known in get_args(Finalize):
        if value is None or value == known:
            return known if value else "sentence"
    raise ConfigurationError(
        f"finalize={_short(value or '')} is not an option; choose flush or sentence"
    )


def _flag(query: dict[str, str], name: str) -> bool:
    value = query.get(name, "false").casefold()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ConfigurationError(f"{name}={_short(query[name])} is not a flag; write true or false")


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise ConfigurationError(f"{name}={_short(value)} is not a whole number")
    return int(value)


def _short(value: str) -> str:
    """For a message, which goes into a header: clients refuse one of 8 KiB."""
    return value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "..."


def _bounded(name: str, value: str, low: int, high: int) -> int:
    number = _number(name, value)
    if not low <= number <= high:
        raise ConfigurationError(f"{name}={number} is outside {low} to {high} ms")
    return number
