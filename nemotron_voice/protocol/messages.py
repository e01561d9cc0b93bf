"""The messages of Listen v1, each to and from its JSON text.

Deepgram's own fields keep their meaning, so that its clients understand us. Ours stand beside
them: the whole `Transcript` can be put together again from a `Results`.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from nemotron_voice.config import LATENCIES_MS
from nemotron_voice.errors import ProtocolError
from nemotron_voice.transcript import (
    LanguageRun,
    LanguageSource,
    Transcript,
    Word,
    join_texts,
)

MAX_TEXT: Final = 16_384  # characters of a client's message; the largest real one has some 100
MAX_DEADLINE_MS: Final = 60_000
MAX_NUMBER: Final = 1e15  # of a time or a confidence: 30 million years

# ---- client to server


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The client is there, though it has no audio to send."""

    def to_text(self) -> str:
        """As JSON."""
        return '{"type":"KeepAlive"}'


@dataclass(frozen=True, slots=True)
class Finalize:
    """Finalise what was said in the audio sent so far; answered by a Results, empty or not."""

    deadline_ms: int | None = None  # ours: answer with what is known by then

    def to_text(self) -> str:
        """As JSON."""
        return _dump({"type": "Finalize", "deadline_ms": self.deadline_ms})


@dataclass(frozen=True, slots=True)
class CloseStream:
    """The audio has ended: finalise all of it, tell the Metadata, close."""

    def to_text(self) -> str:
        """As JSON."""
        return '{"type":"CloseStream"}'


@dataclass(frozen=True, slots=True)
class Configure:
    """Change settings from the audio sent next onwards; answered by ConfigureSuccess or Error."""

    language: str | None = None  # ours
    latency_ms: int | None = None  # ours

    def to_text(self) -> str:
        """As JSON."""
        return _dump(
            {"type": "Configure", "language": self.language, "latency_ms": self.latency_ms}
        )


ClientMessage = KeepAlive | Finalize | CloseStream | Configure


def parse_client_text(text: str) -> ClientMessage:
    """Read a client's text message.

    Raises:
        ProtocolError: it is too long, no JSON object, or none of the four messages.
    """
    if len(text) > MAX_TEXT:
        raise ProtocolError(f"a text message of {len(text)} characters; {MAX_TEXT} are allowed")
    message = _object(text)
    kind = message.get("type")
    if kind == "KeepAlive":
        return KeepAlive()
    if kind == "CloseStream":
        return CloseStream()
    if kind == "Finalize":
        return Finalize(_whole(message, "deadline_ms", 0, MAX_DEADLINE_MS))
    if kind == "Configure":
        language = message.get("language")
        if language is not None and not (isinstance(language, str) and len(language) <= 100):
            raise ProtocolError('"language" of a Configure is a name')
        latency_ms = _whole(message, "latency_ms", LATENCIES_MS[0], LATENCIES_MS[-1])
        return Configure(language, latency_ms)
    shown = repr(kind[:40]) if isinstance(kind, str) else "missing"
    raise ProtocolError(
        f"a message of type {shown}; send KeepAlive, Finalize, CloseStream or "
        "Configure, and audio as binary messages"
    )


# ---- server to client


@dataclass(frozen=True, slots=True)
class Results:
    """A transcript, interim or final."""

    transcript: Transcript
    from_finalize: bool = False  # answers a Finalize
    speech_final: bool = False  # the detector has heard the utterance end
    request_id: str = ""
    model: str = ""

    def to_text(self) -> str:
        """As JSON: Deepgram's fields, then ours."""
        heard = self.transcript
        return _dump(
            {
                "type": "Results",
                "channel_index": [0, 1],
                "start": heard.start,
                "duration": round(max(0.0, heard.end - heard.start), 4),
                "is_final": heard.is_final,
                "speech_final": self.speech_final,
                "from_finalize": self.from_finalize,
                "channel": {"alternatives": [alternative([heard])]},
                "metadata": {
                    "request_id": self.request_id,
                    "model_info": {"name": self.model, "version": "3.5", "arch": "nemotron"},
                    "model_uuid": "",
                },
                "locale": heard.language,
                "language_source": heard.language_source,
                "language_runs": [
                    {"locale": run.language, "text": run.text, "start": run.start, "end": run.end}
                    for run in heard.languages
                ],
                "end": heard.end,
                "confidence": heard.confidence,
                "flush_id": heard.flush_id,
                "revision": heard.revision,
                "spaced": heard.spaced,
                "complete": heard.complete,
            }
        )


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The detector has heard speech begin."""

    timestamp: float  # seconds of audio

    def to_text(self) -> str:
        """As JSON."""
        return _dump({"type": "SpeechStarted", "channel": [0, 1], "timestamp": self.timestamp})


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """No word has come for as long as `utterance_end_ms` asked."""

    last_word_end: float  # seconds of audio

    def to_text(self) -> str:
        """As JSON."""
        return _dump(
            {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": self.last_word_end}
        )


@dataclass(frozen=True, slots=True)
class Metadata:
    """The last message of a stream that ended well."""

    request_id: str
    duration: float  # seconds of audio heard
    created: str = ""  # ISO 8601
    model: str = ""
    warnings: tuple[str, ...] = ()  # options that weren't honoured

    def to_text(self) -> str:
        """As JSON."""
        return _dump(
            {
                "type": "Metadata",
                "transaction_key": "deprecated",
                "request_id": self.request_id,
                "sha256": "",
                "created": self.created,
                "duration": self.duration,
                "channels": 1,
                "models": [self.model],
                "warnings": list(self.warnings),
            }
        )


@dataclass(frozen=True, slots=True)
class ConfigureSuccess:
    """A Configure holds from the audio on that came after it."""

    request_id: str = ""

    def to_text(self) -> str:
        """As JSON."""
        return _dump({"type": "ConfigureSuccess", "request_id": self.request_id})


@dataclass(frozen=True, slots=True)
class Error:
    """What went wrong, by the name of our exception; the connection closes after it, or not."""

    variant: str  # a name from `nemotron_voice.errors`
    description: str

    def to_text(self) -> str:
        """As JSON."""
        return _dump({"type": "Error", "variant": self.variant, "description": self.description})


ServerMessage = Results | SpeechStarted | UtteranceEnd | Metadata | ConfigureSuccess | Error


def parse_server_text(text: str) -> ServerMessage | None:
    """Read a server's text message; None for a type that a later version may have added.

    Raises:
        ProtocolError: no JSON object, or fields that make no sense.
    """
    message = _object(text)
    kind = message.get("type")
    try:
        if kind == "Results":
            return _results(message)
        if kind == "SpeechStarted":
            return SpeechStarted(_number(message["timestamp"]))
        if kind == "UtteranceEnd":
            return UtteranceEnd(_number(message["last_word_end"]))
        if kind == "Metadata":
            return Metadata(
                _text(message["request_id"]),
                _number(message["duration"]),
                _text(message.get("created", "")),
                _text((message.get("models") or [""])[0]),
                tuple(_text(warning) for warning in message.get("warnings", ())),
            )
        if kind == "ConfigureSuccess":
            return ConfigureSuccess(_text(message.get("request_id", "")))
        if kind == "Error":
            return Error(_text(message.get("variant", "")), _text(message.get("description", "")))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"a {kind} message that makes no sense: {error!r:.200}") from error
    return None


def _results(message: dict[str, Any]) -> Results:
    alternative = message["channel"]["alternatives"][0]
    words = tuple(
        Word(
            _text(word["punctuated_word"]),
            _number(word["start"]),
            _number(word["end"]),
            _number(word["confidence"]),
            _name(word.get("locale")),
        )
        for word in alternative["words"]
    )
    runs = tuple(
        LanguageRun(
            _name(run["locale"]), _text(run["text"]), _number(run["start"]), _number(run["end"])
        )
        for run in message["language_runs"]
    )
    source = message["language_source"]
    if source not in {"tag", "forced", "carried", None}:
        raise ValueError("language_source")
    flush_id, confidence = message["flush_id"], message["confidence"]
    transcript = Transcript(
        text=_text(alternative["transcript"]),
        is_final=message["is_final"] is True,
        language=_name(message["locale"]),
        language_source=cast("LanguageSource | None", source),
        languages=runs,
        words=words,
        start=_number(message["start"]),
        end=_number(message["end"]),
        confidence=None if confidence is None else _number(confidence),
        flush_id=None if flush_id is None else _integer(flush_id),
        revision=_integer(message["revision"]),
        spaced=message["spaced"] is True,
        complete=message.get("complete", True) is True,  # older servers tell nothing of it
    )
    return Results(
        transcript,
        from_finalize=message["from_finalize"] is True,
        speech_final=message["speech_final"] is True,
        request_id=_text(message["metadata"]["request_id"]),
        model=_text(message["metadata"]["model_info"]["name"]),
    )


# ---- JSON


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_STRICT: Final = json.JSONDecoder(parse_constant=_no_constant)


def _object(text: str) -> dict[str, Any]:
    try:
        message = _STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a message that is not JSON: {text[:40]!r}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a message that is no JSON object: {text[:40]!r}")
    return message


def _dump(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _whole(message: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = message.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ProtocolError(f'"{name}" is a whole number from {low} to {high}')
    return value


# A value of another type is refused, not converted: str() of what nests deeply doesn't end well,
# and JSON's numbers have no end (1e999 is infinity, 400 digits are no float).


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} where a number is needed")
    if not abs(value) < MAX_NUMBER:  # so written, NaN is refused too
        raise ValueError("a number without sense")
    return float(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{type(value).__name__} where a whole number is needed")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text is needed")
    return value


def _name(value: Any) -> str | None:
    return None if value is None else _text(value)


# ---- Deepgram's spelling


def _bare(word: str) -> str:
    """A word in small letters and without punctuation, but for what stands inside it."""
    letters = word.casefold()
    inside = [place for place, letter in enumerate(letters) if not _is_punctuation(letter)]
    return letters[inside[0] : inside[-1] + 1] if inside else word


def _is_punctuation(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "P"


def _base(locale: str | None) -> str | None:
    """Deepgram tells languages without regions where it detects them."""
    return locale.partition("-")[0] if locale else None


def alternative(heard: Sequence[Transcript]) -> dict[str, Any]:
    """Transcripts in a row as one of Deepgram's alternatives, each word with its locale besides."""
    words = [
        {
            "word": _bare(word.text),
            "start": word.start,
            "end": word.end,
            "confidence": word.confidence,
            "language": _base(word.language),
            "punctuated_word": word.text,
            "locale": word.language,
        }
        for transcript in heard
        for word in transcript.words
    ]
    counts = Counter(str(word["language"]) for word in words if word["language"])
    spoken = [language for language, _ in counts.most_common()]
    confidences = [word.confidence for transcript in heard for word in transcript.words]
    return {
        "transcript": join_texts(heard),
        "confidence": sum(confidences) / len(confidences) if confidences else 0.0,
        # Absent, not empty: LiveKit's plugin takes the first of a list that is there.
        **({"languages": spoken} if spoken else {}),
        "words": words,
    }
