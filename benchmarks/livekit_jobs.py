"""Many LiveKit jobs on one machine: a copy of the model in each, or one engine for all?

    python -m benchmarks.livekit_jobs --jobs 4

Starts a real AgentServer (unregistered, so without a LiveKit server) once with jobs as processes
and once with jobs as threads, lets so many jobs transcribe a bundled call at once through one
module-level STT, and tells how many engines were loaded, the memory of all job processes together
(PSS, so shared pages count once), and the time from a job's start to its first words. Writes
docs/results/livekit_jobs.json.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobExecutorType, JobProcess

from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.livekit import STT

RATE = 16_000
NOTES = "NEMOTRON_JOBS_NOTES"  # the file that jobs write to
EXECUTOR = "NEMOTRON_JOBS_EXECUTOR"
RUN_S = 12.0

ears = STT(model="demo", latency_ms=160)


def prewarm(_: JobProcess) -> None:
    """Load ahead of the job."""
    ears.prewarm()


server = AgentServer(
    setup_fnc=prewarm,
    num_idle_processes=0,
    port=0,
    host="127.0.0.1",
    job_executor_type=JobExecutorType(os.environ.get(EXECUTOR, "thread")),
)


@server.rtc_session()
async def job(ctx: JobContext) -> None:
    """Transcribes six seconds of a call in real time."""
    began = time.monotonic()
    first: float | None = None
    call = bundled_calls()[0]
    samples = read_samples(call.audio)[: 6 * RATE]
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    stream = ears.stream()

    async def push() -> None:
        for at in range(0, pcm.size, RATE // 20):
            piece = pcm[at : at + RATE // 20]
            stream.push_frame(rtc.AudioFrame(piece.tobytes(), RATE, 1, piece.size))
            await asyncio.sleep(0.05)
        stream.end_input()

    pushing = asyncio.create_task(push())
    words = ""
    async for event in stream:
        if event.alternatives and event.alternatives[0].text:
            first = first or time.monotonic()
            if event.type.value == "final_transcript":
                words += event.alternatives[0].text + " "
    await pushing
    note = {
        "pid": os.getpid(),
        "engine": id(await ears.engine()),
        "first_words_s": round((first or time.monotonic()) - began, 2),
        "words": words.strip(),
        "pss_mb": _pss_mb(),
    }
    with Path(os.environ[NOTES]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(note) + "\n")
    await asyncio.sleep(RUN_S / 4)
    ctx.shutdown()


def _pss_mb() -> float:
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no Pss in /proc/self/smaps_rollup")


async def serve(jobs: int) -> None:
    """Run the server until the jobs are done."""
    started = asyncio.Event()
    server.once("worker_started", started.set)
    running = asyncio.create_task(server.run(devmode=True, unregistered=True))
    await asyncio.wait_for(started.wait(), 60)
    for number in range(jobs):
        await server.simulate_job(f"room{number}", fake_job=True)
    notes = Path(os.environ[NOTES])
    async with asyncio.timeout(180):
        while len(notes.read_text(encoding="utf-8").splitlines()) < jobs:
            await asyncio.sleep(0.2)
    await server.aclose()
    running.cancel()


def measure(executor: str, jobs: int) -> dict[str, Any]:
    """In a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes.jsonl"
        notes.touch()
        subprocess.run(
            [sys.executable, "-m", "benchmarks.livekit_jobs", "--serve", "--jobs", str(jobs)],
            check=True,
            env=os.environ | {NOTES: str(notes), EXECUTOR: executor},
            timeout=300,
        )
        rows = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    by_process = {row["pid"]: row["pss_mb"] for row in rows}
    return {
        "jobs": jobs,
        "processes": len(by_process),
        "engines": len({(row["pid"], row["engine"]) for row in rows}),
        "memory_mb": round(sum(by_process.values())),
        "first_words_s": round(statistics.median(row["first_words_s"] for row in rows), 2),
        "transcripts": len({row["words"] for row in rows}),
    }


def table(results: dict[str, Any]) -> str:
    """In Markdown."""
    lines = [
        "| jobs as | jobs | engines loaded | memory of all jobs | first words after |",
        "|---|---|---|---|---|",
    ]
    for executor, row in results.items():
        lines.append(
            f"| {executor} | {row['jobs']} | {row['engines']} | {row['memory_mb']} MB "
            f"| {row['first_words_s']} s |"
        )
    return "\n".join(lines)


def main(
    jobs: Annotated[int, typer.Option(help="At once")] = 4,
    serve_: Annotated[bool, typer.Option("--serve", hidden=True)] = False,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/livekit_jobs.json"
    ),
) -> None:
    """Measure and print the table."""
    logging.getLogger("livekit").setLevel(logging.ERROR)
    if serve_:
        asyncio.run(serve(jobs))
        return
    figures = {executor: measure(executor, jobs) for executor in ("process", "thread")}
    results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(figures))


if __name__ == "__main__":
    typer.run(main)
