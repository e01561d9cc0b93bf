"""How many callers does one server hold, and what does the socket cost?

    python -m benchmarks.server_clients --clients 1,10,25,50 --seconds 60

Clients of one process stream bundled calls in real time, in packets of 20 ms, to `nemotron-voice
serve` on the same machine, and flush in each pause of 0.4 s. A trial holds when the 95th percentile
from flush to final is under 100 ms and the harness itself sent its packets in time. The same trial
on an Engine in this process says what the socket costs. Writes docs/results/server_clients.json.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import platform
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from numpy.typing import NDArray

from benchmarks.percentiles import cell, percentiles_ms
from benchmarks.remote_faults import PACKET, RATE, pcm16, serving
from nemotron_voice import Engine, RemoteEngine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.config import all_but_one
from nemotron_voice.recognizer import Recognizer

BAR_MS = 100.0
LATE_S = 0.1  # a packet sent later than that is the harness' fault


@dataclass(slots=True)
class Trial:
    """What the clients saw."""

    finals_s: list[float] = field(default_factory=list)
    packets: int = 0
    late: int = 0
    failures: int = 0
    words: int = 0


def pauses(samples: NDArray[np.float32]) -> list[int]:
    """Where 0.4 s of quiet end, in samples."""
    blocks = np.abs(samples[: samples.size // 1600 * 1600]).reshape(-1, 1600).mean(axis=1)
    quiet = blocks < 0.002
    return [1600 * i for i in range(5, quiet.size) if quiet[i - 4 : i].all() and not quiet[i - 5]]


@functools.cache
def _recordings() -> list[tuple[bytes, set[int]]]:
    """The audio of the calls and the packets before which they are flushed."""
    samples = [read_samples(call.audio) for call in bundled_calls()]
    return [(pcm16(one), {at // PACKET for at in pauses(one)}) for one in samples]


async def client(
    recognizer: Recognizer, number: int, seconds: float, latency_ms: int, trial: Trial
) -> None:
    """One caller, who begins again when the recording ends."""
    recordings = _recordings()
    pcm, due = recordings[number % len(recordings)]
    packets = len(pcm) // (2 * PACKET)
    try:
        stream = recognizer.open(language="auto", latency_ms=latency_ms)
    except Exception:
        trial.failures += 1
        raise

    async def read() -> None:
        words = [len(t.words) async for t in stream if t.is_final]
        trial.words += sum(words)

    async def flush() -> None:
        began = time.monotonic()
        await stream.flush()
        trial.finals_s.append(time.monotonic() - began)

    reader = asyncio.create_task(read())
    flushes: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    for count in range(int(seconds * RATE / PACKET)):
        place = (count + 37 * number) % packets
        if place in due:
            task = asyncio.create_task(flush())
            flushes.add(task)
            task.add_done_callback(flushes.discard)
        stream.push(pcm[2 * PACKET * place : 2 * PACKET * (place + 1)])
        trial.packets += 1
        wait_s = began + (count + 1) * PACKET / RATE - time.monotonic()
        trial.late += wait_s < -LATE_S
        await asyncio.sleep(max(0.0, wait_s))
    await asyncio.gather(*flushes)
    await stream.finish()
    await reader


async def run_trial(
    recognizer: Recognizer, clients: int, seconds: float, latency_ms: int
) -> dict[str, Any]:
    """All clients, their beginnings spread over a second and a half."""
    trial = Trial()
    _recordings()  # decoded before the clock runs

    async def late_client(number: int) -> None:
        await asyncio.sleep(1.5 * number / clients)
        await client(recognizer, number, seconds, latency_ms, trial)

    busy = psutil.cpu_times_percent(None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    await asyncio.gather(*(late_client(number) for number in range(clients)))
    lasted_s = time.monotonic() - began
    busy = psutil.cpu_times_percent(None)
    after = resource.getrusage(resource.RUSAGE_SELF)
    own_s = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    final_ms = percentiles_ms(trial.finals_s)
    return {
        "clients": clients,
        "finals": len(trial.finals_s),
        "final_ms": final_ms,
        "packets": trial.packets,
        "packets_late": trial.late,
        "words": trial.words,
        "this_process_cores": round(own_s / lasted_s, 2),
        "machine_busy_percent": round(100 - busy.idle, 1),
        "holds": final_ms["p95"] < BAR_MS and trial.late <= 0.001 * trial.packets,
    }


async def measure(counts: list[int], seconds: float, latency_ms: int, port: int) -> dict[str, Any]:
    """Over the socket, then in this process."""
    socket, here = [], []
    for count in counts:
        async with serving(port, max_streams=max(64, count)) as server:
            with RemoteEngine(f"ws://127.0.0.1:{port}") as remote:
                process = psutil.Process(server.pid)
                before = process.cpu_times()
                figures = await run_trial(remote, count, seconds, latency_ms)
                after = process.cpu_times()
                server_s = after.user + after.system - before.user - before.system
                figures["server_cores"] = round(server_s / seconds, 2)
                socket.append(figures)
                typer.echo(f"socket      {figures}")
    for count in counts:
        threads = all_but_one()  # as the server has
        with Engine.load("demo", max_streams=max(64, count), threads=threads) as engine:
            here.append(await run_trial(engine, count, seconds, latency_ms))
            typer.echo(f"in process  {here[-1]}")
    return {
        "latency_ms": latency_ms,
        "seconds": seconds,
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "socket": socket,
        "in_process": here,
    }


def table(figures: dict[str, Any]) -> str:
    """In Markdown."""
    rows = [
        "| clients | final, p50 / p95 / p99 | server, clients: cores | in process | p95 < 100 ms |",
        "|---|---|---|---|---|",
    ]
    for socket, here in zip(figures["socket"], figures["in_process"], strict=True):
        rows.append(
            f"| {socket['clients']} | {cell(socket['final_ms'])} | {socket['server_cores']}, "
            f"{socket['this_process_cores']} | {cell(here['final_ms'])} | "
            f"{'yes' if socket['holds'] else 'no'} |"
        )
    return "\n".join(rows)


def main(
    clients: Annotated[str, typer.Option(help="Numbers of clients, each a trial")] = "1,10,25,50",
    seconds: Annotated[float, typer.Option(help="Of each trial")] = 60.0,
    latency_ms: Annotated[int, typer.Option(help="Mode of all streams")] = 320,
    port: Annotated[int, typer.Option(help="Of the server")] = 18_210,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/server_clients.json"
    ),
) -> None:
    """Measure and print the table."""
    logging.getLogger("nemotron_voice").setLevel(logging.ERROR)
    counts = [int(count) for count in clients.split(",")]
    figures = asyncio.run(measure(counts, seconds, latency_ms, port))
    results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(figures))


if __name__ == "__main__":
    typer.run(main)
