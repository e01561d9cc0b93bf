"""A caller who is muted sends zeros: they cost nothing, and the words after them come whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from nemotron_voice import Engine, Transcript
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.engine import stream as stream_module

RATE = 16_000
MUTED_S = 40


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load("demo", max_streams=4, threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def turn() -> np.ndarray:
    call = bundled_calls()[0]
    return read_samples(call.audio)[: int(4.0 * RATE)]


async def finals(
    engine: Engine, audio: np.ndarray, latency_ms: int, packet: int, pauses: tuple[int, ...] = ()
) -> list[Transcript]:
    """What is said, flushed at some samples and at the end."""
    stream = engine.open(latency_ms=latency_ms, max_buffered_s=600.0)
    said = []
    marks = sorted({*range(0, audio.size, packet), *pauses, audio.size})
    for start, stop in pairwise(marks):
        stream.push(audio[start:stop])
        if stop in pauses:
            said.append(await stream.flush(deadline_s=60))
    said.append(await stream.finish())
    return [final for final in said if final.text]


def muted(turn: np.ndarray) -> tuple[np.ndarray, int]:
    return np.concatenate([turn, np.zeros(MUTED_S * RATE, np.float32), turn]), turn.size + RATE


@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
def test_words_after_a_long_silence_are_those_without_sleep_at_the_same_times(
    engine: Engine, turn: np.ndarray, latency_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, pause = muted(turn)
    before = engine.stats().steps
    asleep = asyncio.run(finals(engine, audio, latency_ms, 320, (pause,)))
    steps = engine.stats().steps - before
    monkeypatch.setattr(stream_module, "ASLEEP_AFTER_FRAMES", 10**9)
    awake = asyncio.run(finals(engine, audio, latency_ms, 320, (pause,)))
    assert len(asleep) == len(awake) == 2
    assert [final.text for final in asleep] == [final.text for final in awake]
    for one, other in zip(asleep, awake, strict=True):
        assert [word.start for word in one.words] == pytest.approx(
            [word.start for word in other.words], abs=0.17
        )
    heard_s = 2 * turn.size / RATE + stream_module.ASLEEP_AFTER_FRAMES * 0.08
    assert steps < 1000 * heard_s / latency_ms + 8


@pytest.mark.parametrize("packet", [160, 5_000, 10**9])
def test_how_the_audio_comes_changes_nothing(engine: Engine, turn: np.ndarray, packet: int) -> None:
    audio, _ = muted(turn)
    expected = asyncio.run(finals(engine, audio, 320, 320))
    assert asyncio.run(finals(engine, audio, 320, packet)) == expected


def test_a_muted_caller_takes_no_steps(engine: Engine) -> None:
    async def listen() -> int:
        stream = engine.open(latency_ms=80)
        stream.push(np.zeros(10 * RATE, np.float32))
        await stream.drained(0.1)
        begun = engine.stats().steps
        for _ in range(1000):
            stream.push(np.zeros(320, np.float32))
        await stream.drained(0.1)
        taken = engine.stats().steps - begun
        await stream.finish()
        return taken

    assert asyncio.run(listen()) == 0


def test_a_flush_while_asleep_is_answered(engine: Engine) -> None:
    async def ask() -> Transcript:
        stream = engine.open()
        stream.push(np.zeros(10 * RATE, np.float32))
        answer = await stream.flush(deadline_s=10)
        await stream.aclose()
        return answer

    assert asyncio.run(ask()).text == ""


def test_a_caller_who_is_only_quiet_is_heard(engine: Engine) -> None:
    """The least sound keeps a stream awake: what is noise is for the network to say."""

    async def listen() -> int:
        stream = engine.open(latency_ms=320)
        begun = engine.stats().steps
        for _ in range(20):
            packet = np.zeros(RATE, np.float32)
            packet[::3000] = 1e-4
            stream.push(packet)
        await stream.finish()
        return engine.stats().steps - begun

    assert asyncio.run(listen()) >= 20_000 // 320
