"""A file is heard to its end, and the event loop's other tasks don't notice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nemotron_voice import Engine
from nemotron_voice.audio import AudioFile, read_file
from nemotron_voice.config import EngineOptions
from nemotron_voice.errors import AudioDecodeError
from nemotron_voice.hear import hear, packets
from nemotron_voice.resampler import Samples
from tests.random_checkpoint import tiny_checkpoint
from tests.test_audio import encoded

RATE = 8_000


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(tiny_checkpoint(), EngineOptions(max_streams=2, threads=1)) as engine:
        yield engine


@pytest.fixture
def silence(tmp_path: Path) -> AudioFile:
    path = tmp_path / "silence.wav"
    path.write_bytes(encoded("wav", np.zeros(600 * RATE, np.float32), RATE))
    return read_file(path)


def test_others_have_their_turn_while_ten_minutes_of_silence_are_heard(
    engine: Engine, silence: AudioFile
) -> None:
    """Silence is skipped as fast as it comes, so that nothing is ever waited for."""
    fed_s = 0.0
    seen: list[float] = [0.0]

    def progress(seconds: float) -> None:
        nonlocal fed_s
        fed_s = seconds

    async def watch() -> None:
        while True:
            seen.append(fed_s)
            await asyncio.sleep(0)

    async def main() -> None:
        watcher = asyncio.create_task(watch())
        await hear(
            engine.open(latency_ms=1120, sample_rate=silence.sample_rate),
            silence,
            realtime=False,
            on_transcript=lambda _: None,
            on_progress=progress,
        )
        watcher.cancel()

    asyncio.run(main())
    assert fed_s == pytest.approx(600)
    assert np.diff(seen).max() <= 2, "seconds of audio between two turns of another task"


def test_draining_a_stream_asleep_gives_way(engine: Engine) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        stream = engine.open()
        stream.push(np.zeros(10 * 16_000, np.float32))
        await stream.drained(0.1)
        counter = asyncio.create_task(count())
        before = turns
        for _ in range(100):
            stream.push(np.zeros(1600, np.float32))
            await stream.drained()
        assert turns - before >= 99
        counter.cancel()
        await stream.aclose()

    asyncio.run(main())


def test_a_file_is_decoded_on_another_thread(
    engine: Engine, silence: AudioFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()
    blocks = AudioFile.__iter__

    def spy(self: AudioFile) -> Iterator[Samples]:
        for block in blocks(self):
            threads.add(threading.current_thread())
            yield block

    monkeypatch.setattr(AudioFile, "__iter__", spy)

    async def main() -> None:
        await hear(
            engine.open(sample_rate=silence.sample_rate),
            silence,
            realtime=False,
            on_transcript=lambda _: None,
            on_progress=lambda _: None,
        )

    asyncio.run(main())
    assert threads
    assert threading.current_thread() not in threads


def test_packets_come_to_the_last_sample_before_the_damage_is_told() -> None:
    def cut() -> Iterator[Samples]:
        yield np.ones(250, np.float32)
        raise AudioDecodeError("cut off")

    sizes: list[int] = []
    with pytest.raises(AudioDecodeError, match="cut off"):
        sizes.extend(packet.size for packet in packets(cut(), 100))
    assert sizes == [100, 100, 50]
