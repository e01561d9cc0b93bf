"""Flushes at random instants of the bundled calls lose, repeat and change no word.

A few of what `python -m benchmarks.flush` does hundreds of, which reports the counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from benchmarks.flush import compare, text_of
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load("demo", threads=1) as engine:
        yield engine


@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
def test_the_call_s_text_stays_the_same(engine: Engine, latency_ms: int) -> None:
    rng = random.Random(latency_ms)

    async def main() -> None:
        for call in bundled_calls()[:3]:
            samples = read_samples(call.audio)
            plain, _ = await text_of(engine, samples, latency_ms, [])
            assert plain
            flushes = [rng.randrange(8_000, samples.size) for _ in range(4)]
            flushed, _ = await text_of(engine, samples, latency_ms, flushes)
            differences = compare(plain, flushed)
            assert not differences, f"{plain}\n{flushed}"

    asyncio.run(main())
