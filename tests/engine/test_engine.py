"""Neighbours, packets, flushes and faults change nothing in what a stream hears."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nemotron_voice import Engine, StreamOptions, Transcript
from nemotron_voice.config import LATENCIES_MS, EngineOptions
from nemotron_voice.engine.engine import StepReport
from nemotron_voice.engine.finalise import Finaliser
from nemotron_voice.engine.stream import Stream
from nemotron_voice.errors import (
    AudioFormatError,
    AudioOverflowError,
    EngineClosedError,
    EngineFullError,
    StepFailedError,
    StreamClosedError,
    UnknownLanguageError,
    UnsupportedLatencyError,
)
from nemotron_voice.server.health import ModelHealth
from nemotron_voice.transcript import Token
from tests.random_checkpoint import tiny_checkpoint

RATE = 16_000
ROOT = Path(__file__).parents[2]
Audio = NDArray[np.float32]
also_as_on_a_gpu = pytest.mark.parametrize("steps", ["any shape", "fixed"], indirect=True)


def babble(seconds: float, seed: int) -> Audio:
    """Something that a random network finds varied: tones that come and go, in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    tone = np.sin(
        2
        * np.pi
        * np.cumsum(150 + 200 * rng.random(t.size // 800 + 1).repeat(800)[: t.size])
        / RATE
    )
    return (
        0.3 * tone * (0.5 + 0.5 * np.sin(2 * np.pi * 2 * t)) + 0.02 * rng.standard_normal(t.size)
    ).astype(np.float32)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stream], list[Token]]:
    """The tokens that a stream itself has emitted, whatever flushes did to the text."""
    tokens: dict[Finaliser, list[Token]] = {}
    add = Finaliser.add

    def spy(self: Finaliser, new: list[Token], frame: int) -> list[Transcript]:
        tokens.setdefault(self, []).extend(new)
        return add(self, new, frame)

    monkeypatch.setattr(Finaliser, "add", spy)
    return lambda stream: tokens.get(stream._finaliser, [])


def all_slots_are_free(engine: Engine) -> bool:
    """A stream closed while its step is on the device frees its slot right after."""
    deadline = time.monotonic() + 5
    while engine.stats().streams and time.monotonic() < deadline:
        time.sleep(0.005)
    return engine.stats().streams == 0


async def run(stream: Stream, audio: Audio, packet: int | None = None) -> Transcript:
    """Push everything, finish."""
    size = packet or audio.size
    for at in range(0, audio.size, size):
        stream.push(audio[at : at + size])
    return await stream.finish()


@also_as_on_a_gpu
def test_tokens_of_16_streams_equal_their_solo_runs(
    tiny_engine: Engine, heard: Callable[[Stream], list[Token]]
) -> None:
    """Opened, flushed, updated and closed at random; languages and latency modes at random."""
    rng = random.Random(7)
    languages = ["auto", *tiny_engine.languages]
    plans: list[dict[str, Any]] = []
    for seed in range(16):
        audio = babble(rng.uniform(2, 6), seed)
        plans.append(
            {
                "audio": audio,
                "options": StreamOptions(
                    language=rng.choice(languages), latency_ms=rng.choice(LATENCIES_MS)
                ),
                "packet": rng.randint(100, 9000),
                "flushes": {rng.randrange(audio.size) for _ in range(3)},
                "switch": (rng.randrange(audio.size), rng.choice(languages)),
                "drop": rng.random() < 0.25,
            }
        )

    async def play(plan: dict[str, Any], *, alone: bool) -> tuple[list[Token], list[str]]:
        if not alone:
            await asyncio.sleep(rng.random() * 0.5)
        stream = tiny_engine.open(plan["options"])
        finals = []
        at = 0
        audio = plan["audio"]
        switch_at, language = plan["switch"]
        marks = sorted(
            {*plan["flushes"], switch_at, audio.size, *range(0, audio.size, plan["packet"])}
        )
        for mark in marks:
            stream.push(audio[at:mark])
            at = mark
            if mark in plan["flushes"]:
                finals.append((await stream.flush(deadline_s=60)).text)
            if mark == switch_at:
                stream.update(language=language)
            if not alone:
                await asyncio.sleep(rng.random() * 0.01)
        if plan["drop"]:
            await stream.drained(1.5)
            await stream.aclose()
        else:
            finals.append((await stream.finish()).text)
        return heard(stream), finals

    async def together() -> list[tuple[list[Token], list[str]]]:
        return await asyncio.gather(*(play(plan, alone=False) for plan in plans))

    crowd = asyncio.run(together())
    for plan, (tokens, finals) in zip(plans, crowd, strict=True):
        solo_tokens, solo_finals = asyncio.run(play(plan, alone=True))
        shortest = min(len(tokens), len(solo_tokens)) if plan["drop"] else None
        same = [(t.text, t.frame) for t in tokens[:shortest]]
        assert same == [(t.text, t.frame) for t in solo_tokens[:shortest]]
        assert finals == solo_finals
        assert solo_tokens, "the random network said nothing; the test proves nothing"
    assert all_slots_are_free(tiny_engine)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_packets_of_any_size_give_the_same_words(
    tiny_engine: Engine, heard: Callable[[Stream], list[Token]], rate: int
) -> None:
    audio = babble(1.5, 3).repeat(3)[: int(1.5 * rate)]
    rng = random.Random(1)

    async def said(packets: Callable[[], int]) -> tuple[list[Token], str]:
        stream = tiny_engine.open(sample_rate=rate, latency_ms=160)
        at = 0
        while at < audio.size:
            size = packets()
            stream.push(audio[at : at + size])
            at += size
        final = await stream.finish()
        return heard(stream), final.text

    whole = asyncio.run(said(lambda: audio.size))
    assert whole[0]
    for size in (1, rate // 100, rate // 50, rate // 20):
        assert asyncio.run(said(lambda size=size: size)) == whole
    assert asyncio.run(said(lambda: rng.randint(1, 3000))) == whole


def test_pcm16_bytes_and_arrays_are_the_same_audio(tiny_engine: Engine) -> None:
    pcm = (babble(2, 5) * 32767).astype("<i2")

    async def said(packets: list[Any]) -> str:
        stream = tiny_engine.open()
        for packet in packets:
            stream.push(packet)
        return (await stream.finish()).text

    expected = asyncio.run(said([pcm]))
    assert expected
    assert asyncio.run(said([pcm.tobytes()])) == expected
    assert (
        asyncio.run(said([memoryview(pcm.tobytes())[:6000], memoryview(pcm.tobytes())[6000:]]))
        == expected
    )
    assert asyncio.run(said([pcm.astype(np.float32) / 32768])) == expected


@also_as_on_a_gpu
@pytest.mark.parametrize("latency_ms", LATENCIES_MS)
def test_a_flush_leaves_the_stream_itself_untouched(
    tiny_engine: Engine, heard: Callable[[Stream], list[Token]], latency_ms: int
) -> None:
    audio = babble(4, 11)

    async def tokens(flushes: list[int]) -> list[Token]:
        stream = tiny_engine.open(latency_ms=latency_ms)
        at = 0
        for flush in flushes:
            stream.push(audio[at:flush])
            at = flush
            await stream.flush(deadline_s=30)
        stream.push(audio[at:])
        await stream.finish()
        return heard(stream)

    assert asyncio.run(tokens([5_000, 5_001, 21_000, 40_123])) == asyncio.run(tokens([]))


def test_flush_ids_count_up_and_every_flush_is_answered_in_order(tiny_engine: Engine) -> None:
    async def main() -> None:
        stream = tiny_engine.open()
        stream.push(babble(2, 1))
        answers = await asyncio.gather(*(stream.flush() for _ in range(5)))
        assert [answer.flush_id for answer in answers] == [0, 1, 2, 3, 4]
        assert all(answer.is_final for answer in answers)
        await stream.finish()
        finals = [t async for t in stream if t.is_final]
        assert [t.flush_id for t in finals] == [0, 1, 2, 3, 4, 5]
        assert [t.revision for t in finals] == sorted(t.revision for t in finals)

    asyncio.run(main())


def test_a_flush_before_any_audio_is_answered_empty(tiny_engine: Engine) -> None:
    async def main() -> None:
        stream = tiny_engine.open()
        answer = await stream.flush()
        assert answer.is_final
        await stream.finish()

    asyncio.run(main())


def test_a_flush_is_answered_at_its_deadline_when_the_device_stalls(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tiny_engine._runner.run
    stall = threading.Event()
    monkeypatch.setattr(tiny_engine._runner, "run", lambda works: (stall.wait(5), slow(works))[1])

    async def main() -> None:
        stream = tiny_engine.open()
        stream.push(babble(1, 1))
        began = time.monotonic()
        answer = await stream.flush(deadline_s=0.2)
        assert time.monotonic() - began < 2
        assert (answer.text, answer.flush_id) == ("", 0)
        stall.set()
        rest = await stream.finish()
        assert rest.text, "what the deadline left out must come later"

    asyncio.run(main())


def test_a_full_engine_refuses_and_the_others_go_on(tiny_engine: Engine) -> None:
    async def main() -> None:
        streams = [tiny_engine.open() for _ in range(tiny_engine.options.max_streams)]
        with pytest.raises(EngineFullError, match="max_streams"):
            tiny_engine.open()
        await streams[0].aclose()
        late = tiny_engine.open()
        assert (await run(late, babble(1, 2))).is_final
        for stream in streams:
            await stream.aclose()

    asyncio.run(main())
    assert all_slots_are_free(tiny_engine)


def test_a_step_that_fails_for_one_stream_ends_that_stream_only(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tiny_engine._runner._network.step
    poison = float(np.float32(0.98765))

    def failing(samples: Any, *rest: Any) -> Any:
        if (samples == poison).any():
            raise RuntimeError("out of memory")
        return step(samples, *rest)

    monkeypatch.setattr(tiny_engine._runner._network, "step", failing)

    async def main() -> None:
        good, bad = tiny_engine.open(), tiny_engine.open()
        alone = await run(tiny_engine.open(), babble(2, 9))
        bad.push(np.full(RATE, poison, np.float32))
        good.push(babble(2, 9))
        with pytest.raises((StepFailedError, StreamClosedError), match="out of memory"):
            await bad.flush()
        with pytest.raises(StepFailedError):
            async for _ in bad:
                pass
        with pytest.raises(StreamClosedError, match="out of memory"):
            bad.push(b"\0\0")
        assert (await good.finish()).text == alone.text

    asyncio.run(main())
    assert all_slots_are_free(tiny_engine)


def test_a_stream_that_fails_to_take_its_step_ends_alone(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        good, bad = tiny_engine.open(), tiny_engine.open()
        alone = await run(tiny_engine.open(), babble(2, 9))
        monkeypatch.setattr(bad, "_work", lambda: 1 / 0)
        bad.push(babble(1, 1))
        with pytest.raises(StepFailedError, match="division by zero"):
            async for _ in bad:
                pass
        assert (await run(good, babble(2, 9))).text == alone.text

    asyncio.run(main())
    assert all_slots_are_free(tiny_engine)


def test_an_observer_that_raises_is_logged_and_hurts_nobody(
    tiny_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(report: StepReport) -> None:
        raise ValueError("no such gauge")

    reports: list[StepReport] = []
    alone = asyncio.run(run(tiny_engine.open(), babble(2, 9)))
    tiny_engine.observe(broken)
    tiny_engine.observe(reports.append)
    assert asyncio.run(run(tiny_engine.open(), babble(2, 9))).text == alone.text
    assert len(reports) > 1
    (logged,) = (record for record in caplog.records if record.exc_info)
    assert "no such gauge" in str(logged.exc_info)


def test_when_the_device_thread_dies_every_stream_and_open_say_so(
    make_tiny_engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_tiny_engine()

    def die(works: Any) -> Any:
        raise SystemExit("the driver is gone")

    async def main() -> None:
        idle, busy = engine.open(), engine.open()
        monkeypatch.setattr(engine._runner, "run", die)
        busy.push(babble(1, 1))
        with pytest.raises((EngineClosedError, StreamClosedError), match="driver is gone"):
            await busy.flush(deadline_s=30)
        for stream in (idle, busy):
            async with asyncio.timeout(30):
                with pytest.raises(EngineClosedError, match=r"driver is gone.*Engine\.load"):
                    async for _ in stream:
                        pass
                await stream.aclose()
            with pytest.raises(StreamClosedError, match="driver is gone"):
                stream.push(b"\0\0")
        with pytest.raises(EngineClosedError, match=r"driver is gone.*Engine\.load"):
            engine.open()

    asyncio.run(main())
    assert "driver is gone" in str(engine.failure)
    assert "driver is gone" in str(ModelHealth(engine).fault)
    assert all_slots_are_free(engine)
    engine.close()


@pytest.mark.parametrize(
    ("pcm", "error", "message"),
    [
        (b"\x00\x01\x02", AudioFormatError, "3"),
        (np.array([0.1, np.nan], np.float32), AudioFormatError, "nan"),
        (np.array([0.1, np.inf], np.float32), AudioFormatError, "inf|finite"),
        (np.zeros((100, 2), np.float32), AudioFormatError, "mono"),
        (np.zeros(31 * RATE, np.float32), AudioOverflowError, "max_buffered_s"),
    ],
)
def test_bad_audio_is_refused_whole_and_the_stream_stays_usable(
    tiny_engine: Engine, pcm: Any, error: type[Exception], message: str
) -> None:
    async def main() -> None:
        expected = await run(tiny_engine.open(), babble(2, 4))
        stream = tiny_engine.open()
        audio = babble(2, 4)
        stream.push(audio[:9000])
        with pytest.raises(error, match=message):
            stream.push(pcm)
        stream.push(audio[9000:])
        assert (await stream.finish()).text == expected.text

    asyncio.run(main())


def test_options_out_of_range_are_refused_with_what_is_allowed(tiny_engine: Engine) -> None:
    with pytest.raises(UnknownLanguageError, match="Klingon"):
        tiny_engine.open(language="Klingon")
    with pytest.raises(UnsupportedLatencyError, match=r"80.*1120"):
        tiny_engine.open(latency_ms=100)
    stream = tiny_engine.open()
    with pytest.raises(UnsupportedLatencyError):
        stream.update(latency_ms=1)
    with pytest.raises(UnknownLanguageError):
        stream.update(language="xx-XX")
    asyncio.run(stream.aclose())
    assert all_slots_are_free(tiny_engine)


def test_after_the_end_everything_is_refused_and_closing_again_is_fine(tiny_engine: Engine) -> None:
    async def main() -> None:
        stream = tiny_engine.open()
        await run(stream, babble(1, 1))
        for call in (lambda: stream.push(b"\0\0"), lambda: stream.update(latency_ms=80)):
            with pytest.raises(StreamClosedError, match="open a new one"):
                call()
        with pytest.raises(StreamClosedError):
            await stream.flush()
        await stream.aclose()
        await stream.aclose()
        await stream.drained()

    asyncio.run(main())


def test_what_is_less_than_a_chunk_is_not_waited_for(tiny_engine: Engine) -> None:
    async def main() -> None:
        stream = tiny_engine.open(latency_ms=1120)
        stream.push(babble(2, 1))
        async with asyncio.timeout(20):
            await stream.drained(0.1)
        await stream.aclose()

    asyncio.run(main())


def test_closing_during_a_flush_answers_it_with_an_error_and_frees_the_slot(
    tiny_engine: Engine,
) -> None:
    async def main() -> None:
        stream = tiny_engine.open()
        stream.push(babble(20, 1))
        flush = asyncio.create_task(stream.flush())
        await asyncio.sleep(0)
        await stream.aclose()
        with pytest.raises(StreamClosedError):
            await flush
        assert [t async for t in stream if t.is_final] == []

    asyncio.run(main())
    assert all_slots_are_free(tiny_engine)


@pytest.fixture
def stall(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """The first is set when a step is on the device, which it leaves when the second is set."""
    run, begun, go_on = tiny_engine._runner.run, threading.Event(), threading.Event()

    def stalled(works: Any) -> Any:
        begun.set()
        go_on.wait(30)
        return run(works)

    monkeypatch.setattr(tiny_engine._runner, "run", stalled)
    yield begun, go_on
    go_on.set()


def test_a_slot_is_free_when_its_stream_is_closed_also_with_a_step_on_the_device(
    tiny_engine: Engine, stall: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = stall

    async def main() -> None:
        streams = [tiny_engine.open() for _ in range(tiny_engine.options.max_streams)]
        streams[0].push(babble(2, 1))
        await asyncio.to_thread(begun.wait, 30)
        closing = [asyncio.create_task(streams[0].aclose()) for _ in range(3)]
        await asyncio.sleep(0.01)  # the loop is free, and the row still in use
        with pytest.raises(EngineFullError):
            tiny_engine.open()
        closing[1].cancel()
        await asyncio.sleep(0.01)
        assert [task.done() for task in closing] == [False, True, False]
        go_on.set()
        async with asyncio.timeout(30):
            await asyncio.gather(closing[0], closing[2])
        late = tiny_engine.open()
        for stream in (*streams, late):
            await stream.aclose()

    asyncio.run(main())
    assert tiny_engine.stats().streams == 0


def test_a_slot_whose_step_waits_for_the_device_is_free_at_once(
    tiny_engine: Engine, stall: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = stall

    async def main() -> None:
        streams = [tiny_engine.open() for _ in range(tiny_engine.options.max_streams)]
        streams[0].push(babble(2, 1))
        await asyncio.to_thread(begun.wait, 30)
        streams[1].push(babble(2, 1))
        assert tiny_engine.stats().waiting == 1
        async with asyncio.timeout(10):
            await streams[1].aclose()
        assert tiny_engine.stats().waiting == 0
        late = tiny_engine.open()
        go_on.set()
        assert (await run(late, babble(2, 9))).text
        for stream in streams:
            await stream.aclose()

    asyncio.run(main())
    assert tiny_engine.stats().streams == 0


@also_as_on_a_gpu
def test_a_reused_slot_does_not_hear_the_caller_before(
    tiny_engine: Engine, heard: Callable[[Stream], list[Token]]
) -> None:
    async def tokens(seed: int) -> list[Token]:
        stream = tiny_engine.open()
        await run(stream, babble(2, seed))
        return heard(stream)

    first = asyncio.run(tokens(1))
    asyncio.run(tokens(2))
    assert asyncio.run(tokens(1)) == first


def test_streams_on_different_event_loops_share_the_engine(tiny_engine: Engine) -> None:
    expected = asyncio.run(run(tiny_engine.open(), babble(2, 6))).text
    texts: list[str] = []

    def call() -> None:
        async def main() -> None:
            stream = tiny_engine.open()
            finals: list[str] = []

            async def read() -> None:
                finals.extend([t.text async for t in stream if t.is_final])

            reader = asyncio.create_task(read())
            audio = babble(2, 6)
            for at in range(0, audio.size, 1600):
                stream.push(audio[at : at + 1600])
                await asyncio.sleep(0)
            await stream.finish()
            await reader
            texts.append(" ".join(finals))

        asyncio.run(main())

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert texts == [expected] * 4


@also_as_on_a_gpu
def test_latency_changes_in_band_without_a_gap(
    tiny_engine: Engine, heard: Callable[[Stream], list[Token]]
) -> None:
    async def main() -> None:
        stream = tiny_engine.open(latency_ms=1120)
        audio = babble(6, 8)
        stream.push(audio[: 3 * RATE])
        stream.update(latency_ms=80, language=tiny_engine.languages[0])
        stream.push(audio[3 * RATE :])
        final = await stream.finish()
        assert final.language == tiny_engine.languages[0]
        frames = [token.frame for token in heard(stream)]
        assert frames == sorted(frames)
        assert stream._frame >= 6 * RATE // 1280 - 1

    asyncio.run(main())


def test_closing_the_engine_ends_its_streams_with_an_error(
    make_tiny_engine: Callable[[], Engine],
) -> None:
    engine = make_tiny_engine()

    async def main() -> None:
        stream = engine.open()
        stream.push(babble(1, 1))
        engine.close()
        engine.close()
        with pytest.raises(EngineClosedError):
            async for _ in stream:
                pass
        with pytest.raises(EngineClosedError, match=r"Engine\.load"):
            engine.open()

    asyncio.run(main())
    assert not engine._thread.is_alive()


def test_nobody_reading_keeps_memory_bounded(tiny_engine: Engine) -> None:
    async def main() -> None:
        stream = tiny_engine.open(latency_ms=80)
        audio = babble(0.1, 1)
        for _ in range(300):  # a final each
            stream.push(audio)
            await stream.flush()
        assert len(stream._events._unread) <= 256
        await stream.aclose()

    asyncio.run(main())


def test_a_process_that_ends_during_a_step_ends_in_order() -> None:
    """PyTorch coming back to an interpreter that is going would abort the process."""
    program = """
import numpy as np
from nemotron_voice import Engine
from nemotron_voice.config import EngineOptions
from tests.random_checkpoint import tiny_checkpoint

engine = Engine(tiny_checkpoint(), EngineOptions(max_streams=16, threads=1))
for _ in range(16):
    engine.open().push(np.random.default_rng(1).standard_normal(25 * 16_000))
"""
    for _ in range(3):  # without the wait it is chance, most of the time the bad one
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_weights_of_the_checkpoint_go_once_int8_has_been_made_of_them() -> None:
    checkpoint = tiny_checkpoint()
    name = "encoder.layers.0.feed_forward1.linear1.weight"
    weight = weakref.ref(checkpoint.weights[name])
    with Engine(checkpoint, EngineOptions(precision="int8", max_streams=1, threads=1)) as engine:
        del checkpoint
        gc.collect()
        assert weight() is None
        assert engine.stats().streams == 0
