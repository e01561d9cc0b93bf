"""Calls on a cluster of replicas, one of which is killed in mid-call: is every word told once?

    python -m benchmarks.ray_calls --calls 20 --replicas 2

Ray Serve runs replicas of the server on this machine; calls stream to them at once through Ray's
HTTP proxy, by one RemoteEngine. The process of one replica is killed (SIGKILL) while all calls
talk. Each call's joined finals must equal those of an Engine in this process with the same
flushes. Writes docs/results/ray_calls.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import platform
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import numpy as np
import ray
import typer
from numpy.typing import NDArray
from ray import serve

from nemotron_voice import Engine, RemoteEngine, join_texts
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.cluster.serving import APPLICATION, DEPLOYMENT, REPLICA_HEADER, build
from nemotron_voice.recognizer import Recognizer

RATE = 16_000
BLOCK = RATE // 5
FLUSHES = 3
FLUSH_S = 20.0  # a flush that falls into the break is answered after the replay
APART_S = 0.1  # between two calls' beginnings; of calls in one instant Ray spreads less evenly
SETTLE_S = 1.5  # after the kill, until the other replica is looked at
LOOKS = 40  # requests at once: Ray spreads them over the replicas, so each of them is seen


@dataclass(frozen=True, slots=True)
class Plan:
    """A call's audio as a socket carries it, and at which samples it is flushed."""

    samples: NDArray[np.int16]
    flushes: tuple[int, ...]

    @classmethod
    def of(cls, number: int) -> Plan:
        """The same for the same number."""
        rng = random.Random(number)
        calls = bundled_calls()
        heard = read_samples(calls[number % len(calls)].audio)
        samples = np.rint(np.clip(32768 * heard, -32768, 32767)).astype(np.int16)
        flushes = sorted(rng.randrange(RATE, len(samples)) for _ in range(FLUSHES))
        return cls(samples, tuple(flushes))


async def call(recognizer: Recognizer, plan: Plan, *, speed: float | None) -> str:
    """The finals joined; `speed` times as fast as speech, or as fast as it goes."""
    stream = recognizer.open(language="auto", latency_ms=320)
    finals = []

    async def read() -> None:
        finals.extend([transcript async for transcript in stream if transcript.is_final])

    reader = asyncio.create_task(read())
    began = time.monotonic()
    cuts = sorted({*range(BLOCK, len(plan.samples), BLOCK), *plan.flushes, len(plan.samples)})
    at = 0
    for cut in cuts:
        stream.push(plan.samples[at:cut])
        at = cut
        if cut in plan.flushes:
            await stream.flush(deadline_s=FLUSH_S)
        if speed is None:
            await stream.drained(2.0)
        else:
            await asyncio.sleep(began + at / RATE / speed - time.monotonic())
    await stream.finish(deadline_s=120.0)
    await reader
    return join_texts(finals)


async def expected(plans: Sequence[Plan]) -> list[str]:
    """Without a network and without faults, in this process."""
    with Engine.load("demo", threads=1) as engine:
        return [await call(engine, plan, speed=None) for plan in plans]


@contextlib.contextmanager
def replicas(count: int, port: int) -> Iterator[None]:
    """So many replicas of the server, on a Ray of their own."""
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        options = {"model": "demo", "device": "cpu", "threads": 1, "num_cpus": 1 / count}
        serve.run(build({**options, "min_replicas": count}), name=APPLICATION, route_prefix="/")
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


async def streams_of_replicas(port: int) -> dict[str, int]:
    """How many streams each replica holds now, by what it says itself."""
    async with aiohttp.ClientSession() as session:

        async def look() -> tuple[str, int]:
            async with session.get(f"http://127.0.0.1:{port}/v1/engine") as answer:
                if answer.status != 200:  # asked of a replica that has just died
                    return "", 0
                return answer.headers[REPLICA_HEADER], (await answer.json())["streams"]

        seen = dict(await asyncio.gather(*(look() for _ in range(LOOKS))))
    return {replica: streams for replica, streams in seen.items() if replica}


def kill(replica: str) -> int:
    """End a replica's process; returns which it was."""
    name = f"SERVE_REPLICA::{APPLICATION}#{DEPLOYMENT}#{replica}"
    actor = ray.get_actor(name, namespace="serve")
    pid: int = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    return pid


class Reconnects(logging.Handler):
    """Counts what a RemoteEngine says about lost connections."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """One more."""
        self.count += record.getMessage().startswith("connection lost")


@contextlib.asynccontextmanager
async def counted() -> AsyncIterator[Reconnects]:
    """A count of reconnects within the block."""
    logger, counter = logging.getLogger("nemotron_voice.remote.connection"), Reconnects()
    logger.addHandler(counter)
    logger.propagate = False
    try:
        yield counter
    finally:
        logger.removeHandler(counter)
        logger.propagate = True


async def talk(
    plans: Sequence[Plan], *, port: int, speed: float, kill_after_s: float
) -> dict[str, Any]:
    """All calls at once; one replica is killed after a while."""
    remote = await asyncio.to_thread(RemoteEngine, f"ws://127.0.0.1:{port}")
    with remote:
        async with counted() as reconnects:
            calls = []
            for plan in plans:
                calls.append(asyncio.create_task(call(remote, plan, speed=speed)))
                await asyncio.sleep(APART_S)
            await asyncio.sleep(kill_after_s)
            before = await streams_of_replicas(port)
            victim = max(before, key=before.__getitem__)
            await asyncio.to_thread(kill, victim)
            killed_at = time.monotonic()
            running = sum(not one.done() for one in calls)
            await asyncio.sleep(SETTLE_S)
            after = await streams_of_replicas(port)
            heard = await asyncio.gather(*calls)
            ended_s = time.monotonic() - killed_at
    return {
        "calls_running_at_the_kill": running,
        "streams_of_replicas_before": before,
        "killed": victim,
        "streams_of_the_killed": before[victim],
        "streams_of_replicas_after": after,
        "reconnects": reconnects.count,
        "calls_ended_after_s": round(ended_s, 1),
        "heard": heard,
    }


def measure(calls: int, count: int, port: int, speed: float) -> dict[str, Any]:
    """The reference, then the cluster."""
    plans = [Plan.of(number) for number in range(calls)]
    texts = asyncio.run(expected(plans))
    with replicas(count, port):
        figures = asyncio.run(talk(plans, port=port, speed=speed, kill_after_s=4.0))
    heard = figures.pop("heard")
    pairs = list(zip(texts, heard, strict=True))
    return {
        "calls": calls,
        "replicas": count,
        "speed": speed,
        **figures,
        "equal": sum(one == other for one, other in pairs),
        "different": [pair for pair in pairs if pair[0] != pair[1]],
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "ray": ray.__version__,
    }


def summary(figures: dict[str, Any]) -> str:
    """In a sentence or two."""
    spread = " and ".join(map(str, figures["streams_of_replicas_before"].values()))
    return (
        f"{figures['calls']} calls at once, {spread} on {figures['replicas']} replicas; one with "
        f"{figures['streams_of_the_killed']} calls was killed: {figures['reconnects']} streams "
        f"connected again, and {figures['equal']} calls have the finals that they have without it."
    )


def main(
    calls: Annotated[int, typer.Option(help="At once")] = 20,
    count: Annotated[int, typer.Option("--replicas", help="At the start")] = 2,
    port: Annotated[int, typer.Option(help="Of Ray's HTTP proxy")] = 18_120,
    speed: Annotated[float, typer.Option(help="Times as fast as speech")] = 1.5,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/ray_calls.json"
    ),
) -> None:
    """Measure and print."""
    figures = measure(calls, count, port, speed)
    results.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(summary(figures))


if __name__ == "__main__":
    typer.run(main)
