"""A bad network and a server that ends cost delay and no word.

A few of what `python -m benchmarks.remote_faults` does hundreds of, which reports the counts.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.chaos_proxy import ChaosProxy, Faults
from benchmarks.remote_faults import call, many, pcm16, plan
from nemotron_voice import Engine, RemoteEngine, Transcript, join_texts
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.errors import ServerRefusedError, ServerUnreachableError
from nemotron_voice.server import ServerOptions
from tests.running_server import free_port, running_server

pytestmark = pytest.mark.server

RATE = 16_000


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load("demo", threads=1) as engine:
        yield engine


async def connect(url: str) -> RemoteEngine:
    return await asyncio.to_thread(RemoteEngine, url, heartbeat_s=0.6)


async def test_cuts_stalls_and_truncations_cost_no_word(engine: Engine) -> None:
    numbers = range(6)
    expected = [(await call(engine, *plan(number), speed=None))[0] for number in numbers]
    faults = Faults(mean_bytes=400_000, refuse=0.1, stall_s=(0.1, 1.5))
    with running_server(engine) as server:
        async with ChaosProxy(server.port, seed=3, faults=faults) as proxy:
            proxy.bad = False
            with await connect(f"ws://127.0.0.1:{proxy.port}") as remote:
                proxy.bad = True
                heard = await many(remote, numbers, speed=8.0, at_once=6, done=lambda: None)
        assert sum(proxy.counts.values()) >= 3, "too good a network proves nothing"
        assert {"cut", "truncate"} & set(proxy.counts)
    assert [text for text, _ in heard] == expected
    assert engine.stats().streams == 0


async def test_of_two_servers_the_other_goes_on_when_one_ends(engine: Engine) -> None:
    pcm, flushes = plan(1)
    expected, _ = await call(engine, pcm, flushes, speed=None)
    with (
        running_server(engine) as second,
        running_server(engine) as first,
        RemoteEngine([first.url, second.url]) as remote,
    ):
        calls = [asyncio.create_task(call(remote, pcm, flushes, speed=8.0)) for _ in range(2)]
        await asyncio.sleep(1.0)
        assert len(first.service.connections) == 1
        first.server.should_exit = True
        texts = [text for text, _ in await asyncio.gather(*calls)]
    assert texts == [expected, expected]


async def test_a_flush_without_a_network_is_answered_empty_and_its_words_come_later(
    engine: Engine,
) -> None:
    samples = read_samples(bundled_calls()[0].audio)
    with running_server(engine) as server:
        async with ChaosProxy(server.port, seed=1, faults=Faults(refuse=1.0)) as proxy:
            proxy.bad = False
            with await connect(f"ws://127.0.0.1:{proxy.port}") as remote:
                stream = remote.open()
                stream.push(samples[:16_000])
                await stream.flush()
                proxy.cut_all()
                proxy.bad = True
                stream.push(samples[16_000:64_000])
                silent = await stream.flush(deadline_s=0.3)
                assert (silent.text, silent.flush_id, silent.is_final) == ("", 1, True)
                assert not silent.complete
                proxy.bad = False
                await stream.finish()
                finals = [t async for t in stream if t.is_final]
    solo = engine.open()
    solo.push(pcm16(samples[:16_000]))
    await solo.flush()
    solo.push(pcm16(samples[16_000:64_000]))
    await solo.flush()
    await solo.finish()
    assert join_texts(finals) == join_texts([t async for t in solo if t.is_final])


async def test_a_stream_closed_at_any_moment_leaves_nothing_open(engine: Engine) -> None:
    rng = random.Random(1)
    silence = np.zeros(20 * RATE, np.float32)
    with running_server(engine) as server, RemoteEngine(server.url) as remote:
        for _ in range(60):
            stream = remote.open()
            stream.push(silence)
            flush = asyncio.create_task(stream.flush())
            await asyncio.sleep(rng.choice([0.0, 0.001, 0.002, 0.005, 0.02]))
            await stream.aclose()
            await asyncio.gather(flush, return_exceptions=True)
        async with asyncio.timeout(5.0):
            while engine.stats().streams or server.service.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_without_any_server_a_stream_fails_and_says_which_were_tried(
    engine: Engine,
) -> None:
    port = free_port()
    with pytest.raises(ServerUnreachableError, match="nemotron-voice serve"):
        RemoteEngine(f"ws://127.0.0.1:{port}")
    with running_server(engine) as server:
        remote = RemoteEngine(server.url, reconnect_s=0.5, heartbeat_s=0.5)
        stream = remote.open()
        await stream.flush()
    with pytest.raises(ServerUnreachableError, match=server.url):
        async for _ in stream:
            pass
    await asyncio.to_thread(remote.close)


async def test_a_wrong_key_is_refused_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server(engine, ServerOptions(api_keys=("right",))) as server:
        with pytest.raises(ServerRefusedError, match="401"):
            RemoteEngine(server.url, api_key="wrong")
        with RemoteEngine(server.url, api_key="right") as remote:
            stream = remote.open()
            stream.push(np.zeros(1600, np.float32))
            assert (await stream.finish()).is_final
        monkeypatch.setenv("NEMOTRON_VOICE_API_KEY", "right")
        RemoteEngine(server.url).close()


async def test_a_call_longer_than_what_is_kept_goes_on_from_a_pause_and_repeats_nothing(
    engine: Engine,
) -> None:
    """Beyond `replay_s` the text may differ from that without a break: its times must be whole."""
    pcm, _ = plan(2)
    cuts = (11 * RATE, 17 * RATE)
    finals: list[Transcript] = []
    with running_server(engine) as server:
        async with ChaosProxy(server.port, seed=1) as proxy:
            proxy.bad = False
            remote = await asyncio.to_thread(
                RemoteEngine, f"ws://127.0.0.1:{proxy.port}", replay_s=4.0
            )
            with remote:
                stream = remote.open()
                at = 0
                for stop in sorted({*pauses(pcm), *cuts}):
                    stream.push(pcm[2 * at : 2 * stop])
                    at = stop
                    await stream.flush()
                    if stop in cuts:
                        proxy.cut_all()
                stream.push(pcm[2 * at :])
                await stream.finish()
                finals = [t async for t in stream if t.is_final]
    words = [word for final in finals for word in final.words]
    starts = [word.start for word in words]
    assert starts == sorted(starts)
    assert max(after - before for before, after in itertools.pairwise(starts)) < 4.0
    assert words[-1].end > len(pcm) / 2 / RATE - 3.0


def pauses(pcm: bytes) -> list[int]:
    """Where 0.4 s of quiet end."""
    levels = np.abs(np.frombuffer(pcm, "<i2").astype(np.float32))
    quiet = levels[: levels.size // 1600 * 1600].reshape(-1, 1600).mean(axis=1) < 60
    ends = [i for i in range(4, quiet.size) if quiet[i - 4 : i].all() and not quiet[i - 5]]
    return [1600 * end for end in ends]
