"""Replicas on a Ray of this machine: calls spread over them, outlive one, and are drained."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest

pytest.importorskip("ray")

from ray import serve

from benchmarks.ray_calls import Plan, call, counted, expected, replicas, talk
from nemotron_voice import Engine, RemoteEngine
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.cluster import failures, serving
from nemotron_voice.cluster.serving import ClusterOptions, build
from nemotron_voice.config import EngineOptions
from nemotron_voice.errors import (
    ConfigurationError,
    EngineError,
    EngineFullError,
    ModelNotFoundError,
    ServerRefusedError,
    StepFailedError,
)
from nemotron_voice.server import ServerOptions
from tests.running_server import free_port

pytestmark = pytest.mark.cluster

CALLS = 20
KEY = "the right key"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Two replicas at /."""
    port = free_port()
    with replicas(2, port):
        yield port


@pytest.fixture(scope="module")
def small_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"{KEY}\n")
    options = {"model": "demo", "threads": "1", "num_cpus": "0.2", "max_streams": "1"}
    return {**options, "api_key_file": str(keys), "drain_s": "5"}


@pytest.fixture(scope="module")
def small(port: int, small_options: dict[str, str]) -> Iterator[str]:
    """A replica with one slot and a key at /small of the same proxy."""
    serve.run(build(small_options), name="small", route_prefix="/small")
    yield f"ws://127.0.0.1:{port}/small"
    serve.delete("small")


async def test_twenty_calls_on_two_replicas_outlive_one_that_is_killed(port: int) -> None:
    plans = [Plan.of(number) for number in range(CALLS)]
    texts = await expected(plans)
    figures = await talk(plans, port=port, speed=1.5, kill_after_s=4.0)
    before, after = figures["streams_of_replicas_before"], figures["streams_of_replicas_after"]
    assert len(before) == 2
    assert sum(before.values()) == CALLS
    assert min(before.values()) >= CALLS // 4, "Ray spreads calls by how many each replica has"
    assert figures["calls_running_at_the_kill"] == CALLS
    assert figures["reconnects"] == figures["streams_of_the_killed"]
    assert sum(after.values()) == CALLS, "the other replica has taken them"
    assert figures["killed"] not in after
    assert figures["heard"] == texts


async def test_a_file_passes_the_proxy_in_both_forms(port: int) -> None:
    audio = bundled_calls()[0].audio.read_bytes()
    form = aiohttp.FormData()
    form.add_field("file", audio, filename="call.ogg")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.post("/v1/audio/transcriptions", data=form) as answer:
            text = (await answer.json())["text"]
        async with session.post("/v1/listen", data=audio) as answer:
            channel = (await answer.json())["results"]["channels"][0]
    assert text.startswith("Good evening")
    assert channel["alternatives"][0]["transcript"] == text


async def test_a_refusal_passes_the_proxy_with_its_reason(small: str) -> None:
    with pytest.raises(ServerRefusedError, match="API key"):
        await asyncio.to_thread(RemoteEngine, small, api_key="wrong")
    remote = await asyncio.to_thread(RemoteEngine, small, api_key=KEY)
    with remote:
        first = remote.open()
        await first.flush()
        with pytest.raises(EngineFullError, match="slot"):
            await remote.open().flush()
        await first.finish()


async def test_a_call_goes_on_while_its_replica_is_replaced_by_one_with_other_options(
    small: str, small_options: dict[str, str]
) -> None:
    plan = Plan.of(1)
    text = (await expected([plan]))[0]
    with await asyncio.to_thread(RemoteEngine, small, api_key=KEY) as remote:
        async with counted() as reconnects:
            talking = asyncio.create_task(call(remote, plan, speed=1.0))
            await asyncio.sleep(2.0)
            app = build(small_options | {"idle_s": "20"})
            deploy = partial(serve.run, app, name="small", route_prefix="/small")
            await asyncio.to_thread(deploy)
            heard = await talking
    assert reconnects.count >= 1
    assert heard == text


async def test_a_stopped_replica_takes_nobody_new_and_delivers_what_was_said(small: str) -> None:
    plan = Plan.of(0)
    query = "/v1/listen?encoding=linear16&sample_rate=16000&language=multi"
    async with aiohttp.ClientSession(headers={"authorization": f"Token {KEY}"}) as session:
        socket = await session.ws_connect(small + query)
        await socket.send_bytes(plan.samples[:48_000].tobytes())
        await asyncio.sleep(1.0)
        began = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(serve.delete, "small"))
        said = [json.loads(message.data) async for message in socket]
        await stopping
    finals = [
        one["channel"]["alternatives"][0]["transcript"] for one in said if one.get("is_final")
    ]
    assert "Good evening" in " ".join(finals)
    assert said[-1]["type"] == "Metadata"
    assert socket.close_code == 1012
    assert time.monotonic() - began < 5, "a connected client holds the replica until its drain ends"


def test_streams_that_wait_without_a_step_make_a_replica_unwell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = SimpleNamespace(replica_tag="one")
    monkeypatch.setattr(serving.serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(serving, "STUCK_S", 0.05)
    app = serving.ReplicaApp(ClusterOptions(model="demo"))
    waiting = SimpleNamespace(steps=7, waiting=3)
    monkeypatch.setattr(Engine, "stats", lambda _: waiting)
    app.check_health()
    time.sleep(0.1)
    with pytest.raises(EngineError, match="3 streams wait"):
        app.check_health()
    waiting.steps = 8
    app.check_health()
    waiting.waiting = 0
    time.sleep(0.1)
    app.check_health()


def test_streams_that_all_fail_at_their_step_make_a_replica_unwell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = SimpleNamespace(replica_tag="one")
    monkeypatch.setattr(serving.serve, "get_replica_context", lambda: context)
    app = serving.ReplicaApp(ClusterOptions(model="demo"))
    for _ in range(5):
        app.check_health()
        app._service.model_health.ended(StepFailedError("CUDA error"))
    with pytest.raises(EngineError, match="the last 5 streams"):
        app.check_health()
    app._service.model_health.heard()
    app.check_health()


async def test_a_ray_without_the_sign_is_told_in_the_log_and_served_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    context = SimpleNamespace(replica_tag="one")
    monkeypatch.setattr(serving.serve, "get_replica_context", lambda: context)
    app = serving.ReplicaApp(ClusterOptions(model="demo"))
    sent: list[str] = []
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> dict[str, str]:
        await asyncio.sleep(0.05)
        return events.pop(0)

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    with caplog.at_level(logging.WARNING):  # this process is no replica
        await app({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert "graceful_shutdown_timeout_s" in caplog.text


def test_arguments_may_be_text_as_a_command_line_has_them() -> None:
    options = ClusterOptions.from_args(
        {"model": "demo", "max_streams": "16", "threads": "2", "offline": "true", "load": "0.5"}
        | {"drain_s": "3.5", "min_replicas": "2", "allowed_origins": ["https://example.org"]}
    )
    assert options.engine == EngineOptions(max_streams=16, threads=2)
    assert options.server == ServerOptions(drain_s=3.5, allowed_origins=("https://example.org",))
    assert (options.model, options.offline, options.load) == ("demo", True, 0.5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"streams": 8}, "streams is no argument; there are .*max_streams"),
        ({"max_streams": "many"}, "max_streams: .*not 'many'"),
        ({"min_replicas": 0}, "min_replicas=0"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas=2 is less"),
        ({"load": 1.5}, "load=1.5"),
        ({"api_keys": ["secret"]}, "api_key_file"),
        ({"device": "tpu"}, "device='tpu'"),
    ],
)
def test_wrong_arguments_are_refused_with_a_remedy(args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(args)


def test_limits_follow_the_slots() -> None:
    app = build({"max_streams": 40, "load": 0.5, "max_replicas": 3, "drain_s": 20, "threads": 4})
    deployment = app._bound_deployment
    assert deployment.max_ongoing_requests == 48
    config = deployment._deployment_config
    assert config.graceful_shutdown_timeout_s == 25
    assert config.autoscaling_config.target_ongoing_requests == 20
    assert config.autoscaling_config.max_replicas == 3
    assert deployment.ray_actor_options["num_cpus"] == 4
    assert deployment.ray_actor_options["num_gpus"] == 0
    assert build({"device": "cuda"})._bound_deployment.ray_actor_options["num_gpus"] == 1


def test_what_an_actor_raised_is_raised_here() -> None:
    trace = "Traceback ...\nnemotron_voice.errors.ModelNotFoundError: there is no model 'x'\n"
    told = failures.failure(trace, "no replica could start")
    assert isinstance(told, ModelNotFoundError)
    assert str(told) == "there is no model 'x'"
    assert "no replica could start: killed" in str(
        failures.failure("killed\n", "no replica could start")
    )


def test_without_ray_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    from typer.testing import CliRunner

    from nemotron_voice.cli import app

    monkeypatch.setitem(sys.modules, "ray", None)
    for module in ("bulk", "serving"):
        monkeypatch.delitem(sys.modules, f"nemotron_voice.cluster.{module}", raising=False)
    monkeypatch.delitem(sys.modules, "nemotron_voice.cli.cluster", raising=False)
    for command in (["serve", "--ray"], ["transcribe", "--ray", str(tmp_path / "m.txt")]):
        said = CliRunner().invoke(app, command)
        assert said.exit_code == 2
        assert "pip install 'nemotron-voice[cluster]'" in said.stderr
