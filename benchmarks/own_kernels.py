"""What our own kernels bring: int8 steps without them, with the products', and with all of them.

A process each way, in turn. With VNNI products are oneDNN's, so the second way isn't there.

    python -m nemotron_voice.bench.random_model build/random
    python -m benchmarks.own_kernels build/random

Writes docs/results/own_kernels.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from nemotron_voice.bench import steps
from nemotron_voice.bench.fresh_process import MeasurementError, in_fresh_process
from nemotron_voice.bench.machine import describe, summary
from nemotron_voice.bench.subject import Subject
from nemotron_voice.cli.memory import keep_memory
from nemotron_voice.config import lookahead_of
from nemotron_voice.model import fused_blocks, fused_subsampling, int8_linear
from nemotron_voice.model.int8_linear import Int8Linear, WeightLimit, weight_limit
from nemotron_voice.model.kernels import Product, Rounded, kernels
from nemotron_voice.model.network import Network
from nemotron_voice.model.state import StreamState

PYTORCH, PRODUCT, ALL = "PyTorch alone", "product.c and rounding", "all"


def measure(weights: Path, way: str, options: steps.StepOptions) -> list[dict[str, Any]]:
    """Rows of one way, in this process, and what of each step the products take."""
    if kernels() is None:
        raise MeasurementError("there is no library of kernels here; `pip install -e .` says why")
    if way != ALL:
        fused_blocks.kernels = fused_subsampling.kernels = lambda: None
    if way == PYTORCH:
        int8_linear.kernels = lambda: None
    clock = ProductClock()
    subject = Subject(model=str(weights), precision="int8", threads=torch.get_num_threads())
    rows = steps.measure_here(subject, options, lambda line: print(f"{way}: {line}", flush=True))
    return [
        row | {"products_ms": clock.milliseconds(row["latency_ms"], row["streams"])} for row in rows
    ]


class ProductClock:
    """Times all products of each step, from now on, in this process."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._steps: dict[tuple[int, int], list[float]] = {}  # by look-ahead and rows
        multiply, step = Int8Linear.multiply, Network.step

        def timed(product: Int8Linear, rounded: Rounded) -> Product:
            began = time.perf_counter()
            made = multiply(product, rounded)
            self._spent += time.perf_counter() - began
            return made

        def watched(
            network: Network, samples: Tensor, state: StreamState, rows: Tensor, *options: Any
        ) -> Any:
            self._spent = 0.0
            made = step(network, samples, state, rows, *options)
            self._steps.setdefault((options[1], len(rows)), []).append(self._spent)
            return made

        Int8Linear.multiply, Network.step = timed, watched

    def milliseconds(self, latency_ms: int, streams: int) -> float:
        """Median of the steps of a mode with so many streams."""
        return 1000 * float(np.median(self._steps[lookahead_of(latency_ms), streams]))


def main(
    weights: Annotated[Path, typer.Argument(help="Folder of nemotron_voice.bench.random_model")],
    latencies: Annotated[str, typer.Option(help="Modes, ms")] = "80,320,560,1120",
    streams: Annotated[str, typer.Option(help="Streams at once")] = "1,8",
    rounds: Annotated[int, typer.Option(help="Of a process each way")] = 3,
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/own_kernels.json"
    ),
) -> None:
    """Measure and print the table."""
    keep_memory()
    options = steps.StepOptions(
        latencies_ms=tuple(map(int, latencies.split(","))),
        streams=tuple(map(int, streams.split(","))),
        steps=15,
        budget_s=4.0,
    )
    ways = [PYTORCH, PRODUCT, ALL]
    if weight_limit() is WeightLimit.EACH:
        ways.remove(PRODUCT)
    took: dict[tuple[int, int], dict[str, list[float]]] = {}
    for _ in range(rounds):
        for way in ways:
            for row in in_fresh_process(measure, weights, way, options):
                cell = took.setdefault(
                    (row["latency_ms"], row["streams"]), {name: [] for name in (*ways, "products")}
                )
                cell[way].append(row["step_ms"]["p50"])
                if way == ALL:
                    cell["products"].append(row["products_ms"])
    figures = {
        "rows": [
            {"latency_ms": latency_ms, "streams": count} | cell
            for (latency_ms, count), cell in sorted(took.items())
        ],
        "machine": describe(),
    }
    results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(figures))


def table(figures: dict[str, Any]) -> str:
    """In Markdown."""
    ways = [way for way in (PYTORCH, PRODUCT, ALL) if way in figures["rows"][0]]
    lines = [
        f"| mode, streams | {' | '.join(f'{way}, ms' for way in ways)} | products of it, ms |",
        "|---|" + "---:|" * (len(ways) + 1),
    ]
    for row in figures["rows"]:
        cells = " | ".join(
            f"{np.median(row[way]):.0f} ({min(row[way]):.0f} to {max(row[way]):.0f})"
            for way in ways
        )
        lines.append(
            f"| {row['latency_ms']} ms x {row['streams']} | {cells} "
            f"| {np.median(row['products']):.0f} |"
        )
    rounds = len(figures["rows"][0][ALL])
    return "\n".join(lines) + (
        f"\n\nMedians of {rounds} processes each, in turn, and their least and most. "
        f"{summary(figures['machine'])}."
    )


if __name__ == "__main__":
    typer.run(main)
