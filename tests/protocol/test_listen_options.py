"""Every option of the query is honoured, reported or refused; none is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_voice.config import LATENCIES_MS, StreamOptions
from nemotron_voice.errors import (
    ConfigurationError,
    UnknownLanguageError,
    UnsupportedLanguageError,
    UnsupportedSampleRateError,
)
from nemotron_voice.protocol import ListenOptions, parse_query, stream_query
from nemotron_voice.protocol.listen_options import (
    MAX_QUERY_PARAMETERS,
    MIN_ENDPOINTING_MS,
    parse_file_query,
)

LINEAR16 = {"encoding": "linear16", "sample_rate": "16000"}


def parse(**query: str) -> ListenOptions:
    return parse_query((LINEAR16 | query).items())


def without(name: str) -> list[tuple[str, str]]:
    return [pair for pair in LINEAR16.items() if pair[0] != name]


# ---- defaults


def test_defaults_are_deepgrams_and_ours() -> None:
    assert parse() == ListenOptions(
        encoding="linear16",
        sample_rate=16_000,
        language="auto",
        interim_results=False,
        endpointing_ms=None,
        utterance_end_ms=None,
        vad_events=False,
        latency_ms=320,
        finalize="sentence",
        replays=False,
        warnings=(),
    )


def test_the_rate_of_linear16_must_be_told_and_that_of_the_others_is_known() -> None:
    with pytest.raises(ConfigurationError, match="sample_rate is missing"):
        parse_query(without("sample_rate"))
    for encoding, rate in (("mulaw", 8_000), ("alaw", 8_000), ("opus", 48_000)):
        assert parse_query([("encoding", encoding)]).sample_rate == rate
    assert parse_query([("encoding", "mulaw"), ("sample_rate", "16000")]).sample_rate == 16_000


def test_an_encoding_must_be_told_and_be_one_of_raw_packets() -> None:
    with pytest.raises(ConfigurationError, match="encoding is missing; choose linear16"):
        parse_query(without("encoding"))
    for encoding in ("flac", "ogg-opus", "amr-nb", "speex", "g729", "", "\0"):
        with pytest.raises(ConfigurationError, match="encoding"):
            parse(encoding=encoding)
    assert parse(encoding="LINEAR16").encoding == "linear16"


# ---- honoured


def test_what_is_honoured_is_read() -> None:
    options = parse(
        sample_rate="8000",
        channels="1",
        language="es-ES",
        interim_results="true",
        endpointing="300",
        utterance_end_ms="1000",
        vad_events="true",
        punctuate="true",
        latency_ms="80",
        finalize="flush",
        replays="true",
    )
    assert options == ListenOptions(
        encoding="linear16",
        sample_rate=8_000,
        language="es-ES",
        interim_results=True,
        endpointing_ms=300,
        utterance_end_ms=1_000,
        vad_events=True,
        latency_ms=80,
        finalize="flush",
        replays=True,
    )
    assert options.stream_options() == StreamOptions(
        language="es-ES", sample_rate=8_000, latency_ms=80, interim_results=True, finalize="flush"
    )


def test_utterance_ends_need_interims_of_the_engine_whether_or_not_the_client_wants_them() -> None:
    assert parse(utterance_end_ms="1000").stream_options().interim_results
    assert not parse().stream_options().interim_results


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        ({}, False),
        ({"endpointing": "300"}, True),
        ({"vad_events": "true"}, True),
        ({"utterance_end_ms": "1000"}, False),
    ],
)
def test_a_detector_listens_only_where_one_is_asked_for(
    query: dict[str, str], needed: bool
) -> None:
    assert parse(**query).needs_detector is needed


@pytest.mark.parametrize("latency_ms", LATENCIES_MS)
def test_every_latency_mode_can_be_chosen(latency_ms: int) -> None:
    assert parse(latency_ms=str(latency_ms)).latency_ms == latency_ms


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", MIN_ENDPOINTING_MS), ("false", None), ("", None), ("10", 10), ("10000", 10_000)],
)
def test_endpointing_is_a_flag_or_milliseconds(value: str, expected: int | None) -> None:
    assert parse(endpointing=value).endpointing_ms == expected


@pytest.mark.parametrize("flag", ["interim_results", "vad_events", "replays", "detect_language"])
def test_a_flag_is_true_or_false_in_any_spelling_and_nothing_else(flag: str) -> None:
    for yes in ("true", "TRUE", "1", "yes"):
        assert getattr(parse(**{flag: yes}), flag, True) is True
    for no in ("false", "False", "0", "no", ""):
        assert getattr(parse(**{flag: no}), flag, False) is False
    for neither in ("maybe", "2", "true ", "tru", "\u0661"):
        with pytest.raises(ConfigurationError, match=f"{flag}=.* is not a flag"):
            parse(**{flag: neither})


def test_of_an_option_given_twice_the_last_holds() -> None:
    pairs = [*LINEAR16.items(), ("latency_ms", "80"), ("latency_ms", "160")]
    assert parse_query(pairs).latency_ms == 160


# ---- numbers


@pytest.mark.parametrize("name", ["sample_rate", "latency_ms", "endpointing", "utterance_end_ms"])
@pytest.mark.parametrize(
    "value",
    ["16000.0", "1e4", "-1", "+320", " 320", "0x10", "nan", "\u0663\u0662\u0660", "9" * 400, "32O"],
)
def test_a_number_is_whole_and_written_in_plain_digits(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}=.*is not a whole number") as refusal:
        parse(**{name: value})
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("sample_rate", value) for value in ("0", "7999", "48001", "999999999")),
        *(("latency_ms", value) for value in ("0", "81", "1121")),
        *(("endpointing", value) for value in ("0", "9", "10001")),
        *(("utterance_end_ms", value) for value in ("99", "60001")),
        *(("channels", value) for value in ("0", "2", "one", "")),
        *(("finalize", value) for value in ("never", "Flush")),
    ],
)
def test_a_value_outside_what_there_is_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as refusal:
        parse(**{name: value})
    assert isinstance(refusal.value, UnsupportedSampleRateError) == (name == "sample_rate")


# ---- languages


@pytest.mark.parametrize("name", ["multi", "MULTI", "auto"])
def test_multi_and_auto_detect_the_language(name: str) -> None:
    assert parse(language=name).language == "auto"
    assert parse(language=name).warnings == ()


@pytest.mark.parametrize(
    ("name", "locale"),
    [("en", "en-US"), ("en-US", "en-US"), ("EN_us", "en-US"), ("spa", "es-US"), ("zh-CN", "zh-CN")],
)
def test_a_name_of_a_locale_is_that_locale_without_a_word(name: str, locale: str) -> None:
    options = parse(language=name)
    assert (options.language, options.warnings) == (locale, ())


@pytest.mark.parametrize(
    ("name", "locale"),
    [
        ("es-MX", "es-US"),
        ("es_MX", "es-US"),
        ("en-AU", "en-GB"),
        ("de-AT", "de-DE"),
        ("no", "nb-NO"),
    ],
)
def test_another_region_is_heard_as_the_nearest_locale_and_told(name: str, locale: str) -> None:
    options = parse(language=name)
    assert options.language == locale
    assert options.warnings == (
        f"language={name} is heard as {locale}, the nearest locale of the model",
    )


def test_a_bare_language_is_the_locale_that_the_model_has() -> None:
    query = (LINEAR16 | {"language": "es"}).items()
    assert parse_query(query, ["en-US", "es-ES"]).language == "es-ES"


@pytest.mark.parametrize("name", ["klingon", "xx-YY", "", " ", "en-" * 200, "\ud800"])
def test_an_unknown_language_is_refused(name: str) -> None:
    with pytest.raises(UnknownLanguageError) as refusal:
        parse(language=name)
    assert len(str(refusal.value)) < 400


def test_a_language_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedLanguageError):
        parse_query((LINEAR16 | {"language": "de-DE"}).items(), ["en-US"])
    with pytest.raises(UnsupportedLanguageError):
        parse(language="zh-TW")


def test_detect_language_sets_a_language_aside_and_says_so() -> None:
    options = parse(language="en-US", detect_language="true")
    assert options.language == "auto"
    assert options.warnings == ("language=en-US is set aside: detect_language=true detects it",)
    assert parse(detect_language="true").warnings == ()


# ---- refused, reported, unknown


@pytest.mark.parametrize(
    "name",
    [
        *("redact", "profanity_filter", "diarize", "diarize_model", "multichannel", "callback"),
        *("replace", "search", "detect_entities", "translate", "summarize", "sentiment", "topics"),
        "intents",
    ],
)
def test_what_the_caller_would_rely_on_is_refused_unless_it_is_switched_off(name: str) -> None:
    for value in ("true", "pci", "https://example.org"):
        with pytest.raises(ConfigurationError, match=f"{name}={value} can't be honoured: .*leave"):
            parse(**{name: value})
    for off in ("false", "0", "", "None"):
        assert parse(**{name: off}).warnings == ()


@pytest.mark.parametrize(
    "name",
    [
        *("smart_format", "numerals", "dictation", "measurements", "filler_words", "paragraphs"),
        *("utterances", "keyterm", "keywords", "language_hint", "version", "callback_method"),
    ],
)
def test_what_only_shapes_the_text_is_reported_unless_it_is_switched_off(name: str) -> None:
    (warning,) = parse(**{name: "true"}).warnings
    assert warning.startswith(f"{name}=true is not honoured: ")
    assert parse(**{name: "false"}).warnings == ()


def test_punctuation_can_not_be_switched_off_and_that_is_told() -> None:
    (warning,) = parse(punctuate="false").warnings
    assert warning.startswith("punctuate=false is not honoured")


@pytest.mark.parametrize(
    "name", ["model", "tag", "extra", "no_delay", "mip_opt_out", "token", "access_token"]
)
def test_what_makes_no_difference_is_taken_without_a_word(name: str) -> None:
    assert parse(**{name: "nova-3"}).warnings == ()


def test_an_unknown_parameter_is_told_also_when_it_is_false() -> None:
    assert parse(interim_result="true").warnings == (
        "interim_result is not a parameter of this server",
    )
    assert parse(xyz="false").warnings == ("xyz is not a parameter of this server",)


def test_several_warnings_come_in_the_order_of_the_query() -> None:
    warnings = parse(keyterm="Nemo", xyz="1", numerals="true").warnings
    assert [warning.split("=")[0].split()[0] for warning in warnings] == [
        *("keyterm", "xyz", "numerals"),
    ]


def test_a_query_of_very_many_parameters_is_refused() -> None:
    pairs = [*LINEAR16.items()] * (MAX_QUERY_PARAMETERS // 2)
    assert parse_query(pairs).sample_rate == 16_000
    with pytest.raises(ConfigurationError, match="more than 100 query parameters"):
        parse_query([*pairs, ("tag", "x")])


@given(st.sampled_from(["redact", "keyterm", "xyz", "language", "encoding", "finalize"]))
def test_a_message_never_holds_all_of_a_long_value(name: str) -> None:
    try:
        told = " ".join(parse(**{name: "A" * 60_000}).warnings)
    except ConfigurationError as refusal:
        told = str(refusal)
    assert 0 < len(told) < 500


# ---- our own client, and files


@given(
    st.sampled_from(LATENCIES_MS),
    st.integers(8_000, 48_000),
    st.booleans(),
    st.sampled_from(["flush", "sentence"]),
    st.sampled_from(["auto", "en-US", "es-ES", "zh-CN"]),
    st.booleans(),
)
def test_what_our_client_asks_for_is_what_the_server_reads(
    latency_ms: int, rate: int, interims: bool, finalize: str, language: str, replays: bool
) -> None:
    asked = StreamOptions(
        latency_ms=latency_ms,
        sample_rate=rate,
        interim_results=interims,
        finalize=finalize,  # type: ignore[arg-type]
        language=language,
    )
    read = parse_query(stream_query(asked, replays=replays).items())
    assert read.stream_options() == asked
    assert (read.replays, read.warnings) == (replays, ())


def test_the_query_of_a_file_has_a_language_and_warnings() -> None:
    supported = ["en-US", "es-US"]
    assert parse_file_query([], supported) == ("auto", ())
    language, warnings = parse_file_query(
        [("language", "es-MX"), ("smart_format", "true"), ("model", "nova-3")], supported
    )
    assert language == "es-US"
    assert [warning.split("=")[0] for warning in warnings] == ["smart_format", "language"]
    for refused in (("encoding", "linear16"), ("redact", "pci"), ("language", "klingon")):
        with pytest.raises(ConfigurationError):
            parse_file_query([refused], supported)
