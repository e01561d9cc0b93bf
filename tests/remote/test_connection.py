"""Servers that fail at the door or just behind it: what a stream does, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from nemotron_voice import RemoteEngine
from nemotron_voice.errors import (
    EngineFullError,
    NemotronVoiceError,
    ServerRefusedError,
    ServerUnreachableError,
    is_permanent,
)
from nemotron_voice.protocol import (
    ENGINE_PATH,
    LISTEN_PATH,
    ConfigureSuccess,
    Metadata,
    Results,
)
from tests.running_server import within
from tests.scripted_recognizer import transcript

RATE = 16_000
SILENCE = np.zeros(RATE, np.float32)
ABOUT = {"model": "scripted", "languages": ["en-US"], "latencies_ms": [80, 320]}
FAILED, RESTARTING = 1011, 1012  # close codes

Script = Callable[[web.WebSocketResponse, int], Awaitable[None]]


class Scripted:
    """A server that plays a script on each connection, after refusals of those before."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked = 0  # what it can hear
        self.connections = 0
        self.statuses: list[int] = []  # of refusals, with `headers`
        self.headers: dict[str, str] = {}
        self.url = ""

    async def about(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.statuses:
            return web.Response(status=self.statuses[0], headers=self.headers)
        return web.json_response(ABOUT)

    async def listen(self, request: web.Request) -> web.StreamResponse:
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), headers=self.headers)
        self.connections += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self.script(socket, self.connections)
        return socket


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Scripted]:
    scripted = Scripted(script)
    app = web.Application()
    app.router.add_get(ENGINE_PATH, scripted.about)
    app.router.add_get(LISTEN_PATH, scripted.listen)
    async with TestServer(app) as server:
        scripted.url = f"ws://{server.host}:{server.port}"
        yield scripted


@asynccontextmanager
async def connected(*servers: Scripted, reconnect_s: float) -> AsyncIterator[RemoteEngine]:
    urls = [server.url for server in servers]
    remote = await asyncio.to_thread(RemoteEngine, urls, reconnect_s=reconnect_s)
    try:
        yield remote
    finally:
        await asyncio.to_thread(remote.close)


async def drop(socket: web.WebSocketResponse, _: int) -> None:
    await socket.close(code=FAILED)


async def hear(socket: web.WebSocketResponse, _: int) -> None:
    """To the end."""
    async for message in socket:
        if message.type is WSMsgType.TEXT and "CloseStream" in message.data:
            await say(socket, "all heard", start=5.0, flush_id=0)
            await socket.send_str(Metadata("id", 1.0, "2026-01-01", "scripted", ()).to_text())
            await socket.close()


async def say(
    socket: web.WebSocketResponse,
    text: str,
    *,
    start: float,
    final: bool = True,
    flush_id: int | None = None,
) -> None:
    told = transcript(text, final=final, start=start, flush_id=flush_id)
    await socket.send_str(Results(told).to_text())


async def say_again_and_drop(socket: web.WebSocketResponse, _: int) -> None:
    await say(socket, "good", start=0.0)
    await say(socket, "evening", start=0.4, final=False)
    await drop(socket, 0)


async def configure_and_drop(socket: web.WebSocketResponse, _: int) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(ConfigureSuccess("id").to_text())
            await drop(socket, 0)


@pytest.mark.parametrize("script", [drop, say_again_and_drop, configure_and_drop])
async def test_a_server_that_drops_what_it_takes_is_asked_ever_less_often_and_given_up(
    script: Script,
) -> None:
    async with serving(script) as server, connected(server, reconnect_s=0.6) as remote:
        stream = remote.open(sample_rate=RATE)
        stream.push(SILENCE)
        stream.update(latency_ms=80)
        async with asyncio.timeout(10.0):
            with pytest.raises(ServerUnreachableError, match="1011"):
                async for _ in stream:
                    pass
        # The waits are random; without any there would be hundreds.
        assert 2 <= server.connections < 40


@pytest.mark.parametrize("final", [True, False])
async def test_a_server_that_gets_further_each_time_is_not_given_up(*, final: bool) -> None:
    async def further(socket: web.WebSocketResponse, number: int) -> None:
        if number == 8:
            return await hear(socket, number)
        await asyncio.sleep(0.1)
        await say(socket, f"word{number}", start=0.2 * number, final=final)
        return await drop(socket, number)

    async with serving(further) as server, connected(server, reconnect_s=0.3) as remote:
        stream = remote.open(sample_rate=RATE)
        stream.push(SILENCE)
        assert (await stream.finish(deadline_s=10.0)).text == "all heard"
        assert server.connections == 8


async def test_while_the_caller_is_silent_the_next_server_takes_over_from_one_that_drains() -> None:
    """`reconnect_s` is the time without a server, not the time without a word."""

    async def drain(socket: web.WebSocketResponse, _: int) -> None:
        await asyncio.sleep(0.5)
        await socket.close(code=RESTARTING)

    async with (
        serving(drain) as first,
        serving(hear) as second,
        connected(first, second, reconnect_s=0.3) as remote,
    ):
        stream = remote.open(sample_rate=RATE)
        stream.push(SILENCE)
        await within(lambda: second.connections == 1, 10.0)
        assert first.connections == 1
        assert (await stream.finish(deadline_s=10.0)).text == "all heard"


async def test_time_without_a_server_counts_from_the_loss_of_the_last() -> None:
    async def drop_and_restart(socket: web.WebSocketResponse, number: int) -> None:
        if number > 1:
            return await hear(socket, number)
        await asyncio.sleep(1.3)
        server.statuses = [502] * 1000
        asyncio.get_running_loop().call_later(0.6, server.statuses.clear)
        return await drop(socket, number)

    async with (
        serving(drop_and_restart) as server,
        connected(server, reconnect_s=1.5) as remote,
    ):
        stream = remote.open(sample_rate=RATE)
        stream.push(SILENCE)
        assert (await stream.finish(deadline_s=10.0)).text == "all heard"


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503, 504])
async def test_a_gateway_that_refuses_in_passing_is_no_refusal_for_good(status: int) -> None:
    async with serving(hear) as server:
        server.statuses = [status, status]
        with pytest.raises(ServerUnreachableError, match=str(status)) as failure:
            await asyncio.to_thread(RemoteEngine, server.url)
        assert not is_permanent(failure.value)
        server.statuses = []
        async with connected(server, reconnect_s=5.0) as remote:
            server.statuses = [status, status]
            stream = remote.open(sample_rate=RATE)
            stream.push(SILENCE)
            assert (await stream.finish(deadline_s=10.0)).text == "all heard"
        assert (server.statuses, server.connections) == ([], 1)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_for_good_is_told_at_once(status: int) -> None:
    async with serving(hear) as server:
        server.statuses = [status]
        with pytest.raises(ServerRefusedError, match=str(status)):
            await asyncio.to_thread(RemoteEngine, server.url)
        server.statuses = []
        async with connected(server, reconnect_s=5.0) as remote:
            server.statuses = [status]
            with pytest.raises(ServerRefusedError, match=str(status)):
                await remote.open(sample_rate=RATE).finish()


async def test_an_error_that_the_server_names_is_raised_by_that_name() -> None:
    async with serving(hear) as server:
        server.statuses = [503]
        server.headers = {"x-nemotron-error": "EngineFullError", "dg-error": "no%20room"}
        with pytest.raises(EngineFullError, match="503"):
            await asyncio.to_thread(RemoteEngine, server.url)
        server.headers = {"x-nemotron-error": "UnknownError"}
        with pytest.raises(NemotronVoiceError, match="503"):
            await asyncio.to_thread(RemoteEngine, server.url)
