"""Calls over a bad network, and over a server that is killed: is every word told once?

    python -m benchmarks.remote_faults --calls 200 --kills 3

Bundled calls are streamed by a RemoteEngine to `nemotron-voice serve` through a proxy that cuts,
stalls, truncates and refuses connections at random; then, without the proxy, the server is killed
(SIGKILL) and started again in mid-call. Each call is flushed at random instants. Its joined finals
must equal those of an Engine in this process with the same flushes. Writes
docs/results/remote_faults.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.chaos_proxy import ChaosProxy, Faults
from nemotron_voice import Engine, RemoteEngine, join_texts
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.recognizer import Recognizer

RATE = 16_000
PACKET = RATE // 50
FLUSHES = 4
FLUSH_S = 5.0


def pcm16(samples: NDArray[np.float32]) -> bytes:
    """As a transport sends it."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


async def call(
    recognizer: Recognizer, pcm: bytes, flushes: Sequence[int], *, speed: float | None
) -> tuple[str, float]:
    """The finals joined, and the longest wait for a flush; `speed` times as fast as speech."""
    stream = recognizer.open(language="auto", latency_ms=320)
    finals = []
    waits: list[float] = []

    async def read() -> None:
        finals.extend([transcript async for transcript in stream if transcript.is_final])

    async def flush() -> None:
        began = time.monotonic()
        await stream.flush(deadline_s=FLUSH_S)
        waits.append(time.monotonic() - began)

    reader = asyncio.create_task(read())
    tasks = []
    began = time.monotonic()
    due = sorted(flushes)
    for at in range(0, len(pcm), 2 * PACKET):
        while due and at >= 2 * due[0]:
            due.pop(0)
            tasks.append(asyncio.create_task(flush()))
            await asyncio.sleep(0)
        stream.push(pcm[at : at + 2 * PACKET])
        if speed is None:
            await stream.drained(2.0)
        else:
            await asyncio.sleep(began + at / 2 / RATE / speed - time.monotonic())
    await asyncio.gather(*tasks)
    await stream.finish(deadline_s=120.0)
    await reader
    return join_texts(finals), max(waits, default=0.0)


def plan(number: int) -> tuple[bytes, list[int]]:
    """The audio and the flushes of a call."""
    rng = random.Random(number)
    calls = bundled_calls()
    pcm = pcm16(read_samples(calls[number % len(calls)].audio))
    return pcm, [rng.randrange(RATE // 2, len(pcm) // 2) for _ in range(FLUSHES)]


async def expected(numbers: Sequence[int]) -> list[str]:
    """Without faults, in this process."""
    with Engine.load("demo") as engine:
        return [(await call(engine, *plan(number), speed=None))[0] for number in numbers]


class ServerProcess:
    """`nemotron-voice serve` on a port of this machine."""

    def __init__(self, port: int, max_streams: int = 64) -> None:
        self.port = port
        self._max_streams = max_streams
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nemotron_voice", "serve", "--model", "demo"),
            *("--port", str(self.port), "--max-streams", str(self._max_streams)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{self.port}/readyz") as response:
                        if response.status == 200:
                            return
                assert self._process.returncode is None, "the server did not start"
                await asyncio.sleep(0.1)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    async def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        assert self._process is not None
        self._process.send_signal(how)
        await self._process.wait()

    async def metric(self, name: str) -> float:
        """One of its metrics."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            found = re.search(rf"^{name} (\S+)", await response.text(), re.MULTILINE)
        assert found, f"no metric {name}"
        return float(found[1])


@contextlib.asynccontextmanager
async def serving(port: int, max_streams: int = 64) -> AsyncIterator[ServerProcess]:
    """A server for as long as the block lasts."""
    server = ServerProcess(port, max_streams)
    await server.start()
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            await server.stop()


async def many(
    recognizer: Recognizer,
    numbers: Sequence[int],
    *,
    speed: float,
    at_once: int,
    done: Callable[[], None],
) -> list[tuple[str, float]]:
    """Several calls at a time."""
    room = asyncio.Semaphore(at_once)

    async def one(number: int) -> tuple[str, float]:
        async with room:
            await asyncio.sleep(random.Random(number).random())
            heard = await call(recognizer, *plan(number), speed=speed)
            done()
            return heard

    return await asyncio.gather(*(one(number) for number in numbers))


async def measure(calls: int, kills: int, port: int, seed: int) -> dict[str, Any]:
    """Both nights."""
    killed_calls = list(range(10)) if kills else []
    numbers = list(range(calls))
    with Progress() as progress:
        task = progress.add_task("calls", total=len(numbers) + len(killed_calls))
        done = lambda: progress.advance(task)  # noqa: E731
        texts = await expected(sorted({*numbers, *killed_calls}))
        async with serving(port) as server:
            async with ChaosProxy(port, seed=seed, faults=Faults()) as proxy:
                url = f"ws://127.0.0.1:{proxy.port}"
                remote = await asyncio.to_thread(_connect, url)
                with remote:
                    heard = await many(remote, numbers, speed=4.0, at_once=8, done=done)
                faults = dict(proxy.counts)
            await asyncio.sleep(2.0)
            slots_left = await server.metric("nemotron_slots_used")
            url = f"ws://127.0.0.1:{port}"
            survived: list[tuple[str, float]] = []
            if killed_calls:
                with RemoteEngine(url, heartbeat_s=1.0) as remote:
                    work = asyncio.create_task(
                        many(remote, killed_calls, speed=1.0, at_once=10, done=done)
                    )
                    for _ in range(kills):
                        await asyncio.sleep(5.0)
                        await server.stop()
                        await server.start()
                    survived = await work
    different = [
        {"call": number, "expected": texts[number], "heard": text}
        for number, (text, _) in [*enumerate(heard), *enumerate(survived)]
        if text != texts[number]
    ]
    return {
        "calls": len(heard),
        "faults": faults,
        "calls_equal": sum(text == texts[n] for n, (text, _) in enumerate(heard)),
        "slots_left": slots_left,
        "server_kills": kills,
        "calls_through_kills": len(survived),
        "calls_through_kills_equal": sum(text == texts[n] for n, (text, _) in enumerate(survived)),
        "different": different,
    }


def _connect(url: str) -> RemoteEngine:
    """Through a proxy that may refuse the first question."""
    for _ in range(20):
        with contextlib.suppress(Exception):
            return RemoteEngine(url, heartbeat_s=1.0)
    raise AssertionError("the proxy lets nothing through")


def summary(figures: dict[str, Any]) -> str:
    """In a sentence or two."""
    faults = ", ".join(f"{count} x {kind}" for kind, count in sorted(figures["faults"].items()))
    return (
        f"{figures['calls']} calls through a bad network ({faults}): {figures['calls_equal']} have "
        f"the finals that they have without it. {figures['calls_through_kills']} calls during "
        f"which the server was killed {figures['server_kills']} times: "
        f"{figures['calls_through_kills_equal']} equal."
    )


def main(
    calls: Annotated[int, typer.Option(help="Through the proxy")] = 200,
    kills: Annotated[int, typer.Option(help="Of the server, during ten more calls")] = 2,
    port: Annotated[int, typer.Option(help="Of the server")] = 18_200,
    seed: Annotated[int, typer.Option(help="Of the proxy's faults")] = 1,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/remote_faults.json"
    ),
) -> None:
    """Measure and print."""
    logging.getLogger("nemotron_voice").setLevel(logging.ERROR)
    figures = asyncio.run(measure(calls, kills, port, seed))
    results.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(summary(figures))


if __name__ == "__main__":
    typer.run(main)
