"""Each message to and from its text: nothing of a Transcript is lost, and Deepgram's types fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from deepgram.listen.v1 import types as deepgram
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from nemotron_voice import languages
from nemotron_voice.config import LATENCIES_MS
from nemotron_voice.errors import ProtocolError
from nemotron_voice.protocol import (
    CloseStream,
    Configure,
    ConfigureSuccess,
    Error,
    Finalize,
    KeepAlive,
    Metadata,
    Results,
    SpeechStarted,
    UtteranceEnd,
    parse_client_text,
    parse_server_text,
)
from nemotron_voice.protocol.messages import MAX_DEADLINE_MS, MAX_TEXT
from nemotron_voice.transcript import LanguageRun, Transcript, Word

LOCALES = st.none() | st.sampled_from([locale.code for locale in languages.LOCALES])
TEXTS = st.text(max_size=30)  # of any script, without lone surrogates
TIMES = st.floats(0, 1e6)
SHARES = st.floats(0, 1)
WORDS = st.builds(Word, TEXTS, TIMES, TIMES, SHARES, LOCALES)
RUNS = st.builds(LanguageRun, LOCALES, TEXTS, TIMES, TIMES)
TRANSCRIPTS = st.builds(
    Transcript,
    text=TEXTS,
    is_final=st.booleans(),
    language=LOCALES,
    language_source=st.sampled_from(["tag", "forced", "carried", None]),
    languages=st.lists(RUNS, max_size=3).map(tuple),
    words=st.lists(WORDS, max_size=5).map(tuple),
    start=TIMES,
    end=TIMES,
    confidence=st.none() | SHARES,
    flush_id=st.none() | st.integers(0, 10**9),
    revision=st.integers(0, 10**9),
    spaced=st.booleans(),
    complete=st.booleans(),
)
RESULTS = st.builds(
    Results, TRANSCRIPTS, from_finalize=st.booleans(), speech_final=st.booleans(),
    request_id=TEXTS, model=TEXTS,
)  # fmt: skip


def transcript(*words: Word, **changes: Any) -> Transcript:
    fields: dict[str, Any] = {
        "text": " ".join(word.text for word in words),
        "is_final": True,
        "language": "en-US",
        "language_source": "tag",
        "languages": (),
        "words": words,
        "start": 1.2,
        "end": 2.0,
        "confidence": 0.5,
        "flush_id": None,
        "revision": 7,
    }
    return Transcript(**(fields | changes))


# ---- Results


@given(RESULTS)
def test_a_transcript_is_the_same_after_the_wire(results: Results) -> None:
    assert parse_server_text(results.to_text()) == results


@given(RESULTS)
def test_results_have_what_deepgrams_own_types_require(results: Results) -> None:
    message = json.loads(results.to_text())
    theirs = TypeAdapter(deepgram.ListenV1Results).validate_python(message)
    assert isinstance(theirs, deepgram.ListenV1Results)
    (alternative,) = theirs.channel.alternatives
    heard = results.transcript
    assert alternative.transcript == heard.text
    assert [word.punctuated_word for word in alternative.words] == [w.text for w in heard.words]
    assert (theirs.is_final, theirs.from_finalize) == (heard.is_final, results.from_finalize)
    assert theirs.speech_final == results.speech_final
    assert theirs.metadata.request_id == results.request_id
    assert theirs.duration >= 0


def test_a_word_is_told_bare_and_with_its_punctuation() -> None:
    texts = ["¿Qué?", "don't", "(well-known)", "3,5", "U.S.A.", "—", "STRASSE", "“Ja”", "%5"]
    words = [Word(text, 1.0, 1.2, 0.9, "en-US") for text in texts]
    told = json.loads(Results(transcript(*words)).to_text())["channel"]["alternatives"][0]["words"]
    assert [word["word"] for word in told] == [
        *("qué", "don't", "well-known", "3,5", "u.s.a", "—", "strasse", "ja", "5"),
    ]
    assert [word["punctuated_word"] for word in told] == texts


def test_languages_are_told_bare_and_by_how_much_was_said_in_them() -> None:
    words = [
        Word("hola", 0, 1, 0.9, "es-ES"),
        Word("we", 1, 2, 0.9, "en-US"),
        Word("go", 2, 3, 0.9, "en-GB"),
        Word("eh", 3, 4, 0.9, None),
    ]
    message = json.loads(Results(transcript(*words)).to_text())
    alternative = message["channel"]["alternatives"][0]
    assert alternative["languages"] == ["en", "es"]
    assert [word["language"] for word in alternative["words"]] == ["es", "en", "en", None]
    assert [word["locale"] for word in alternative["words"]] == ["es-ES", "en-US", "en-GB", None]


def test_an_empty_answer_has_numbers_where_deepgram_has_numbers() -> None:
    empty = transcript(confidence=None, start=3.0, end=2.5)
    message = json.loads(Results(empty).to_text())
    assert message["channel"]["alternatives"][0]["confidence"] == 0.0
    assert message["duration"] == 0.0
    assert message["confidence"] is None


def test_a_server_that_has_no_word_for_incomplete_answers_is_understood() -> None:
    message = json.loads(Results(transcript(complete=False)).to_text())
    assert message.pop("complete") is False
    results = parse_server_text(json.dumps(message))
    assert isinstance(results, Results)
    assert results.transcript.complete


# ---- the other messages of a server


@pytest.mark.parametrize(
    "message",
    [
        SpeechStarted(1.5),
        UtteranceEnd(2.25),
        Metadata("id", 12.5, "2026-01-01T00:00:00+00:00", "demo", ("a", "b")),
        Metadata("id", 0.0),
        ConfigureSuccess("id"),
        Error("ProtocolError", "what — “and” why"),
    ],
)
def test_each_message_of_a_server_is_the_same_after_the_wire_and_fits_deepgrams_type(
    message: SpeechStarted | UtteranceEnd | Metadata | ConfigureSuccess | Error,
) -> None:
    text = message.to_text()
    assert parse_server_text(text) == message
    theirs: Any = getattr(deepgram, f"ListenV1{type(message).__name__}")
    TypeAdapter(theirs).validate_python(json.loads(text))


def test_a_type_that_a_later_version_may_have_is_skipped() -> None:
    assert parse_server_text('{"type": "Weather", "sun": true}') is None
    assert parse_server_text("{}") is None


def test_fields_that_a_later_version_may_have_are_skipped() -> None:
    message = json.loads(SpeechStarted(1.0).to_text()) | {"more": [1, 2]}
    assert parse_server_text(json.dumps(message)) == SpeechStarted(1.0)


@pytest.mark.parametrize("way", ["missing", "null", "text", "number", "list"])
def test_results_with_a_field_of_another_type_are_refused(way: str) -> None:
    values: dict[str, Any] = {"null": None, "text": "12", "number": 12, "list": [[]]}
    whole = json.loads(Results(transcript(Word("a", 0, 1, 0.5, "en-US"))).to_text())
    needed = {
        "start": {"text", "list", "null"},
        "end": {"text", "list", "null"},
        "revision": {"text", "list", "null"},
        "flush_id": {"text", "list"},
        "confidence": {"text", "list"},
        "locale": {"number", "list"},
        "language_source": {"text", "number", "list"},
        "language_runs": {"number", "text", "null", "list"},
        "channel": {"text", "number", "list", "null"},
        "metadata": {"text", "number", "list", "null"},
    }
    for name, wrong in needed.items():
        if way != "missing" and way not in wrong:
            continue
        message = dict(whole)
        if way == "missing":
            del message[name]
        else:
            message[name] = values[way]
        with pytest.raises(ProtocolError, match="a Results message that makes no sense"):
            parse_server_text(json.dumps(message))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + 400 * "0", "true", '"nan"', '"12"'])
@pytest.mark.parametrize("field", ["start", "end", "confidence"])
def test_a_number_without_sense_is_refused(field: str, number: str) -> None:
    message = json.loads(Results(transcript()).to_text())
    message[field] = "HERE"
    text = json.dumps(message).replace('"HERE"', number)
    with pytest.raises(ProtocolError):
        parse_server_text(text)


# ---- messages of a client


@pytest.mark.parametrize(
    "message",
    [
        KeepAlive(),
        CloseStream(),
        Finalize(),
        Finalize(0),
        Finalize(MAX_DEADLINE_MS),
        Configure(),
        Configure("es-ES"),
        *(Configure("auto", latency_ms) for latency_ms in LATENCIES_MS),
    ],
)
def test_each_message_of_a_client_is_the_same_after_the_wire(message: Any) -> None:
    assert parse_client_text(message.to_text()) == message


def test_messages_are_taken_as_deepgrams_own_client_writes_them() -> None:
    for theirs, ours in (
        (deepgram.ListenV1KeepAlive(type="KeepAlive"), KeepAlive()),
        (deepgram.ListenV1Finalize(type="Finalize"), Finalize()),
        (deepgram.ListenV1CloseStream(type="CloseStream"), CloseStream()),
    ):
        assert parse_client_text(theirs.json()) == ours


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "Finalize", "deadline_ms": -1}',
        '{"type": "Finalize", "deadline_ms": 60001}',
        '{"type": "Finalize", "deadline_ms": 10.5}',
        '{"type": "Finalize", "deadline_ms": true}',
        '{"type": "Finalize", "deadline_ms": "100"}',
        '{"type": "Configure", "latency_ms": 79}',
        '{"type": "Configure", "latency_ms": "80"}',
        '{"type": "Configure", "language": 5}',
        '{"type": "Configure", "language": ["en"]}',
        '{"type": "Configure", "language": "' + 101 * "a" + '"}',
        '{"type": "finalize"}',
        '{"type": null}',
        '{"type": ["Finalize"]}',
        '{"kind": "Finalize"}',
        "{}",
    ],
)
def test_a_message_with_another_type_or_value_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError) as refusal:
        parse_client_text(text)
    assert len(str(refusal.value)) < 250


HOSTILE = [
    *("", " ", "null", "[]", '"KeepAlive"', "12", "{", "KeepAlive", "\0", "\ufeff{}", "\ud800"),
    *(
        '{"type": NaN}',
        '{"type": Infinity}',
        '{"type": -Infinity}',
        '{"a": NaN, "type": "KeepAlive"}',
    ),
    *("[" * 10_000, '{"a":' * 2_000, '{"type": ' + "[" * 980 + "]" * 980 + "}"),
    *('{"type": ' + "9" * 10_000 + "}", '{"type": "\\ud800"}', '{"type": "KeepAlive"} x'),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_json_or_nests_without_end_is_refused_by_both_sides(text: str) -> None:
    with pytest.raises(ProtocolError) as refusal:
        parse_client_text(text)
    assert len(str(refusal.value)) < 250
    Error("ProtocolError", str(refusal.value)).to_text().encode()  # can be sent
    try:
        assert parse_server_text(text) is None
    except ProtocolError as error:
        assert len(str(error)) < 250  # noqa: PT017 - or it is a type that isn't known


def test_a_text_of_a_client_has_a_largest_size() -> None:
    padding = " " * (MAX_TEXT - len(KeepAlive().to_text()))
    assert parse_client_text(KeepAlive().to_text() + padding) == KeepAlive()
    with pytest.raises(ProtocolError, match="16384 are allowed"):
        parse_client_text(KeepAlive().to_text() + padding + " ")
