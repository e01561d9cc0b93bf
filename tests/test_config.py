"""Options are refused where they are made, by name, with what is allowed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from nemotron_voice.config import LATENCIES_MS, EngineOptions, StreamOptions, lookahead_of
from nemotron_voice.errors import (
    ConfigurationError,
    UnknownLanguageError,
    UnsupportedLatencyError,
    UnsupportedSampleRateError,
)


def test_a_latency_mode_is_its_chunk_of_80_ms_frames() -> None:
    assert [lookahead_of(latency_ms) for latency_ms in LATENCIES_MS] == [0, 1, 3, 6, 13]


@pytest.mark.parametrize("latency_ms", [0, 100, 2240, -80, True, "320", None])
def test_another_latency_is_refused_with_the_modes(latency_ms: Any) -> None:
    with pytest.raises(UnsupportedLatencyError, match="80, 160, 320, 560, 1120"):
        StreamOptions(latency_ms=latency_ms)


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 16_000, 24_000, 44_100, 48_000])
def test_rates_of_telephony_and_the_web_are_taken(sample_rate: int) -> None:
    assert StreamOptions(sample_rate=sample_rate).sample_rate == sample_rate


@pytest.mark.parametrize("sample_rate", [0, 7_999, 48_001, 16_000.0, "16000", True])
def test_another_rate_is_refused(sample_rate: Any) -> None:
    with pytest.raises(UnsupportedSampleRateError, match="8000 to 48000"):
        StreamOptions(sample_rate=sample_rate)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("finalize", "never"),
        ("max_buffered_s", 0),
        ("max_buffered_s", float("nan")),
        ("max_buffered_s", float("inf")),
    ],
)
def test_a_stream_option_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        StreamOptions(**{option: value})


def test_an_unknown_language_is_refused_before_any_engine_sees_it() -> None:
    with pytest.raises(UnknownLanguageError, match="Klingon"):
        StreamOptions(language="Klingon")


def test_an_ambiguous_language_waits_for_the_model() -> None:
    assert StreamOptions(language="no").language == "no"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("device", "gpu"),
        ("device", 0),
        ("precision", "fp16"),
        ("max_streams", 0),
        ("max_streams", 1.5),
        ("max_batch", -1),
        ("threads", True),
    ],
)
def test_an_engine_option_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        EngineOptions(**{option: value})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(device: str) -> None:
    assert EngineOptions(device=device, threads=2).device == device


def test_steps_are_larger_on_a_gpu_and_never_larger_than_all_streams() -> None:
    many = EngineOptions(max_streams=1000)
    assert (many.batch_on("cpu"), many.batch_on("cuda")) == (32, 256)
    assert EngineOptions(max_streams=10).batch_on("cuda") == 10
    assert EngineOptions(max_streams=10, max_batch=512).batch_on("cpu") == 512


def test_options_don_t_change() -> None:
    with pytest.raises(FrozenInstanceError):
        StreamOptions().latency_ms = 80  # type: ignore[misc]
