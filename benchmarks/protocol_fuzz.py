"""Mutated messages, queries and orders of messages: does anything but a documented error come out?

    python -m benchmarks.protocol_fuzz --inputs 10000000 --seed 1

Contract: `parse_query` and `parse_file_query` return or raise ConfigurationError, the parsers of
messages and ListenSession return or raise ProtocolError. What was understood is understood again
from its own text; a session loses no byte, gives out whole samples and nothing after CloseStream.
Writes docs/results/protocol_fuzz.json; a finding comes with the input that shows it.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer
from rich.progress import Progress

from nemotron_voice import languages
from nemotron_voice.config import LATENCIES_MS
from nemotron_voice.errors import ConfigurationError, ProtocolError
from nemotron_voice.protocol import (
    Audio,
    CloseStream,
    Configure,
    ConfigureSuccess,
    Error,
    Finalize,
    KeepAlive,
    ListenOptions,
    ListenSession,
    Metadata,
    Results,
    SpeechStarted,
    UtteranceEnd,
    parse_client_text,
    parse_query,
    parse_server_text,
)
from nemotron_voice.protocol.listen_options import Encoding, parse_file_query
from nemotron_voice.protocol.messages import ClientMessage, ServerMessage
from nemotron_voice.transcript import LanguageRun, Transcript, Word

MAX_FINDINGS: Final = 50
SESSION_MESSAGES: Final = 40

_CODES: Final = tuple(locale.code for locale in languages.LOCALES)
_HOSTILE_TEXTS: Final = (
    *(
        "",
        " ",
        "\0",
        "\ud800",
        "\udfff\ud800",
        "\u202e",
        "\ufeff",
        "İ",
        "ß",
        "\U0001f600",
        "e\u0301",
    ),
    *("²", "٣", "1_0", "+1", "-0", "1e3", "0x10", " 16000 ", "nan", "inf", "true", "null", "NaN"),
    *("A" * 5_000, "en-" * 50, "[" * 300, "%00", "../../etc/passwd", "\r\nx: y", "multi", "auto"),
)
_HOSTILE_JSON: Final = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E400", "9" * 400, "9" * 5_000),
    *("-0", "-0.0", "1e-400", "0.1e1", '"\\ud800"', '"\\u0000"', "[]", "{}", "null", "true"),
    *("[" * 400, "[" * 3_000, '{"a":' * 900, "[" * 940 + "]" * 940, '"', "\\", "\u2028", "//", ","),
)
_DEEP: Final = (400, 900, 960, 990, 1_200)


# ---- what is valid


def _word(rng: random.Random) -> str:
    letters = "aeiourstlnäéñçžя語ไกम्\u0627.,?¿!'\u2019-0123"
    return "".join(rng.choices(letters, k=rng.randint(1, 9)))


def _transcript(rng: random.Random) -> Transcript:
    words = []
    at = 0.08 * rng.randrange(100_000)
    for _ in range(rng.randrange(6)):
        locale = rng.choice([None, *_CODES])
        words.append(Word(_word(rng), at, at + 0.08, rng.random(), locale))
        at += 0.08 * rng.randint(1, 9)
    return Transcript(
        text=" ".join(word.text for word in words),
        is_final=rng.random() < 0.5,
        language=rng.choice([None, *_CODES]),
        language_source=rng.choice(["tag", "forced", "carried", None]),
        languages=tuple(LanguageRun(w.language, w.text, w.start, w.end) for w in words[:2]),
        words=tuple(words),
        start=words[0].start if words else at,
        end=at,
        confidence=rng.random() if words else None,
        flush_id=rng.choice([None, 0, rng.randrange(1_000)]),
        revision=rng.randrange(100_000),
        spaced=rng.random() < 0.8,
    )


def _client_message(rng: random.Random) -> ClientMessage:
    return rng.choice(
        (
            KeepAlive(),
            CloseStream(),
            Finalize(rng.choice([None, rng.randrange(60_001)])),
            Configure(rng.choice([None, *_CODES]), rng.choice([None, *LATENCIES_MS])),
        )
    )


def _server_message(rng: random.Random) -> ServerMessage:
    if rng.random() < 0.6:
        flags = (rng.random() < 0.5, rng.random() < 0.5)
        return Results(_transcript(rng), *flags, request_id="a1", model="demo")
    return rng.choice(
        (
            SpeechStarted(rng.random()),
            UtteranceEnd(rng.random()),
            Metadata("a1", rng.random(), "2026-01-01T00:00:00", "demo", ("tag is unknown",)),
            ConfigureSuccess("a1"),
            Error("ProtocolError", "audio after CloseStream"),
        )
    )


_QUERY: Final[dict[str, tuple[str, ...]]] = {
    "encoding": ("linear16", "mulaw", "alaw", "opus", "flac", "LINEAR16"),
    "sample_rate": ("8000", "16000", "48000", "7999", "1", "999999999", "16000.0"),
    "channels": ("1", "2", "0"),
    "language": ("multi", "auto", "en", "es-MX", "zh-TW", "no", "klingon", "en_US", *_CODES),
    "latency_ms": ("80", "160", "320", "560", "1120", "81"),
    "finalize": ("flush", "sentence", "never"),
    "endpointing": ("true", "false", "0", "10", "300", "10001"),
    "utterance_end_ms": ("1000", "99", "false", "60000"),
    **dict.fromkeys(
        (
            *("interim_results", "vad_events", "replays", "detect_language", "punctuate"),
            *("redact", "diarize", "smart_format", "keyterm", "callback", "tag", "model", "xyz"),
        ),
        ("true", "false", "1", "0", "yes", "maybe", ""),
    ),
}


def _pairs(rng: random.Random) -> list[tuple[str, str]]:
    """A query: mostly a valid one with a value or a name changed."""
    pairs = [("encoding", "linear16"), ("sample_rate", "16000")] if rng.random() < 0.8 else []
    for _ in range(rng.randrange(5)):
        name = rng.choice(tuple(_QUERY))
        pairs.append((name, rng.choice(_QUERY[name])))
    if rng.random() < 0.02:
        pairs *= rng.randint(1, 40)
    for place, (name, value) in enumerate(pairs):
        if rng.random() < 0.15:
            pairs[place] = (name, mutate_text(rng, value))
        elif rng.random() < 0.03:
            pairs[place] = (mutate_text(rng, name), value)
    rng.shuffle(pairs)
    return pairs


# ---- what is not


def mutate_text(rng: random.Random, text: str) -> str:
    """Characters flipped, cut, doubled, put in; or something hostile instead."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, to = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        match rng.randrange(7):
            case 0 if text:
                at = min(at, len(text) - 1)
                text = text[:at] + chr(ord(text[at]) ^ (1 << rng.randrange(7))) + text[at + 1 :]
            case 1:
                text = text[:at]
            case 2:
                text = text[:at] + text[to:]
            case 3:
                text = text[:to] + text[at:]
            case 4:
                text = text[:at] + rng.choice(_HOSTILE_TEXTS) + text[at:]
            case 5:
                text = text[:at] + chr(rng.randrange(0x110000)) + text[at:]
            case _:
                text = rng.choice(_HOSTILE_TEXTS) if rng.random() < 0.3 else text
    return text


_SCALARS: Final = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400),
    *(0.0, -0.0, 1e308, -1.5, 5e-324, "12", "1e5"),
    *("Results", "Finalize", "KeepAlive", "tag", "en-US"),
)


def _json_value(rng: random.Random) -> Any:
    """Something of any type."""
    match rng.randrange(7):
        case 0:
            return rng.choice(_HOSTILE_TEXTS)
        case 1:
            return {rng.choice(("type", "start", "x")): rng.choice((1, "a", None))}
        case 2:
            deep: Any = "bottom"
            for _ in range(rng.choice(_DEEP) if rng.random() < 0.1 else 3):
                deep = [deep]
            return deep
        case 3:
            return [rng.choice((1, "a", None, {})) for _ in range(rng.randrange(4))]
        case 4:
            return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(6)))
        case _:
            return rng.choice(_SCALARS)


def _places(value: Any, places: list[tuple[Any, Any]], depth: int = 9) -> list[tuple[Any, Any]]:
    if isinstance(value, dict | list) and depth:
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            _places(value[key], places, depth - 1)
    return places


def _confuse(rng: random.Random, text: str) -> str:
    """Valid JSON whose values have other types, or are missing."""
    message = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        inside, key = rng.choice(_places(message, []))
        if isinstance(inside, dict) and rng.random() < 0.2:
            del inside[key]
            if not message:
                break
        elif isinstance(inside, dict) and rng.random() < 0.1:
            inside[mutate_text(rng, key)] = inside[key]
        else:
            inside[key] = _json_value(rng)
    try:
        return json.dumps(message, ensure_ascii=rng.random() < 0.5)
    except RecursionError:
        return text


def _message_text(rng: random.Random, make: Callable[[random.Random], Any]) -> str:
    """A message of the wire, mostly damaged."""
    text: str = make(rng).to_text()
    match rng.randrange(8):
        case 0:
            return text
        case 1 | 2 | 3:
            return _confuse(rng, text)
        case 4:
            damaged = bytearray(text.encode("utf-8", "replace"))
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            return damaged.decode("utf-8", rng.choice(("replace", "surrogateescape")))
        case 5:
            other: str = make(rng).to_text()
            return text[: rng.randrange(len(text))] + other[rng.randrange(len(other)) :]
        case 6:
            at = rng.randrange(len(text))
            to = at + rng.randrange(4)
            return text[:at] + rng.choice(_HOSTILE_JSON) + text[to:]
        case _:
            return mutate_text(rng, text)


# ---- the contracts


class BrokenContractError(Exception):
    """An invariant does not hold."""


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenContractError(what)


def fuzz_query(rng: random.Random, shown: list[Any]) -> str | None:
    """One query; the name of the error that refused it."""
    pairs = _pairs(rng)
    supported = rng.choice((None, _CODES, ("en-US", "es-ES")))
    shown[:] = pairs, supported
    try:
        options = parse_query(pairs, supported)
    except ConfigurationError as error:
        _must(len(str(error)) < 1_000, "an error may not be as long as the query")
        return type(error).__name__
    _must(options.encoding in get_args(Encoding), "encoding")
    _must(8_000 <= options.sample_rate <= 48_000, "sample_rate")
    _must(options.latency_ms in LATENCIES_MS, "latency_ms")
    _must(all(len(warning) < 1_000 for warning in options.warnings), "a long warning")
    heard = options.stream_options()
    _must(heard.language == "auto" or heard.language in (supported or _CODES), "language")
    return None


def fuzz_file_query(rng: random.Random, shown: list[Any]) -> str | None:
    """One query of a file."""
    pairs = [pair for pair in _pairs(rng) if pair[0] != "encoding" or rng.random() < 0.1]
    shown[:] = [pairs]
    try:
        language, _ = parse_file_query(pairs, _CODES)
    except ConfigurationError as error:
        return type(error).__name__
    _must(language == "auto" or language in _CODES, "language")
    return None


def fuzz_client_text(rng: random.Random, shown: list[Any]) -> str | None:
    """One text message of a client."""
    shown[:] = [text := _message_text(rng, _client_message)]
    try:
        message = parse_client_text(text)
    except ProtocolError as error:
        _must(len(str(error)) < 1_000, "an error may not be as long as the message")
        Error("ProtocolError", str(error)).to_text().encode()  # it will be sent
        return type(error).__name__
    _must(parse_client_text(message.to_text()) == message, "a round trip changes it")
    return None


def fuzz_server_text(rng: random.Random, shown: list[Any]) -> str | None:
    """One text message of a server."""
    shown[:] = [text := _message_text(rng, _server_message)]
    try:
        message = parse_server_text(text)
    except ProtocolError as error:
        _must(len(str(error)) < 1_000, "an error may not be as long as the message")
        return type(error).__name__
    if message is not None:
        _must(parse_server_text(message.to_text()) == message, "a round trip changes it")
    return None


@dataclass(slots=True)
class _Talk:
    """A session, and what must be true of it."""

    session: ListenSession
    sent: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def send(self, message: bytes | str) -> str | None:
        """One message; the name of the error that refused it."""
        try:
            if isinstance(message, bytes):
                events = self.session.receive_bytes(message)
                self.sent += b"" if self.ended else message
            else:
                events = self.session.receive_text(message)
        except ProtocolError as error:
            return type(error).__name__
        for event in events:
            if isinstance(event, KeepAlive):
                continue
            _must(not self.ended, f"{event} after the end")
            self.ended = isinstance(event, CloseStream)
            if isinstance(event, Audio):
                _must(len(event.data) > 0, "empty audio")
                self.heard += event.data
                if self.session.options.encoding == "linear16":
                    _must(len(event.data) % 2 == 0, "half a sample")
        return None

    def check(self) -> None:
        """At the end."""
        rest = len(self.sent) - len(self.heard)
        _must(rest in ((0, 1) if self.session.options.encoding == "linear16" else (0,)), "lost")
        _must(self.sent.startswith(self.heard), "changed")


class SessionFuzz:
    """Messages in any order, into one session after another; an input is one message."""

    def __init__(self) -> None:
        self._talk: _Talk | None = None
        self._left = 0
        self._past: list[bytes | str] = []

    def __call__(self, rng: random.Random, shown: list[Any]) -> str | None:
        """One message."""
        if self._left == 0:
            encoding = rng.choice(get_args(Encoding))
            options = ListenOptions(encoding=encoding, sample_rate=16_000)
            self._talk, self._past = _Talk(ListenSession(options)), []
            self._left = rng.randint(1, SESSION_MESSAGES)
        assert self._talk is not None
        self._left -= 1
        if rng.random() < 0.6:
            message: bytes | str = rng.randbytes(rng.choice((0, 1, 2, 3, 7, 320, 641)))
            if not message and rng.random() < 0.9:
                message = b"\0"
        elif rng.random() < 0.5:
            message = rng.choice((KeepAlive(), Finalize(), Configure("en-US"))).to_text()
        else:
            message = _message_text(rng, _client_message)
        self._past.append(message)
        shown[:] = self._past
        try:
            refused = self._talk.send(message)
            if self._left == 0:
                self._talk.check()
        except BaseException:
            self._left = 0  # the next one is not to blame
            raise
        return refused


TARGETS: Final[dict[str, float]] = {  # and their share of the inputs
    "parse_query": 0.15,
    "parse_file_query": 0.05,
    "parse_client_text": 0.3,
    "parse_server_text": 0.3,
    "ListenSession": 0.2,
}


def fuzz(inputs: int, seed: int, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Run all targets; the figures."""
    fuzzers: dict[str, Callable[[random.Random, list[Any]], str | None]] = {
        "parse_query": fuzz_query,
        "parse_file_query": fuzz_file_query,
        "parse_client_text": fuzz_client_text,
        "parse_server_text": fuzz_server_text,
        "ListenSession": SessionFuzz(),
    }
    by_target: dict[str, Any] = {}
    findings: list[dict[str, str]] = []
    began = time.monotonic()
    for name, share in TARGETS.items():
        rng = random.Random(f"{seed} {name}")
        refused: Counter[str] = Counter()
        shown: list[Any] = []
        slowest_s = 0.0
        count = round(inputs * share)
        for number in range(count):
            asked = time.perf_counter()
            try:
                error = fuzzers[name](rng, shown)
            except Exception as broken:  # noqa: BLE001 - that is what is looked for
                if len(findings) < MAX_FINDINGS:
                    findings.append(
                        {"target": name, "error": repr(broken)[:300], "input": repr(shown)[:2_000]}
                    )
                error = "finding"
            slowest_s = max(slowest_s, time.perf_counter() - asked)
            if error is not None:
                refused[error] += 1
            if progress is not None and number % 1_000 == 999:
                progress(1_000)
        by_target[name] = {
            "inputs": count,
            "refused": dict(refused.most_common()),
            "slowest_ms": round(1_000 * slowest_s, 1),
        }
    return {
        "inputs": sum(target["inputs"] for target in by_target.values()),
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "targets": by_target,
        "findings": len(findings),
        "found": findings,
    }


def summary(figures: dict[str, Any]) -> str:
    """In a sentence."""
    refused = sum(sum(t["refused"].values()) for t in figures["targets"].values())
    return (
        f"{figures['inputs']:,} inputs in {figures['seconds']:.0f} s: {refused:,} refused, each "
        f"with a documented error; findings: {figures['findings']}."
    )


def main(
    inputs: Annotated[int, typer.Option(help="In all")] = 10_000_000,
    seed: Annotated[int, typer.Option(help="Of all that is random")] = 1,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/protocol_fuzz.json"
    ),
) -> None:
    """Fuzz and print."""
    logging.getLogger("nemotron_voice").setLevel(logging.ERROR)  # of languages that are rough
    with Progress() as progress:
        task = progress.add_task("inputs", total=inputs)
        figures = fuzz(inputs, seed, lambda done: progress.advance(task, done))
    results.write_text(json.dumps(figures, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    typer.echo(summary(figures))
    for finding in figures["found"]:
        typer.echo(f"{finding['target']}: {finding['error']}\n    {finding['input'][:300]}")
    raise typer.Exit(int(figures["findings"] > 0))


if __name__ == "__main__":
    typer.run(main)
