"""A call whose ears are a server's, over a network that breaks and a server that comes late."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("pipecat")

import jiwer
from pipecat.frames.frames import ErrorFrame
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.utils.errors import ErrorCategory

from benchmarks.chaos_proxy import ChaosProxy
from benchmarks.pipecat_bot import call
from nemotron_voice import Engine, RemoteEngine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.pipecat import NemotronSTTService
from tests.running_server import all_is_free, free_port, running_server

pytestmark = pytest.mark.server

RATE = 16_000


async def test_a_cut_network_costs_a_call_no_word() -> None:
    recorded = bundled_calls()[0]
    first = next(n for n, turn in enumerate(recorded.turns) if turn.language == "es-ES")
    samples = read_samples(recorded.audio)[: int((recorded.turns[first].end + 0.2) * RATE)]
    with Engine.load("demo", threads=1) as engine, running_server(engine) as server:
        async with ChaosProxy(server.port, seed=1) as proxy:
            proxy.bad = False
            remote = await asyncio.to_thread(
                RemoteEngine, f"ws://127.0.0.1:{proxy.port}", heartbeat_s=1.0
            )
            with remote:
                cuts = {samples.size * part // 4 // (RATE // 50) for part in (1, 2, 3)}
                here, there = await asyncio.gather(
                    call(NemotronSTTService(engine=engine), samples),
                    call(
                        NemotronSTTService(engine=remote),
                        samples,
                        on_packet=lambda n: proxy.cut_all() if n in cuts else None,
                    ),
                )
        await all_is_free(server)
    # The detector's stops fall a little differently in each call, and so do the flushes.
    assert jiwer.wer(here.text, there.text) <= 0.1, (here.text, there.text)
    assert {str(frame.language) for _, frame in there.finals} >= {"en-US", "es-ES"}
    assert any(frame.finalized for _, frame in there.finals)


async def test_a_server_that_comes_late_is_waited_for_and_the_call_keeps_its_audio() -> None:
    from tests.pipecat.test_stt import audio, finals, starts, stops

    port = free_port()
    service = NemotronSTTService(url=f"ws://127.0.0.1:{port}")
    samples = read_samples(bundled_calls()[0].audio)[: 2 * RATE]
    pcm = (samples * 32767).astype("<i2").tobytes()
    frame = audio(2.0)
    frame.audio = pcm
    with Engine.load("demo", threads=1) as engine:
        running = running_server(engine, port=port)

        async def later() -> None:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(running.__enter__)

        begins = asyncio.create_task(later())
        down, up = await run_test(
            service,
            frames_to_send=[starts(), frame, audio(0.3), stops(), SleepFrame(6.0)],
        )
        await begins
        await asyncio.to_thread(running.__exit__, None, None, None)
    errors = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert {error.category for error in errors} == {ErrorCategory.CONNECTIVITY}
    assert "Good evening" in " ".join(final.text for final in finals(down))


def test_a_url_is_an_address_and_stands_instead_of_an_engine() -> None:
    with pytest.raises(ConfigurationError, match="ws://"):
        NemotronSTTService(url="localhost:8080")
    NemotronSTTService(url="ws://localhost:8080")
