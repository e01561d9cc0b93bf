"""A bad night: what a session goes through when the engine breaks, is full, or is taken away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("livekit.agents")

import jiwer
from livekit import rtc
from livekit.agents import Agent, CloseReason
from livekit.agents.types import APIConnectOptions
from livekit.agents.voice.agent_session import SessionConnectOptions

from benchmarks.livekit_bot import RecordedCaller, talking
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.engine import Stream
from nemotron_voice.errors import EngineFullError, StepFailedError
from nemotron_voice.livekit import STT
from nemotron_voice.transcript import Transcript

RATE = 16_000
QUICK = SessionConnectOptions(
    stt_conn_options=APIConnectOptions(max_retry=1, retry_interval=0.05, timeout=10.0)
)


@pytest.fixture(scope="module")
def engine() -> Any:
    with Engine.load("demo", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def speech() -> np.ndarray[Any, Any]:
    """One sentence and a second and a half of silence."""
    call = bundled_calls()[0]
    samples = read_samples(call.audio)
    end = int((call.turns[0].end + 0.2) * RATE)
    return np.concatenate([samples[:end], np.zeros(3 * RATE // 2, np.float32)])


class BreakingStream:
    """A stream that raises at the transcript after so many pushes."""

    def __init__(self, stream: Stream, pushes: int) -> None:
        self._stream = stream
        self._left = pushes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def push(self, pcm: bytes) -> None:
        self._left -= 1
        self._stream.push(pcm)

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        async for transcript in self._stream:
            if self._left < 0:
                raise StepFailedError("the device is gone")
            yield transcript


class Recogniser:
    """The engine, with so many faults in a row."""

    def __init__(self, engine: Engine, *, broken: int = 0, full: int = 0, pushes: int = 20) -> None:
        self.engine = engine
        self.broken, self.full, self.pushes = broken, full, pushes
        self.opened = 0

    @property
    def languages(self) -> tuple[str, ...]:
        return self.engine.languages

    def open(self, options: Any = None, **overrides: Any) -> Any:
        if self.full:
            self.full -= 1
            raise EngineFullError("every slot is taken")
        self.opened += 1
        stream = self.engine.open(options, **overrides)
        if self.broken:
            self.broken -= 1
            return BreakingStream(stream, self.pushes)
        return stream


async def heard(recogniser: Recogniser, speech: np.ndarray[Any, Any]) -> tuple[str, list[Any]]:
    caller = RecordedCaller(speech)
    ears = STT(engine=recogniser, latency_ms=160)
    async with talking(caller, stt=ears, turn_detection="vad", conn_options=QUICK) as (_, log):
        await caller.ended.wait()
        await asyncio.sleep(1.0)
    assert recogniser.engine.stats().streams == 0
    return " ".join(text for _, text in log.committed if text), log.errors


async def test_after_one_break_no_word_is_lost(
    engine: Engine, speech: np.ndarray[Any, Any]
) -> None:
    expected, _ = await heard(Recogniser(engine), speech)
    recogniser = Recogniser(engine, broken=1)
    text, errors = await heard(recogniser, speech)
    assert recogniser.opened == 2
    assert len(errors) == 1
    assert errors[0].error.recoverable
    assert jiwer.wer(expected, text) <= 0.2, (expected, text)


async def test_a_full_engine_costs_delay_and_no_word(
    engine: Engine, speech: np.ndarray[Any, Any]
) -> None:
    expected, _ = await heard(Recogniser(engine), speech)
    text, _ = await heard(Recogniser(engine, full=1), speech)
    assert text == expected


async def test_an_engine_that_stalls_costs_delay_and_no_word(
    engine: Engine, speech: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device stands still over the end of the sentence, for longer than a flush may wait."""
    expected, _ = await heard(Recogniser(engine), speech)
    run = engine._runner.run
    steps = 0

    def stalling(works: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 5:
            time.sleep(3.0)
        return run(works)

    monkeypatch.setattr(engine._runner, "run", stalling)
    caller = RecordedCaller(np.concatenate([speech, np.zeros(2 * RATE, np.float32)]))
    ears = STT(engine=engine, latency_ms=160)
    async with talking(caller, stt=ears, turn_detection="vad", conn_options=QUICK) as (_, log):
        await caller.ended.wait()
        await asyncio.sleep(2.0)
    assert steps > 5
    assert log.errors == []
    assert jiwer.wer(expected, " ".join(event.transcript for _, event in log.finals)) <= 0.2
    assert engine.stats().streams == 0


async def test_what_a_full_replay_brings_back_leaves_room_for_the_live_audio(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After 31 s without a final the stream breaks, and the device is busy for a while."""
    opened: list[Any] = []
    recogniser = Recogniser(engine)
    monkeypatch.setattr(
        recogniser, "open", lambda **o: opened.append(engine.open(**o)) or opened[-1]
    )
    errors: list[Any] = []
    ears = STT(engine=recogniser)
    ears.on("error", errors.append)
    stream = ears.stream(conn_options=QUICK.stt_conn_options)

    async def push(seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            stream.push_frame(rtc.AudioFrame(b"\0\0" * 800, RATE, 1, 800))
        await asyncio.sleep(0.3)

    await push(20.0)
    await push(11.0)
    free = threading.Event()
    run = engine._runner.run
    monkeypatch.setattr(engine._runner, "run", lambda works: free.wait(10.0) and run(works))
    opened[0].fail(StepFailedError("the device is gone"))
    await asyncio.sleep(0.3)
    await push(10.0)
    free.set()
    await opened[-1].drained()
    await stream.aclose()
    assert len(opened) == 2
    assert [error.recoverable for error in errors] == [True]
    assert "audio are waiting" not in caplog.text
    assert opened[1]._audio.end == pytest.approx(40.0 * RATE, abs=RATE // 10)


async def test_what_breaks_always_ends_the_session_with_an_error(
    engine: Engine, speech: np.ndarray[Any, Any]
) -> None:
    caller = RecordedCaller(np.concatenate([speech] * 4))
    ears = STT(engine=Recogniser(engine, full=1000), latency_ms=160)
    closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    async with talking(caller, stt=ears, turn_detection="vad", conn_options=QUICK) as (session, _):
        session.on("close", closed.set_result)
        event = await asyncio.wait_for(closed, 15)
    assert event.reason is CloseReason.ERROR
    assert engine.stats().streams == 0


async def test_clearing_the_turn_and_handing_over_leave_one_stream(
    engine: Engine, speech: np.ndarray[Any, Any]
) -> None:
    caller = RecordedCaller(np.concatenate([speech, speech]))
    ears = STT(engine=engine, latency_ms=160)
    async with talking(caller, stt=ears, turn_detection="vad") as (session, log):
        await asyncio.sleep(0.8)
        session.clear_user_turn()
        await asyncio.sleep(0.5)
        assert engine.stats().streams == 1
        session.update_agent(Agent(instructions="Somebody else."))
        await caller.ended.wait()
        await asyncio.sleep(1.0)
        assert engine.stats().streams == 1
    assert engine.stats().streams == 0
    assert log.committed[-1][1]
