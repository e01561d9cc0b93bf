"""Every figure of docs/performance.md, one after another, on a machine that does nothing else.

    python -m benchmarks.performance --peers-python build/peers/bin/python

`--only steps,peers` runs a part. Takes two hours on two cores, half of it capacity. The peers need
the extras `reference` and `peers`, best in an environment of their own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("docs/results")
BENCH = (sys.executable, "-m", "nemotron_voice", "bench")


def commands(weights: Path, peers_python: str, threads: int) -> dict[str, tuple[str, ...]]:
    """Name -> command; most write docs/results/bench_NAME.json."""

    def bench(name: str, *options: str) -> tuple[str, ...]:
        return (*BENCH, *options, "--output", str(RESULTS / f"bench_{name}.json"))

    real = ("--threads", str(threads), "--precision")
    few = ("--steps", "12", "--budget-s", "3")
    return {
        "weights": (sys.executable, "-m", "nemotron_voice.bench.random_model", str(weights)),
        "steps": bench("steps", "steps", "-m", str(weights), *real, "int8,bf16,fp32", *few),
        "peers": (peers_python, "-m", "benchmarks.peers", "--weights", str(weights)),
        "startup": bench("startup", "startup", "-m", str(weights), *real, "int8,fp32"),
        "call_length": bench(
            "call_length", "call-length", "-m", str(weights), *real, "int8", "--latency-ms", "1120"
        ),
        "roofline": bench("roofline", "roofline", "-m", str(weights), *real, "int8,bf16,fp32"),
        "kernels": (peers_python, "-m", "benchmarks.kernels"),
        "own_kernels": (sys.executable, "-m", "benchmarks.own_kernels", str(weights)),
        "packets": bench("packets", "packets"),
        "capacity": bench(
            "capacity", "capacity", "-m", "demo", "--latency-ms", "80,160,320", "--start", "32"
        ),
        "precision": (sys.executable, "-m", "benchmarks.precision"),
    }


def main(
    weights: Annotated[Path, typer.Option(help="Real size, random: written if not there")] = Path(
        "build/random"
    ),
    peers_python: Annotated[str, typer.Option(help="Python with the peers")] = sys.executable,
    threads: Annotated[int, typer.Option(help="Of the network, where it has the machine")] = 2,
    only: Annotated[str, typer.Option(help="Names, separated by commas; all")] = "",
) -> None:
    """Run them."""
    chosen = only.split(",") if only else None
    for name, command in commands(weights, peers_python, threads).items():
        if (chosen and name not in chosen) or (name == "weights" and weights.exists()):
            continue
        typer.echo(f"== {name}: {' '.join(command)}")
        subprocess.run(command, check=True)


if __name__ == "__main__":
    typer.run(main)
