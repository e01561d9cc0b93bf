"""Batches of files share an engine with live callers and each other, and can be stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nemotron_voice import Engine, Transcript
from nemotron_voice.config import EngineOptions
from nemotron_voice.engine.files import run_apart
from nemotron_voice.engine.stream import Stream
from nemotron_voice.errors import AudioDecodeError, EngineClosedError
from tests.random_checkpoint import tiny_checkpoint
from tests.test_audio import encoded, noise

RATE = 16_000


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.wav" for name in "abcdef"]
    for path in paths:
        path.write_bytes(encoded("wav", noise(4.0, RATE), RATE))
    return paths


@pytest.fixture
def make_small_engine() -> Callable[[], Engine]:
    return lambda: Engine(tiny_checkpoint(), EngineOptions(max_streams=2, threads=1))


def texts(finals: list[list[Transcript]]) -> list[list[str]]:
    return [[final.text for final in of_a_file] for of_a_file in finals]


async def told_to_wait(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(30):
        while "all 2 stream slots are in use" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_batch_waits_for_slots_that_live_callers_hold(
    make_small_engine: Callable[[], Engine],
    files: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(engine: Engine) -> None:
        callers = [engine.open(), engine.open()]
        batch = asyncio.create_task(asyncio.to_thread(engine.transcribe, files))
        await told_to_wait(caplog)
        await callers[0].aclose()
        async with asyncio.timeout(60):
            assert len(await batch) == len(files)
        await callers[1].aclose()
        assert engine.stats().streams == 0

    with make_small_engine() as engine:
        asyncio.run(main(engine))


def test_a_caller_who_takes_the_slot_between_two_files_stops_none(
    make_small_engine: Callable[[], Engine], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_small_engine() as engine:
        expected = texts(engine.transcribe(files))
        callers: list[Stream] = []
        release = engine.release

        def release_and_call(stream: Stream) -> None:
            release(stream)
            if not callers:
                callers.append(engine.open())

        monkeypatch.setattr(engine, "release", release_and_call)
        assert texts(engine.transcribe(files)) == expected
        assert engine.stats().streams == len(callers) == 1


def test_two_batches_share_an_engine(
    make_small_engine: Callable[[], Engine], files: list[Path]
) -> None:
    with make_small_engine() as engine:
        expected = texts(engine.transcribe(files))
        with ThreadPoolExecutor() as executor:
            batches = [executor.submit(engine.transcribe, files) for _ in range(3)]
            assert [texts(batch.result(120)) for batch in batches] == [expected] * 3
        assert engine.stats().streams == 0


def test_a_batch_that_waits_notices_that_the_engine_closes(
    make_small_engine: Callable[[], Engine],
    files: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(engine: Engine) -> None:
        callers = [engine.open(), engine.open()]
        batch = asyncio.create_task(asyncio.to_thread(engine.transcribe, files))
        await told_to_wait(caplog)
        engine.close()
        async with asyncio.timeout(30):
            with pytest.raises(EngineClosedError, match=r"Engine\.load"):
                await batch
        assert len(callers) == 2

    asyncio.run(main(make_small_engine()))


def test_a_file_that_is_cut_off_ends_a_batch_by_its_name_and_frees_the_slots(
    make_small_engine: Callable[[], Engine], files: list[Path]
) -> None:
    files[2].write_bytes(files[2].read_bytes()[:40_000])
    with make_small_engine() as engine:
        with pytest.raises(AudioDecodeError, match=r"c\.wav is cut off") as error:
            engine.transcribe(files)
        assert not isinstance(error.value.__context__, ExceptionGroup)
        assert engine.stats().streams == 0
        assert len(engine.transcribe(files[:2])) == 2


def test_ctrl_c_ends_a_batch_and_frees_its_slots(
    make_small_engine: Callable[[], Engine], files: list[Path]
) -> None:
    fed: set[Path] = set()

    def progress(path: Path, seconds: float) -> None:
        if path not in fed:
            fed.add(path)
            if path == files[1]:
                os.kill(os.getpid(), signal.SIGINT)

    with make_small_engine() as engine:
        with pytest.raises(KeyboardInterrupt):
            engine.transcribe(files * 20, progress=progress)
        assert engine.stats().streams == 0
        assert files[-1] not in fed


def test_work_apart_is_cancelled_by_ctrl_c() -> None:
    ended: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.2)  # the caller is waiting
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        run_apart(work())
    assert ended == ["cancelled"]
