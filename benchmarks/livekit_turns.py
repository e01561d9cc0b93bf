"""How soon a LiveKit session has the final, and the turn, after the caller stops.

    python -m benchmarks.livekit_turns --rounds 3

Plays the bundled calls in real time through real AgentSessions without a server (Silero as bundled,
0.25 s of silence), for each `turn_detection` and for the default detector. Counted from the end of
speech that the session's detector reports (`user_state_changed`): the final
(`user_input_transcribed`), and the turn's commit (the user's message in the conversation). In
`manual` the turn is committed by the benchmark at that moment. Writes
docs/results/livekit_turns.json.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.livekit_bot import RecordedCaller, SessionLog, talking
from benchmarks.percentiles import cell, percentiles_ms
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.livekit import STT

MODES = ("vad", "stt", "manual", "default")
LATENCY_MS = 160
RATE = 16_000
AT_ONCE = 2


async def one_call(engine: Engine, number: int, mode: str) -> SessionLog:
    """A call of a bundled recording, and what the session told."""
    call = bundled_calls()[number % len(bundled_calls())]
    samples = read_samples(call.audio)
    caller = RecordedCaller(np.concatenate([samples, np.zeros(3 * RATE, np.float32)]))
    options: dict[str, Any] = {} if mode == "default" else {"turn_detection": mode}
    ears = STT(engine=engine, latency_ms=LATENCY_MS)
    async with talking(caller, stt=ears, **options) as (session, log):
        if mode == "manual":

            def commit(event: Any) -> None:
                if event.old_state == "speaking":
                    session.commit_user_turn()

            session.on("user_state_changed", commit)
        await caller.ended.wait()
        await asyncio.sleep(1.0)
    return log


def waits(log: SessionLog) -> tuple[list[float], list[float], int]:
    """Seconds from each end of speech to final and commit; ends without either.

    A pause inside a sentence is an end of speech too: only what comes before the next one counts.
    """
    to_final, to_commit, neither = [], [], 0
    for place, end in enumerate(log.vad_ends):
        until = log.vad_ends[place + 1] if place + 1 < len(log.vad_ends) else float("inf")
        final = [at for at, _ in log.finals if end <= at < until]
        commit = [at for at, text in log.committed if text and end <= at < until]
        to_final += [final[0] - end] if final else []
        to_commit += [commit[0] - end] if commit else []
        neither += not final and not commit
    return to_final, to_commit, neither


async def measure(engine: Engine, mode: str, rounds: int) -> dict[str, Any]:
    """Figures of one mode."""
    to_final: list[float] = []
    to_commit: list[float] = []
    ends = neither = open_words = 0
    numbers = list(range(rounds * len(bundled_calls())))
    for first in range(0, len(numbers), AT_ONCE):
        logs = await asyncio.gather(
            *(one_call(engine, number, mode) for number in numbers[first : first + AT_ONCE])
        )
        for log in logs:
            finals, commits, nothing = waits(log)
            to_final += finals
            to_commit += commits
            ends += len(log.vad_ends)
            neither += nothing
            said = " ".join(event.transcript for _, event in log.finals).split()
            kept = " ".join(text for _, text in log.committed if text).split()
            open_words += abs(len(said) - len(kept))
    return {
        "ends_of_speech": ends,
        "finals": len(to_final),
        "commits": len(to_commit),
        "without_words": neither,
        "words_in_no_turn": open_words,
        "end_to_final_ms": percentiles_ms(to_final),
        "end_to_commit_ms": percentiles_ms(to_commit),
    }


def table(results: dict[str, Any]) -> str:
    """In Markdown."""
    lines = [
        (
            "| turn_detection | ends of speech | finals | words left in no turn "
            "| end to final p50 / p95 / p99 | end to turn committed p50 / p95 / p99 |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for mode, row in results.items():
        cells = [cell(row[name]) for name in ("end_to_final_ms", "end_to_commit_ms")]
        lines.append(
            f"| {mode} | {row['ends_of_speech']} | {row['finals']} | {row['words_in_no_turn']} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def main(
    rounds: Annotated[int, typer.Option(help="Times all bundled calls, in each mode")] = 2,
    mode: Annotated[list[str] | None, typer.Option(help="vad, stt, manual, default")] = None,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/livekit_turns.json"
    ),
) -> None:
    """Measure and print the table."""
    logging.getLogger("livekit").setLevel(logging.ERROR)
    figures: dict[str, Any] = {}
    with Engine.load("demo", threads=1) as engine:
        for each in mode or MODES:
            figures[each] = asyncio.run(measure(engine, each, rounds))
            results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            typer.echo(f"{each}: {figures[each]}", err=True)
    typer.echo(table(figures))


if __name__ == "__main__":
    typer.run(main)
