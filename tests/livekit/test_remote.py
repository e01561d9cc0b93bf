"""A session whose ears are a server's: the same words, also when the network breaks in mid-call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("livekit.agents")

import jiwer

from benchmarks.chaos_proxy import ChaosProxy
from benchmarks.livekit_bot import RecordedCaller, talking
from nemotron_voice import Engine, RemoteEngine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.livekit import STT
from tests.running_server import running_server

pytestmark = pytest.mark.server

RATE = 16_000


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load("demo", threads=1) as engine:
        yield engine


async def heard(ears: STT, *, cut: ChaosProxy | None = None) -> str:
    call = bundled_calls()[0]
    first = next(n for n, turn in enumerate(call.turns) if turn.language == "es-ES")
    samples = read_samples(call.audio)[: int((call.turns[first].end + 0.2) * RATE)]
    caller = RecordedCaller(np.concatenate([samples, np.zeros(2 * RATE, np.float32)]))
    async with talking(caller, stt=ears, turn_detection="vad") as (_, log):
        if cut is not None:
            for _ in range(3):
                await asyncio.sleep(samples.size / RATE / 4)
                cut.cut_all()
        await caller.ended.wait()
        await asyncio.sleep(1.0)
    assert log.errors == []
    assert {str(event.language) for _, event in log.finals} >= {"en-US", "es-ES"}
    return " ".join(text for _, text in log.committed if text)


async def test_a_cut_network_costs_a_session_no_word(engine: Engine) -> None:
    with running_server(engine) as server:
        async with ChaosProxy(server.port, seed=1) as proxy:
            proxy.bad = False
            remote = await asyncio.to_thread(
                RemoteEngine, f"ws://127.0.0.1:{proxy.port}", heartbeat_s=1.0
            )
            with remote:
                ears = STT(engine=remote, latency_ms=160)
                uncut, through_cuts = await asyncio.gather(
                    heard(STT(engine=engine, latency_ms=160)), heard(ears, cut=proxy)
                )
    # The detector's stops fall a little differently in each call, and so do the flushes.
    assert jiwer.wer(uncut, through_cuts) <= 0.1, (uncut, through_cuts)
    assert engine.stats().streams == 0


async def test_a_url_stands_for_the_engine(engine: Engine) -> None:
    with running_server(engine) as server:
        ears = STT(url=server.url)
        recogniser = await ears.engine()
        assert recogniser.languages == engine.languages
        assert await STT(url=server.url).engine() is recogniser
        assert ears.model == "nemotron"
    for wrong in ("localhost:8080", "http://localhost"):
        with pytest.raises(ConfigurationError, match="ws://"):
            STT(url=wrong)
    with pytest.raises(ConfigurationError, match="instead of"):
        STT(url="ws://localhost:8080", engine=engine)
