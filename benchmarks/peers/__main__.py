"""Measure ourselves and the peers; see the package's own page."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from queue import Empty
from typing import Annotated, Any

import typer

from benchmarks.peers.measure import OURS, PEERS, run
from nemotron_voice.bench.machine import describe
from nemotron_voice.cli.memory import keep_memory

CELL = ("peer", "latency_ms", "streams")


def place(row: dict[str, Any]) -> tuple[int, int, int]:
    """Where a cell stands, whenever it was measured: ours first."""
    return [*OURS, *PEERS].index(row["peer"]), row["latency_ms"], row["streams"]


def fastest(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The one that the machine's other guests disturbed least, and all where there are several."""
    best = min(rounds, key=lambda row: row["real_time_factor"])
    return best | {"rounds": rounds} if len(rounds) > 1 else best


def begun(found: dict[str, Any] | None, names: Sequence[str], *, add: bool) -> dict[str, Any]:
    """What is kept of earlier figures; unless they are added to, none of those measured now.

    Raises:
        BadParameter: they are another machine's.
    """
    machine = describe()
    if found is None:
        return {"machine": machine, "rows": []}
    if any(found["machine"][key] != machine[key] for key in ("cpu", "cores", "instructions")):
        raise typer.BadParameter(
            f"its figures are of another machine ({found['machine']['cpu']}), and one table is of "
            "one machine; name another file",
            param_hint="--results",
        )
    rows = [row for row in found["rows"] if add or row["peer"] not in names]
    return {"machine": machine, "rows": rows}


def main(
    weights: Annotated[Path, typer.Option(help="Folder of nemotron_voice.bench.random_model")],
    peer: Annotated[list[str] | None, typer.Option(help=f"Of {[*OURS, *PEERS]}; all")] = None,
    latencies: Annotated[str, typer.Option(help="Modes, ms")] = "80,160,320,560,1120",
    streams: Annotated[str, typer.Option(help="Streams at once")] = "1,2,4,8,16,32",
    budget_s: Annotated[float, typer.Option(help="Seconds a cell, at least 3 steps")] = 4.0,
    results: Annotated[Path, typer.Option(help="Where the figures go; others there stay")] = Path(
        "docs/results/bench_peers.json"
    ),
    add: Annotated[
        bool, typer.Option("--add", help="A round more: a cell is the fastest of its rounds")
    ] = False,
) -> None:
    """Measure and print each cell."""
    names = peer or [*OURS, *PEERS]
    figures = begun(json.loads(results.read_text()) if results.exists() else None, names, add=add)
    cells = [(int(ms), int(n)) for ms in latencies.split(",") for n in streams.split(",")]
    keep_memory()  # for each process, as our own commands do it
    spawn = multiprocessing.get_context("spawn")
    for name in names:
        out = spawn.Queue()
        process = spawn.Process(target=run, args=(name, weights, cells, budget_s, out))
        process.start()
        while True:
            try:
                row = out.get(timeout=5)
            except Empty:
                if process.is_alive():
                    continue
                break  # it failed, and has said why
            if row is None:
                break
            cell = [row[key] for key in CELL]
            others, rounds = [], [row]
            for other in figures["rows"]:
                if [other[key] for key in CELL] == cell:
                    rounds += other.pop("rounds", [dict(other)])
                else:
                    others.append(other)
            figures["rows"] = sorted([*others, fastest(rounds)], key=place)
            results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            typer.echo(
                f"{name} {row['latency_ms']:>4} ms x {row['streams']:>2}: "
                f"{row['step_ms']['p50']:.0f} ms, factor {row['real_time_factor']:.2f}"
            )
        process.join()


if __name__ == "__main__":
    typer.run(main)
