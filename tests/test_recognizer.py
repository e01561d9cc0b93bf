"""What every Recognizer must do: the same tests for an engine in this process and on a server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from nemotron_voice import Engine, RemoteEngine, Transcript, join_texts
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.errors import (
    AudioFormatError,
    AudioOverflowError,
    EngineClosedError,
    EngineFullError,
    StreamClosedError,
    UnknownLanguageError,
    UnsupportedLanguageError,
    UnsupportedLatencyError,
)
from nemotron_voice.recognizer import Recognizer, RecognizerStream
from tests.running_server import running_server

RATE = 16_000
SLOTS = 12
CALL = read_samples(bundled_calls()[0].audio)
FLUSHES = (40_000, 100_000, 101_000, 180_000, 260_000)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load("demo", threads=1, max_streams=SLOTS) as engine:
        yield engine


@pytest.fixture(scope="module")
def remote(engine: Engine) -> Iterator[RemoteEngine]:
    with running_server(engine) as server, RemoteEngine(server.url) as remote:
        yield remote


@pytest.fixture(params=["engine", "remote"])
def recognizer(
    request: pytest.FixtureRequest, engine: Engine, remote: RemoteEngine
) -> Iterator[Recognizer]:
    """Checks afterwards that every slot is free."""
    yield engine if request.param == "engine" else remote
    ends_at = time.monotonic() + 5
    while engine.stats().streams and time.monotonic() < ends_at:
        time.sleep(0.01)
    assert engine.stats().streams == 0


async def hear(
    stream: RecognizerStream,
    samples: np.ndarray[Any, Any] = CALL,
    *,
    flushes: Sequence[int] = FLUSHES,
    packet: Callable[[], int] = lambda: 1600,
) -> tuple[list[Transcript], list[Transcript]]:
    """All transcripts of a call, and the answers to its flushes."""
    answers = []
    at = 0
    for stop in (*flushes, samples.size):
        while at < stop:
            end = min(stop, at + packet())
            stream.push(samples[at:end])
            at = end
            await stream.drained(2.0)
        if stop != samples.size:
            answers.append(asyncio.create_task(stream.flush(deadline_s=30.0)))
    await stream.finish()
    return [t async for t in stream], [await answer for answer in answers]


def pcm16(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (samples * 32767).astype("<i2")


async def test_both_say_the_same_with_every_field(engine: Engine, remote: RemoteEngine) -> None:
    call = pcm16(CALL)
    heard, answers = await hear(engine.open(latency_ms=160), call)
    over_the_wire, answers_there = await hear(remote.open(latency_ms=160), call)
    finals = [t for t in heard if t.is_final]
    assert [_but_revision(t) for t in over_the_wire if t.is_final] == [
        _but_revision(t) for t in finals
    ]
    assert [_but_revision(t) for t in answers_there] == [_but_revision(t) for t in answers]
    assert {word.language for final in finals for word in final.words} >= {"en-US", "es-ES"}


async def test_interims_come_while_speech_goes_on(recognizer: Recognizer) -> None:
    stream = recognizer.open(latency_ms=80)
    interims = []

    async def read() -> None:
        interims.extend([t async for t in stream if not t.is_final])

    reader = asyncio.create_task(read())
    for at in range(0, 64_000, 3_200):
        stream.push(CALL[at : at + 3_200])
        await asyncio.sleep(0.03)
    await stream.finish()
    await reader
    assert len(interims) >= 5
    assert interims[-1].words


def _but_revision(transcript: Transcript) -> dict[str, Any]:
    return {name: value for name, value in transcript.to_dict().items() if name != "revision"}


@pytest.mark.parametrize("rate", [8_000, 44_100])
async def test_packets_of_any_size_and_rate_give_the_same_words(
    recognizer: Recognizer, rate: int
) -> None:
    samples = pcm16(
        np.interp(np.arange(0, 60_000, 16_000 / rate), np.arange(60_000), CALL[:60_000])
    )
    rng = random.Random(rate)
    whole, _ = await hear(recognizer.open(sample_rate=rate), samples, flushes=[rate])
    pieces, _ = await hear(
        recognizer.open(sample_rate=rate),
        samples,
        flushes=[rate],
        packet=lambda: rng.randint(1, 900),
    )
    text = join_texts(t for t in whole if t.is_final)
    assert text
    assert join_texts(t for t in pieces if t.is_final) == text


async def test_every_flush_is_answered_in_order_also_in_the_iteration(
    recognizer: Recognizer,
) -> None:
    stream = recognizer.open()
    stream.push(CALL[:32_000])
    answers = await asyncio.gather(*(stream.flush() for _ in range(5)))
    assert [answer.flush_id for answer in answers] == [0, 1, 2, 3, 4]
    assert answers[0].text
    await stream.finish()
    transcripts = [t async for t in stream]
    assert [t.flush_id for t in transcripts if t.is_final] == [0, 1, 2, 3, 4, 5]
    revisions = [t.revision for t in transcripts]
    assert revisions == sorted(set(revisions))


async def test_a_hundred_flushes_at_once_are_all_answered(recognizer: Recognizer) -> None:
    stream = recognizer.open()
    answers = []
    for at in range(0, 96_000, 960):
        stream.push(CALL[at : at + 960])
        answers.append(asyncio.create_task(stream.flush(deadline_s=30.0)))
    told = await asyncio.gather(*answers)
    assert [answer.flush_id for answer in told] == list(range(100))
    assert join_texts(told)
    await stream.finish()


async def test_a_flush_means_the_audio_pushed_before_it_was_asked_for(
    recognizer: Recognizer,
) -> None:
    stream = recognizer.open()
    stream.push(CALL[:32_000])
    flush = stream.flush()
    stream.push(CALL[32_000:96_000])
    first = await flush
    other = recognizer.open()
    other.push(CALL[:32_000])
    assert first.text == (await other.flush()).text
    await asyncio.gather(stream.aclose(), other.aclose())


async def test_a_flush_before_any_audio_is_answered_empty(recognizer: Recognizer) -> None:
    stream = recognizer.open()
    answer = await stream.flush()
    assert (answer.text, answer.is_final, answer.flush_id) == ("", True, 0)
    await stream.finish()


async def test_a_flush_may_wait_as_long_as_it_likes(recognizer: Recognizer) -> None:
    stream = recognizer.open()
    stream.push(CALL[:48_000])
    assert (await stream.flush(deadline_s=3600.0)).text
    assert (await stream.flush(deadline_s=0.0)).is_final
    await stream.finish()


async def test_settings_change_in_band(recognizer: Recognizer) -> None:
    stream = recognizer.open(language="en-US", latency_ms=1120)
    stream.push(CALL[:48_000])
    first = await stream.flush()
    stream.update(language="Spanish", latency_ms=80)
    stream.push(CALL[48_000:])
    await stream.finish()
    finals = [t async for t in stream if t.is_final and t.text]
    assert (first.language, first.language_source) == ("en-US", "forced")
    assert (finals[-1].language, finals[-1].language_source) == ("es-ES", "forced")


async def test_a_stream_says_what_it_said_beside_nine_others(recognizer: Recognizer) -> None:
    alone, _ = await hear(recognizer.open())
    together = await asyncio.gather(*(hear(recognizer.open()) for _ in range(10)))
    text = [t.text for t in alone if t.is_final]
    assert all([t.text for t in heard if t.is_final] == text for heard, _ in together)


async def test_a_full_recognizer_refuses_and_the_others_go_on(recognizer: Recognizer) -> None:
    streams = [recognizer.open() for _ in range(SLOTS)]
    for stream in streams:
        await stream.flush()  # holds its slot now
    with pytest.raises(EngineFullError, match="max_streams"):
        async for _ in recognizer.open():
            pass
    await streams[0].aclose()
    streams[1].push(CALL[:32_000])
    assert (await streams[1].finish()).text
    await asyncio.gather(*(stream.aclose() for stream in streams))


@pytest.mark.parametrize(
    ("pcm", "error", "message"),
    [
        (b"\x00\x01\x02", AudioFormatError, "3"),
        (np.array([0.1, np.nan], np.float32), AudioFormatError, "nan"),
        (np.zeros((100, 2), np.float32), AudioFormatError, "mono"),
        (np.zeros(31 * RATE, np.float32), AudioOverflowError, "max_buffered_s"),
    ],
)
async def test_bad_audio_is_refused_whole_and_the_stream_stays_usable(
    recognizer: Recognizer, pcm: Any, error: type[Exception], message: str
) -> None:
    stream = recognizer.open()
    stream.push(CALL[:16_000])
    with pytest.raises(error, match=message):
        stream.push(pcm)
    stream.push(CALL[16_000:48_000])
    other = recognizer.open()
    other.push(CALL[:48_000])
    assert (await stream.finish()).text == (await other.finish()).text != ""


async def test_options_out_of_range_are_refused_at_once(recognizer: Recognizer) -> None:
    with pytest.raises(UnknownLanguageError, match="Klingon"):
        recognizer.open(language="Klingon")
    with pytest.raises(UnsupportedLanguageError, match="de-DE"):
        recognizer.open(language="German")
    with pytest.raises(UnsupportedLatencyError, match=r"80.*1120"):
        recognizer.open(latency_ms=100)
    stream = recognizer.open()
    with pytest.raises(UnsupportedLatencyError):
        stream.update(latency_ms=1)
    with pytest.raises(UnknownLanguageError):
        stream.update(language="xx-XX")
    await stream.aclose()


async def test_after_the_end_everything_is_refused_and_closing_again_is_fine(
    recognizer: Recognizer,
) -> None:
    stream = recognizer.open()
    stream.push(CALL[:16_000])
    await stream.finish()
    for call in (
        lambda: stream.push(b"\0\0"),
        lambda: stream.update(latency_ms=80),
        stream.flush,
    ):
        with pytest.raises(StreamClosedError, match="open a new one"):
            call()
    await stream.aclose()
    await stream.aclose()
    await stream.drained()


async def test_closing_during_a_flush_answers_it_with_an_error(recognizer: Recognizer) -> None:
    stream = recognizer.open()
    stream.push(CALL[: 20 * RATE])
    flush = asyncio.create_task(stream.flush())
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(StreamClosedError):
        await flush
    assert [t async for t in stream if t.is_final] == []


async def test_sentences_are_final_as_they_end_where_that_is_asked_for(
    recognizer: Recognizer,
) -> None:
    stream = recognizer.open(finalize="sentence", interim_results=False)
    heard, _ = await hear(stream, flushes=[])
    assert all(t.is_final for t in heard)
    assert len([t for t in heard if t.flush_id is None]) >= 3


async def test_a_cancelled_flush_hurts_nobody(recognizer: Recognizer) -> None:
    stream = recognizer.open()
    stream.push(CALL[:64_000])
    flush = asyncio.create_task(stream.flush())
    await asyncio.sleep(0)
    flush.cancel()
    assert (await stream.finish()).is_final


async def test_a_closed_recognizer_ends_its_streams(engine: Engine) -> None:
    with running_server(engine) as server:
        remote = RemoteEngine(server.url)
        stream = remote.open()
        await stream.flush()
        await asyncio.to_thread(remote.close)
        with pytest.raises(EngineClosedError):
            async for _ in stream:
                pass
        with pytest.raises(EngineClosedError):
            remote.open()
        remote.close()
