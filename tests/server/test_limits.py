"""A hostile or broken client is bounded, and its neighbour on the same engine doesn't notice.

The neighbour streams a bundled call meanwhile, must get exactly the text that an engine in this
process makes of it, and after each test every slot is free.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
import yarl

from benchmarks.remote_faults import call, pcm16
from nemotron_voice import Engine, RemoteEngine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.engine import Stream
from nemotron_voice.server import ServerOptions, run, sockets
from nemotron_voice.server.app import RETRY_AFTER_S
from nemotron_voice.server.listen import Connection
from nemotron_voice.transcript import Transcript
from tests.running_server import RunningServer, all_is_free, running_server, within
from tests.server.raw_socket import (
    BINARY,
    CLOSE,
    TEXT,
    RawSocket,
    SilentNetwork,
    frame,
    raw_socket,
)

pytestmark = pytest.mark.server

RATE = 16_000
CLOSE_STREAM = b'{"type":"CloseStream"}'
TRANSCRIPTIONS = "/v1/audio/transcriptions"
GUARDED = [
    *(("GET", path) for path in ("/metrics", "/", "/v1/engine")),
    *(("POST", path) for path in ("/v1/listen", TRANSCRIPTIONS)),
]
WRONG_KEYS: list[dict[str, str]] = [
    {},
    {"Authorization": "Token wrong"},
    {"Authorization": "Token"},
    {"Authorization": "right"},
    {"Authorization": "Basic \u00e9\u00e9"},
    {"Authorization": "Basic " + base64.b64encode(b"right:wrong").decode()},
    {"Authorization": "Token righ"},
]
RIGHT_KEYS = [
    {"Authorization": "Token right"},
    {"Authorization": "bearer right"},
    {"Authorization": "Basic " + base64.b64encode(b"anyone:other").decode()},
]
QUERY = {"encoding": "linear16", "sample_rate": "16000"}
SPOKEN_S = 4.0  # of a call, by then something was said
FLUSHES = [3 * RATE, 9 * RATE]
FLUSH_DELAY_S = 2.0  # bad is more: alone, a flush is answered in some 20 ms


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.load("demo", threads=1, max_streams=8) as engine:
        yield engine


@pytest.fixture(scope="module")
def audio() -> bytes:
    """The first 12 s of a call, PCM16."""
    return pcm16(read_samples(bundled_calls()[0].audio)[: 12 * RATE])


@pytest.fixture(scope="module")
def usual(engine: Engine, audio: bytes) -> str:
    """What the neighbour hears where it is alone."""
    text, _ = asyncio.run(call(engine, audio, FLUSHES, speed=None))
    assert len(text.split()) > 10
    return text


@pytest.fixture(autouse=True)
def no_failure_of_the_app(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What a client does wrong is no error of ours, and nothing to log as one."""
    yield
    assert "ASGI" not in capfd.readouterr().err


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """One that keeps no connection for later: at the end there should be none."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@pytest.fixture
def serve(
    engine: Engine, audio: bytes, usual: str
) -> Callable[..., contextlib.AbstractAsyncContextManager[RunningServer]]:
    """A server with a neighbour on it, who is asked at the end."""

    @contextlib.asynccontextmanager
    async def serving(*, speed: float | None = 6.0, **limits: Any) -> AsyncIterator[RunningServer]:
        with running_server(engine, ServerOptions(**limits)) as server:
            remote = await asyncio.to_thread(RemoteEngine, server.url)
            with remote:
                work = asyncio.create_task(call(remote, audio, FLUSHES, speed=speed))
                try:
                    yield server
                except BaseException:
                    work.cancel()
                    raise
                text, delay_s = await work
            assert text == usual
            assert delay_s < FLUSH_DELAY_S
            await all_is_free(server)

    return serving


@contextlib.asynccontextmanager
async def listening(
    server: RunningServer, /, *, port: int | None = None, deaf: bool = False, **query: str
) -> AsyncIterator[RawSocket]:
    """A raw connection that the server has taken; a deaf one reads nothing more."""
    async with raw_socket(port or server.port, receive_bytes=4096 if deaf else None) as client:
        client.upgrade(QUERY | query)
        status, head = await client.head()
        assert status == 101, head
        if deaf:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        yield client


def the_other(server: RunningServer) -> Connection:
    """The connection that isn't the neighbour's, who finalises by flushes alone."""
    (other,) = (c for c in server.service.connections if c._options.finalize == "sentence")
    return other


async def told(client: RawSocket) -> tuple[list[dict[str, Any]], int]:
    """What the server says to its end, and the close code."""
    messages = await asyncio.wait_for(client.ended(), 10.0)
    assert messages[-1].opcode == CLOSE, "the connection broke without a close"
    texts = [json.loads(message.payload) for message in messages if message.opcode == TEXT]
    return texts, messages[-1].close_code


def finals_of(texts: list[dict[str, Any]]) -> str:
    return " ".join(
        text["channel"]["alternatives"][0]["transcript"]
        for text in texts
        if text["type"] == "Results" and text["is_final"]
    ).strip()


def speech(audio: bytes) -> bytes:
    return frame(BINARY, audio[: int(2 * RATE * SPOKEN_S)])


# ---- clients that are slow, too fast or gone


def small_send_buffer(server: RunningServer) -> None:
    """The system takes in some MB for a client that doesn't read; here, little."""
    for listener in server.server.servers[0].sockets:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


def has_socket(server: RunningServer, client: RawSocket) -> bool:
    """Whether the server still has the other end of it."""
    ours = client.writer.get_extra_info("sockname")
    connections: set[Any] = server.server.server_state.connections
    return any(connection.client == ours for connection in connections)


async def test_a_client_that_never_reads_is_cut_off_and_its_socket_freed(
    serve: Any, audio: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_S", 0.5)
    async with serve(send_s=0.5) as server:
        small_send_buffer(server)
        async with listening(server, deaf=True, interim_results="true") as client:
            deaf = the_other(server)
            with contextlib.suppress(ConnectionError):
                for _ in range(20):  # 4 minutes, whose interims are some 200 KB
                    client.writer.write(frame(BINARY, audio))
                    await client.writer.drain()
            await within(lambda: deaf not in server.service.connections, 5.0)
            await within(lambda: not has_socket(server, client), 3.0)


async def test_a_client_that_reads_no_answers_to_configure_is_cut_off(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_S", 0.5)
    configure = frame(TEXT, json.dumps({"type": "Configure", "language": "en-US"}).encode())
    async with serve(send_s=0.5, max_messages_per_s=10_000) as server:
        small_send_buffer(server)
        async with listening(server, deaf=True) as client:
            deaf = the_other(server)
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    client.writer.write(100 * configure)
                    await client.writer.drain()
                    await asyncio.sleep(0.01)
            await within(lambda: deaf not in server.service.connections, 5.0)
            await within(lambda: not has_socket(server, client), 3.0)


async def test_a_message_that_comes_a_byte_at_a_time_is_idleness(serve: Any, audio: bytes) -> None:
    async with serve(idle_s=0.8) as server, listening(server) as client:
        client.writer.write(frame(BINARY, b"", announced=1_000))
        began = time.monotonic()
        ended = asyncio.create_task(told(client))
        while not ended.done():
            client.writer.write(b"\0")
            await asyncio.sleep(0.1)
        texts, code = await ended
        assert time.monotonic() - began < 3.0
        assert code == 1011
        assert texts[-1]["variant"] == "ServerRefusedError"
        assert texts[-1]["description"].startswith("NET-0001")


async def test_ten_thousand_tiny_messages_a_second_slow_only_their_sender(serve: Any) -> None:
    async with serve(max_messages_per_s=2_000) as server, listening(server) as client:
        sent = 0
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            client.writer.write(100 * frame(BINARY, b"\0\0"))
            sent += 100
            await asyncio.sleep(sent / 10_000 - (time.monotonic() - began))
        assert sent > 10_000
        client.writer.write(frame(TEXT, CLOSE_STREAM))
        texts, code = await told(client)
        assert time.monotonic() - began > (sent - 2 * 2_000) / 2_000, "as fast as they came"
        assert code == 1000
        assert texts[-1]["type"] == "Metadata"
        assert texts[-1]["duration"] == pytest.approx(sent / RATE, abs=0.001), "all were heard"


async def test_a_client_that_vanishes_without_a_word_is_given_up(
    serve: Any, audio: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_S", 0.5)
    async with (
        serve(idle_s=1.0, send_s=0.5) as server,
        SilentNetwork(server.port) as network,
        listening(server, port=network.port) as client,
    ):
        lost = the_other(server)
        client.writer.write(speech(audio))
        await client.message()
        network.silent = True
        await within(lambda: lost not in server.service.connections, 4.0)
        await within(lambda: not server.server.server_state.connections, 4.0)


async def test_a_client_that_sends_no_request_is_cut_off(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slowloris: a head that comes a byte at a time, or none at all; also after a first request."""
    monkeypatch.setattr(sockets, "HEAD_S", 0.5)
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    async with serve() as server, contextlib.AsyncExitStack() as stack:
        began = time.monotonic()
        clients = [await stack.enter_async_context(raw_socket(server.port)) for _ in range(3)]
        clients[1].writer.write(get)
        clients[2].writer.write(get + b"\r\n")
        assert (await clients[2].head())[0] == 200
        assert await clients[2].reader.readexactly(2) == b"ok"
        clients[2].writer.write(get)
        for client in clients:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(client.reader.read(), 3.0) == b""
        assert time.monotonic() - began < 2.0


async def test_a_client_that_breaks_off_in_the_middle_of_a_message_frees_its_slot(
    serve: Any, audio: bytes
) -> None:
    async with serve() as server:
        for _ in range(20):
            async with listening(server) as client:
                client.writer.write(speech(audio)[:50_000])
                await client.writer.drain()


async def test_audio_much_faster_than_speech_waits_at_the_client_and_is_all_heard(
    engine: Engine, serve: Any, audio: bytes
) -> None:
    minutes = 10 * audio  # 2 minutes
    solo = engine.open(finalize="sentence", interim_results=False, max_buffered_s=200.0)
    solo.push(minutes)
    await solo.finish()
    expected = " ".join([t.text async for t in solo if t.is_final])
    async with serve(max_buffered_s=2.0) as server, listening(server) as client:
        fast: Any = the_other(server)._stream
        ended = asyncio.create_task(told(client))
        backlog_s = 0.0

        async def watch() -> None:
            nonlocal backlog_s
            while not ended.done():
                backlog_s = max(backlog_s, fast._backlog() / RATE)
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        for at in range(0, len(minutes), 100_000):
            client.writer.write(frame(BINARY, minutes[at : at + 100_000]))
            await client.writer.drain()
        client.writer.write(frame(TEXT, CLOSE_STREAM))
        texts, code = await ended
        await watching
    assert code == 1000
    assert finals_of(texts) == expected
    assert 1.0 < backlog_s < 4.0


async def test_a_server_may_hold_more_audio_of_a_client_than_a_stream_does_by_default(
    engine: Engine, audio: bytes
) -> None:
    with running_server(engine, ServerOptions(max_buffered_s=60.0)) as server:
        async with listening(server) as client:
            client.writer.write(4 * frame(BINARY, audio) + frame(TEXT, CLOSE_STREAM))
            texts, code = await told(client)
    assert (code, texts[-1]["type"]) == (1000, "Metadata"), texts[-1]
    assert texts[-1]["duration"] == pytest.approx(48.0)


async def test_a_client_that_waits_for_the_engine_is_neither_idle_nor_deaf_to_pings(
    serve: Any, audio: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy engine: its audio is read later, and with it the answers to our pings."""
    monkeypatch.setattr(run, "PING_S", 0.3)
    async with (
        serve(max_buffered_s=0.5, idle_s=0.8) as server,
        listening(server) as client,
    ):
        slow = the_other(server)
        drained = slow._stream.drained

        async def later(max_buffered_s: float = 0.5) -> None:
            await asyncio.sleep(0.25)
            await drained(max_buffered_s)

        monkeypatch.setattr(slow._stream, "drained", later)
        client.writer.write(frame(BINARY, audio))  # one message of 12 s: 3 s of work
        client.writer.write(frame(TEXT, CLOSE_STREAM))
        texts, code = await told(client)
        assert (code, texts[-1]["type"]) == (1000, "Metadata"), texts[-1]
        assert texts[-1]["duration"] == pytest.approx(12.0)


# ---- messages that are too large, too many or none


async def test_a_message_over_the_limit_is_closed_with_1009(serve: Any) -> None:
    async with serve(max_message_bytes=65_536) as server:
        async with listening(server) as client:
            client.writer.write(frame(BINARY, bytes(65_536)) + frame(TEXT, CLOSE_STREAM))
            texts, code = await told(client)
            assert (code, texts[-1]["duration"]) == (
                1000,
                pytest.approx(65_536 / 2 / RATE, abs=1e-3),
            )
        async with listening(server) as client:
            client.writer.write(frame(BINARY, b"", announced=65_537))
            assert (await told(client))[1] == 1009
        async with listening(server) as client:  # nobody waits for 8 exabytes
            client.writer.write(frame(BINARY, b"", announced=2**63 - 1))
            assert (await told(client))[1] == 1009


async def test_after_a_message_over_the_limit_nothing_is_delivered_and_the_close_says_the_limit(
    serve: Any, audio: bytes
) -> None:
    async with serve(max_message_bytes=65_536) as server, listening(server) as client:
        for at in range(0, int(2 * RATE * SPOKEN_S), 64_000):
            client.writer.write(frame(BINARY, audio[at : at + 64_000]))
        client.writer.write(frame(BINARY, b"", announced=65_537))
        *before, close = await asyncio.wait_for(client.ended(), 10.0)
    assert close.close_code == 1009
    assert b"65536" in close.payload
    assert {json.loads(message.payload)["type"] for message in before} <= {"Results"}


async def test_more_finalize_than_are_answered_end_the_connection_after_the_answers(
    serve: Any, audio: bytes
) -> None:
    async with serve(max_pending_finalize=4) as server, listening(server) as client:
        client.writer.write(speech(audio) + 50 * frame(TEXT, b'{"type":"Finalize"}'))
        texts, code = await told(client)
    assert code == 1008
    assert texts[-1]["variant"] == "ProtocolError"
    assert "4 Finalize messages wait" in texts[-1]["description"]
    answers = [t for t in texts if t["type"] == "Results" and t["from_finalize"]]
    assert 4 <= len(answers) <= 6
    assert [t["flush_id"] for t in answers] == list(range(len(answers)))
    assert len(finals_of(texts)) > 10


async def test_each_finalize_is_answered_as_one_whichever_is_due_first(
    serve: Any, audio: bytes
) -> None:
    async with serve() as server, listening(server) as client:
        client.writer.write(frame(BINARY, audio))
        for deadline_ms in (2_000, 0, 2_000, 1):
            finalize = {"type": "Finalize", "deadline_ms": deadline_ms}
            client.writer.write(frame(TEXT, json.dumps(finalize).encode()))
        client.writer.write(frame(TEXT, CLOSE_STREAM))
        texts, code = await told(client)
    assert code == 1000
    answers = [t["flush_id"] for t in texts if t["type"] == "Results" and t["from_finalize"]]
    assert sorted(answers) == [0, 1, 2, 3], "not that of CloseStream"


@pytest.mark.parametrize(
    "text",
    ['{"type": "Clos', "[]", '{"type": "Sing"}', '{"type": NaN}', "[" * 9_000, " " * 20_000],
    ids=["cut", "list", "unknown", "nan", "deep", "long"],
)
async def test_a_text_that_is_no_message_is_told_after_the_finals(
    engine: Engine, refusals: RunningServer, audio: bytes, text: str
) -> None:
    async with listening(refusals) as client:
        client.writer.write(speech(audio) + frame(TEXT, text.encode()))
        texts, code = await told(client)
    assert code == 1008
    assert texts[-1]["type"] == "Error"
    assert texts[-1]["variant"] == "ProtocolError"
    assert len(finals_of(texts[:-1])) > 10


async def test_garbage_in_place_of_audio_or_frames_ends_at_most_its_own_connection(
    serve: Any,
) -> None:
    noise = random.Random(1).randbytes(60_001)
    async with serve() as server:
        for encoding, expected in (("linear16", 1000), ("mulaw", 1000), ("opus", 1008)):
            async with listening(server, encoding=encoding) as client:
                client.writer.write(frame(BINARY, noise) + frame(TEXT, CLOSE_STREAM))
                texts, code = await told(client)
                assert code == expected, (encoding, texts[-1:])
        for garbage, code in (
            (b"\xff" * 100, 1002),  # reserved bits
            (frame(TEXT, b"\xc3("), 1007),  # no UTF-8
            (b"\x81\x02{}", 1002),  # not masked
            (frame(CLOSE, b"\0"), 1002),  # half a code
        ):
            async with listening(server) as client:
                client.writer.write(garbage)
                assert (await told(client))[1] == code, garbage


# ---- time


async def test_an_idle_client_is_told_net_0001_after_its_finals(serve: Any, audio: bytes) -> None:
    async with serve(idle_s=1.0) as server, listening(server) as client:
        client.writer.write(speech(audio))
        texts, code = await told(client)
    assert code == 1011
    assert len(finals_of(texts)) > 10
    assert texts[-1]["variant"] == "ServerRefusedError"
    assert "NET-0001" in texts[-1]["description"]


async def test_keepalive_keeps_a_silent_client(serve: Any) -> None:
    async with serve(idle_s=0.6) as server, listening(server) as client:
        for _ in range(6):
            client.writer.write(frame(TEXT, b'{"type":"KeepAlive"}'))
            await asyncio.sleep(0.3)
        client.writer.write(frame(TEXT, CLOSE_STREAM))
        assert (await told(client))[1] == 1000


async def test_a_connection_lasts_as_long_as_it_may_and_its_finals_are_told(
    engine: Engine, audio: bytes
) -> None:
    with running_server(engine, ServerOptions(session_s=1.0)) as server:
        async with listening(server) as client:
            client.writer.write(speech(audio))
            texts, code = await told(client)
        await all_is_free(server)
    assert code == 1008
    assert len(finals_of(texts)) > 10
    assert "may last 1 s" in texts[-1]["description"]


# ---- who may come in


async def test_without_the_right_key_only_health_is_told(
    engine: Engine, http: aiohttp.ClientSession
) -> None:
    with running_server(engine, ServerOptions(api_keys=("right", "other"))) as server:
        for header in WRONG_KEYS:
            for method, path in GUARDED:
                async with http.request(method, server.http + path, headers=header) as response:
                    assert response.status == 401, (header, path)
                    assert "www-authenticate" in response.headers
            async with raw_socket(server.port) as client:
                client.upgrade(QUERY, **header)
                status, head = await client.head()
                assert status == 401
                assert "x-nemotron-error: serverrefused" in head
        for path in ("/healthz", "/readyz"):
            async with http.get(server.http + path) as response:
                assert response.status == 200
        for header in RIGHT_KEYS:
            for path in ("/metrics", "/", "/v1/engine"):
                async with http.get(server.http + path, headers=header) as response:
                    assert response.status == 200, (header, path)
        for subprotocols in (["token", "right"], ["bearer", "other"]):
            async with http.ws_connect(
                server.url + "/v1/listen", params=QUERY, protocols=subprotocols
            ) as socket:
                assert socket.protocol == subprotocols[0]
        await all_is_free(server)


async def test_a_page_may_connect_from_the_servers_own_origin_or_an_allowed_one(
    engine: Engine, http: aiohttp.ClientSession
) -> None:
    with running_server(
        engine, ServerOptions(allowed_origins=("https://friend.example",))
    ) as server:
        for origin, allowed in (
            ("https://evil.example", False),
            ("https://friend.example", True),
            ("https://friend.example.evil.example", False),
            (server.http, True),
            (f"http://127.0.0.1:{server.port + 1}", False),
            ("null", False),
            ("", False),
            ("http://[", False),
        ):
            async with raw_socket(server.port) as client:
                client.upgrade(QUERY, Host=f"127.0.0.1:{server.port}", Origin=origin)
                status, _ = await client.head()
                assert status == (101 if allowed else 403), origin
            async with http.get(server.http + "/v1/engine", headers={"Origin": origin}) as response:
                assert response.status == (200 if allowed else 403), origin
        await all_is_free(server)


async def test_a_key_has_as_many_streams_as_it_may_and_another_key_has_its_own(
    engine: Engine, http: aiohttp.ClientSession
) -> None:
    options = ServerOptions(api_keys=("one", "two"), max_streams_per_key=1)
    one, two = ({"Authorization": f"Token {key}"} for key in ("one", "two"))
    with running_server(engine, options) as server:
        url = server.url + "/v1/listen"
        async with http.ws_connect(url, params=QUERY, headers=one):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await http.ws_connect(url, params=QUERY, headers=one)
            assert refusal.value.status == 429
            async with http.ws_connect(url, params=QUERY, headers=two):
                pass
        await all_is_free(server)
        async with http.ws_connect(url, params=QUERY, headers=one):
            pass
        await all_is_free(server)


async def test_a_full_engine_says_when_to_come_again_and_those_inside_do_not_notice(
    http: aiohttp.ClientSession, audio: bytes, usual: str
) -> None:
    with (
        Engine.load("demo", threads=1, max_streams=1) as small,
        running_server(small) as server,
        await asyncio.to_thread(RemoteEngine, server.url) as remote,
    ):
        inside = asyncio.create_task(call(remote, audio, FLUSHES, speed=6.0))
        await within(lambda: len(server.service.connections) == 1, 2.0)
        url = server.url + "/v1/listen"
        for _ in range(20):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await http.ws_connect(url, params=QUERY)
            assert refusal.value.status == 503
            assert refusal.value.headers is not None
            assert refusal.value.headers["retry-after"] == RETRY_AFTER_S
            assert refusal.value.headers["x-nemotron-error"] == "EngineFullError"
        async with http.ws_connect(url, params=QUERY, headers={"Origin": server.http}) as page:
            assert json.loads((await page.receive()).data)["variant"] == "EngineFullError"
            await page.receive()
            assert page.close_code == 1013
        assert (await inside)[0] == usual
        await all_is_free(server)


# ---- queries


@pytest.fixture(scope="module")
def refusals(engine: Engine) -> Iterator[RunningServer]:
    """A server for what is refused at the door."""
    with running_server(engine, ServerOptions(max_upload_bytes=100_000)) as server:
        yield server
        asyncio.run(all_is_free(server))


@pytest.mark.parametrize(
    ("query", "told_why"),
    [
        ("", "encoding is missing"),
        ("encoding=linear16", "sample_rate is missing"),
        ("encoding=linear16&sample_rate=1e4", "not a whole number"),
        ("encoding=linear16&sample_rate=16000&redact=pci", "text would leak"),
        ("encoding=linear16&sample_rate=16000&language=klingon", "klingon"),
        ("encoding=linear16&sample_rate=16000&language=" + 500 * "%F0%9F%98%80", "language"),
        ("encoding=linear16&sample_rate=16000&xyz=%ff%00&redact=" + 5_000 * "A", "leave it out"),
        ("sample_rate=16000&encoding=linear16&encoding=flac", "encoding=flac"),
        ("&".join(["encoding=linear16"] * 101), "more than 100"),
    ],
    ids=range(9),
)
async def test_a_query_that_can_not_be_honoured_is_refused_before_a_slot_is_taken(
    refusals: RunningServer, http: aiohttp.ClientSession, query: str, told_why: str
) -> None:
    url = yarl.URL(f"{refusals.url}/v1/listen?{query}", encoded=True)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await http.ws_connect(url)
    assert refusal.value.status == 400
    assert refusal.value.headers is not None
    assert told_why in unquote(refusal.value.headers["dg-error"])
    async with http.ws_connect(url, headers={"Origin": refusals.http}) as page:
        error = json.loads((await page.receive()).data)
        assert error["type"] == "Error"
        assert told_why in error["description"]
        await page.receive()
        assert page.close_code == 1008


async def test_of_an_option_given_twice_the_last_holds_and_unknown_ones_are_told(
    refusals: RunningServer,
) -> None:
    async with raw_socket(refusals.port) as client:
        client.upgrade(QUERY | {"interim_result": "true", "language": "es-MX"})
        status, head = await client.head()
        assert status == 101
        assert "interim_result is not a parameter of this server" in head
        assert "language=es-mx is heard as es-" in head
        client.writer.write(frame(TEXT, CLOSE_STREAM))
        texts, _ = await told(client)
        assert len(texts[-1]["warnings"]) == 2


async def test_very_many_warnings_still_fit_a_header_that_clients_take(
    refusals: RunningServer,
) -> None:
    unknown = {f"{number}{10 * 'é'}": "1" for number in range(90)}
    timeout = aiohttp.ClientTimeout(total=5.0)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.ws_connect(refusals.url + "/v1/listen", params=QUERY | unknown) as socket,
    ):
        await socket.send_str(CLOSE_STREAM.decode())
        while (told := json.loads((await socket.receive()).data))["type"] != "Metadata":
            pass
        assert len(told["warnings"]) == 90


async def test_compression_is_not_negotiated(
    refusals: RunningServer, http: aiohttp.ClientSession
) -> None:
    async with raw_socket(refusals.port) as client:
        client.upgrade(QUERY, **{"Sec-WebSocket-Extensions": "permessage-deflate"})
        status, head = await client.head()
        assert status == 101
        assert "extensions" not in head
        client.writer.write(b"\xc2" + frame(BINARY, bytes(100))[1:])  # the bit that says compressed
        assert (await told(client))[1] == 1002


async def test_a_head_without_end_is_refused(refusals: RunningServer) -> None:
    async with raw_socket(refusals.port) as client:
        client.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Y: " + 200_000 * b"z")
        assert (await asyncio.wait_for(client.head(), 5.0))[0] == 400


@pytest.mark.parametrize("way", ["query", "header", "headers"])
async def test_a_handshake_that_is_too_large_is_refused_and_the_server_still_ends(
    engine: Engine, way: str
) -> None:
    with running_server(engine) as server:  # ends in order, or this raises
        async with raw_socket(server.port) as client, raw_socket(server.port) as patient:
            for one in (client, patient):
                query = QUERY | {"tag": 9_000 * "a"} if way == "query" else QUERY
                headers = {f"X-{number}": "y" for number in range(200)} if way == "headers" else {}
                one.upgrade(query, **headers, **({"X": 9_000 * "a"} if way == "header" else {}))
            assert (await asyncio.wait_for(client.head(), 3.0))[0] == 431


# ---- uploads


def a_form(content: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", content, filename="call.wav")
    return form


async def test_an_upload_that_is_too_large_is_refused_with_413(
    refusals: RunningServer, http: aiohttp.ClientSession
) -> None:
    large = bytes(100_001)
    async with http.post(refusals.http + "/v1/listen", data=large) as response:
        assert response.status == 413
        assert "stream it" in (await response.json())["err_msg"]
    async with http.post(refusals.http + TRANSCRIPTIONS, data=a_form(large)) as response:
        assert response.status == 413
        assert "stream it" in (await response.json())["error"]["message"]

    async with raw_socket(refusals.port) as client:  # of a length that isn't told, and no end
        client.request("POST /v1/listen", {"Host": "localhost", "Transfer-Encoding": "chunked"})
        client.writer.write(b"%x\r\n%b\r\n" % (len(large), large))
        assert (await client.head())[0] == 413


async def test_a_form_without_its_length_is_refused_with_411(
    refusals: RunningServer, http: aiohttp.ClientSession
) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        yield b"x"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with http.post(
        refusals.http + TRANSCRIPTIONS, data=blocks(), headers=headers
    ) as response:
        assert response.status == 411


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"RIFF", random.Random(2).randbytes(5_000), b"<html></html>"),
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
    ],
    ids=["empty", "head", "noise", "html", "m3u8", "ffconcat"],
)
async def test_an_upload_that_is_no_audio_is_refused_without_the_name_it_has_here(
    refusals: RunningServer, http: aiohttp.ClientSession, content: bytes
) -> None:
    async with http.post(refusals.http + "/v1/listen", data=content) as response:
        assert response.status == 400
        body = await response.json()
    assert body["err_code"] == "AudioDecodeError"
    assert "/tmp" not in body["err_msg"]
    async with http.post(refusals.http + TRANSCRIPTIONS, data=a_form(content)) as response:
        assert response.status == 400
        assert "/tmp" not in await response.text()


async def test_a_url_in_place_of_a_file_is_refused(
    refusals: RunningServer, http: aiohttp.ClientSession
) -> None:
    url = {"url": "http://169.254.169.254/latest/meta-data"}
    async with http.post(refusals.http + "/v1/listen", json=url) as response:
        assert response.status == 400
        assert "fetches no URLs" in (await response.json())["err_msg"]
    async with http.post(refusals.http + TRANSCRIPTIONS, data=url) as response:
        assert response.status in {400, 415}


async def test_an_upload_with_options_that_make_no_sense_is_refused(
    refusals: RunningServer, http: aiohttp.ClientSession
) -> None:
    for query in ("encoding=linear16", "redact=pci", "language=klingon", "channels=2"):
        async with http.post(f"{refusals.http}/v1/listen?{query}", data=b"x") as response:
            assert response.status == 400, query
    for field, value in (("response_format", "docx"), ("stream", "true"), ("language", "klingon")):
        form = a_form(b"x")
        form.add_field(field, value)
        async with http.post(refusals.http + TRANSCRIPTIONS, data=form) as response:
            assert response.status == 400, field


def offer_a_file(client: RawSocket, path: str, boundary: str = "b") -> None:
    """The head of an upload whose client sends the file when it is asked to."""
    headers = {"Host": "localhost", "Content-Length": "5000", "Expect": "100-continue"}
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    client.request(f"POST {path}", headers | (kind if path == TRANSCRIPTIONS else {}))


@pytest.mark.parametrize("path", ["/v1/listen", TRANSCRIPTIONS])
async def test_files_beyond_the_places_are_not_read_and_beyond_those_who_wait_refused(
    engine: Engine, http: aiohttp.ClientSession, path: str
) -> None:
    options = ServerOptions(max_uploads=1, max_waiting_uploads=1)
    with running_server(engine, options) as server:
        async with raw_socket(server.port) as first, raw_socket(server.port) as second:
            offer_a_file(first, path)
            assert (await asyncio.wait_for(first.head(), 5.0))[0] == 100
            offer_a_file(second, path)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(second.reader.read(1), 0.3)
            async with http.post(server.http + path, data=a_form(b"x")) as response:
                assert response.status == 503
                assert response.headers["retry-after"] == RETRY_AFTER_S
            first.writer.transport.abort()
            assert (await asyncio.wait_for(second.head(), 5.0))[0] == 100
        await all_is_free(server)


@pytest.mark.parametrize("path", ["/v1/listen", TRANSCRIPTIONS])
async def test_a_file_whose_client_has_gone_is_heard_no_further(
    engine: Engine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Stream, "drained", never)  # a long file
    content = bundled_calls()[0].audio.read_bytes()
    with running_server(engine, ServerOptions(max_uploads=1)) as server:
        data = a_form(content) if path == TRANSCRIPTIONS else content
        asking = asyncio.create_task(http.post(server.http + path, data=data))
        await within(lambda: engine.stats().streams == 1, 5.0)
        asking.cancel()
        await all_is_free(server)
        monkeypatch.undo()
        data = a_form(content) if path == TRANSCRIPTIONS else content
        async with http.post(server.http + path, data=data) as response:
            assert response.status == 200, "its place is free"
        await all_is_free(server)


# ---- a device that fails


async def test_a_server_whose_steps_all_fail_says_that_it_is_unwell_until_one_is_heard(
    engine: Engine, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, audio: bytes
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    async def states() -> list[int]:
        return [(await http.get(server.http + path)).status for path in ("/healthz", "/readyz")]

    with running_server(engine) as server:
        monkeypatch.setattr(engine._runner._network, "step", broken)
        for replays in ("true", "false"):
            for _ in range(2):
                async with listening(server, replays=replays) as client:
                    client.writer.write(speech(audio))
                    assert (await told(client))[1] == 1011
        assert await states() == [200, 200]
        content = bundled_calls()[0].audio.read_bytes()
        async with http.post(server.http + "/v1/listen", data=content) as response:
            assert response.status == 500
        assert await states() == [503, 503]
        async with http.get(server.http + "/readyz") as response:
            assert "failed for the last 5 streams" in await response.text()
        monkeypatch.undo()
        async with listening(server) as client:
            client.writer.write(speech(audio) + frame(TEXT, CLOSE_STREAM))
            assert finals_of((await told(client))[0])
        assert await states() == [200, 200]
        await all_is_free(server)


# ---- the end of the server


async def test_a_server_that_ends_delivers_finals_refuses_new_ones_and_is_gone_in_time(
    engine: Engine, audio: bytes, http: aiohttp.ClientSession
) -> None:
    with running_server(engine, ServerOptions(drain_s=3.0)) as server:
        async with (
            raw_socket(server.port) as late,
            raw_socket(server.port) as asker,
            listening(server, vad_events="true") as speaker,
            listening(server) as silent,
        ):
            ready = {"Host": "localhost"}
            asker.request("GET /readyz", ready)
            assert (await asker.head())[0] == 200
            await asker.reader.readexactly(5)
            speaker.writer.write(frame(BINARY, audio))
            (spoken_to,) = (c for c in server.service.connections if c._options.vad_events)
            await within(lambda: spoken_to._audio_s > 11.0, 5.0)
            finish = spoken_to._stream.finish

            async def slowly(*, deadline_s: float = 60.0) -> Transcript:
                await asyncio.sleep(0.6)  # draining takes its time
                return await finish(deadline_s=deadline_s)

            spoken_to._stream.finish = slowly  # type: ignore[method-assign]
            began = time.monotonic()
            server.server.should_exit = True
            await within(lambda: server.service.draining, 1.0)
            late.upgrade(QUERY)
            status, head = await late.head()
            assert status == 503
            assert f"retry-after: {RETRY_AFTER_S}" in head
            asker.request("GET /readyz", ready)
            assert (await asker.head())[0] == 503
            with pytest.raises(aiohttp.ClientConnectionError):
                await http.get(server.http + "/healthz")
            texts, code = await told(speaker)
            assert (code, texts[-1]["type"]) == (1012, "Metadata")
            assert texts[-1]["duration"] == pytest.approx(12.0)
            assert len(finals_of(texts).split()) > 10
            texts, code = await told(silent)
            assert (code, texts[-1]["type"]) == (1012, "Metadata")
            await within(lambda: not server.server.server_state.connections, 3.0)
            assert time.monotonic() - began < 3.0
    assert engine.stats().streams == 0


async def test_a_server_that_ends_waits_for_nobody_longer_than_it_may(
    engine: Engine, audio: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_S", 0.5)
    with running_server(engine, ServerOptions(drain_s=1.0, send_s=30.0)) as server:
        small_send_buffer(server)
        async with listening(server, deaf=True, interim_results="true", latency_ms="80") as client:
            client.writer.write(4 * frame(BINARY, audio))
            await within(lambda: the_other(server)._audio_s > 47.0, 10.0)
            began = time.monotonic()
            server.server.should_exit = True
            await within(lambda: not server.service.connections, 6.0)
            assert 0.9 < time.monotonic() - began < 2.0
    assert engine.stats().streams == 0
