"""Whether a noise opens a turn after the caller's final: none may.

    python -m benchmarks.pipecat_noise --minutes 10

A caller says a sentence, then there is 20 s of noise, traffic, music, coughs or typing, and so on,
through real pipelines in real time (Silero, this STT, user aggregator with Smart Turn), five at
once. A phantom turn is a user turn, interim or final in the noise while Silero hears no speech;
what Silero itself takes for speech is counted beside it. Writes docs/results/pipecat_noise.json.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from loguru import logger

from benchmarks.pipecat_bot import PACKET, RATE, call
from benchmarks.sounds import SOUNDS
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.pipecat import NemotronSTTService

NOISE_S = 20.0
ANSWER_S = 2.5  # of silence after the sentence: its turn ends
LEVELS_DBFS = (-40.0, -30.0, -24.0)  # RMS; a caller speaks at about -24
AT_ONCE = 5


def sentences() -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """The turns of the bundled calls."""
    found = []
    for each in bundled_calls():
        samples = read_samples(each.audio)
        edges = [((turn.start - 0.2) * RATE, (turn.end + 0.3) * RATE) for turn in each.turns]
        found += [samples[int(begin) : int(end)] for begin, end in edges]
    return found


async def one_call(engine: Engine, number: int, stretches: int) -> list[dict[str, Any]]:
    """What came in each noise of a call: sentence, noise, sentence, noise."""
    rng = np.random.default_rng(number)
    said = sentences()
    names = list(SOUNDS)
    pieces: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    rows: list[dict[str, Any]] = []
    at = 0
    for stretch in range(stretches):
        place = number * stretches + stretch
        name, level = names[place % len(names)], LEVELS_DBFS[place % len(LEVELS_DBFS)]
        sentence = said[place % len(said)]
        sentence = np.concatenate([sentence, np.zeros(int(ANSWER_S * RATE), np.float32)])
        noise = SOUNDS[name](NOISE_S, rng) * np.float32(10 ** (level / 20))
        pieces += [sentence, noise]
        begin = at + sentence.size
        at = begin + noise.size
        rows.append({"sound": name, "dbfs": level, "packets": (begin // PACKET, at // PACKET)})
    sent: list[float] = []
    log = await call(
        NemotronSTTService(engine=engine, settings=NemotronSTTService.Settings(latency_ms=160)),
        np.concatenate(pieces),
        delay_s=0.3 * number,
        on_packet=lambda _: sent.append(time.time()),
    )
    for row in rows:
        first, last = row.pop("packets")
        begin, end = sent[first], sent[min(last, len(sent) - 1)]
        spoken = [
            (start, min((stop for stop in log.stops if stop > start), default=end) + 0.5)
            for start in log.starts
        ]

        def phantom(moment: float, spoken: list[tuple[float, float]] = spoken) -> bool:
            return not any(start <= moment <= stop for start, stop in spoken)

        def within(moment: float, begin: float = begin, end: float = end) -> bool:
            return begin <= moment < end

        row["sentence_answered"] = any(
            at < begin and at > begin - ANSWER_S - 2.0 and frame.finalized
            for at, frame in log.finals
        )
        row["silero_speech"] = sum(map(within, log.starts))
        row["turns"] = sum(map(within, log.turns))
        row["phantom_turns"] = sum(1 for at in log.turns if within(at) and phantom(at))
        row["phantom_interims"] = sum(1 for at, _ in log.interims if within(at) and phantom(at))
        row["phantom_finals"] = [f.text for at, f in log.finals if within(at) and phantom(at)]
        row["finals"] = [f.text for at, f in log.finals if within(at)]
    return rows


async def measure(engine: Engine, minutes: float) -> list[dict[str, Any]]:
    """Every stretch of noise."""
    stretches = max(1, round(minutes * 60 / NOISE_S / AT_ONCE))
    calls = [one_call(engine, number, stretches) for number in range(AT_ONCE)]
    return [row for rows in await asyncio.gather(*calls) for row in rows]


def table(figures: dict[str, Any]) -> str:
    """In Markdown."""
    lines = [
        (
            f"{figures['noise_minutes']:.0f} minutes after {figures['sentence_answered']} finals: "
            f"{figures['phantom_turns']} phantom turns, "
            f"{figures['phantom_interims']} interims, {figures['phantom_finals']} finals."
        ),
        "",
        "| sound | minutes | speech by Silero | turns opened | finals | phantoms of any kind |",
        "|---|---|---|---|---|---|",
    ]
    for name in SOUNDS:
        rows = [row for row in figures["stretches"] if row["sound"] == name]
        phantoms = sum(
            row["phantom_turns"] + row["phantom_interims"] + len(row["phantom_finals"])
            for row in rows
        )
        lines.append(
            f"| {name} | {len(rows) * NOISE_S / 60:.1f} "
            f"| {sum(row['silero_speech'] for row in rows)} | {sum(row['turns'] for row in rows)} "
            f"| {sum(len(row['finals']) for row in rows)} | {phantoms} |"
        )
    return "\n".join(lines)


def main(
    minutes: Annotated[float, typer.Option(help="Of noise in all")] = 10.0,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/pipecat_noise.json"
    ),
) -> None:
    """Measure and print the totals."""
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    with Engine.load("demo", threads=1) as engine:
        rows = asyncio.run(measure(engine, minutes))
    total: Counter[str] = Counter()
    for row in rows:
        for name in (
            "sentence_answered",
            "silero_speech",
            "turns",
            "phantom_turns",
            "phantom_interims",
        ):
            total[name] += row[name]
        total["phantom_finals"] += len(row["phantom_finals"])
    figures = {"noise_minutes": len(rows) * NOISE_S / 60, **total, "stretches": rows}
    results.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo({name: value for name, value in figures.items() if name != "stretches"})


if __name__ == "__main__":
    typer.run(main)
