"""Ours beside the peers, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemotron_voice.bench import plots

# Each peer at its best: a line isn't drawn where that of its better precision is.
BETTER = {
    "ours, fp32": "ours, int8",
    "NeMo bf16": "NeMo fp32",
    "Transformers fp32": "Transformers bf16",
}


def plot(peers: dict[str, Any], path: Path) -> Path:
    """Real-time factors of a step by streams, a panel a mode, as SVG."""
    measured = {row["peer"] for row in peers["rows"]}
    rows = [row for row in peers["rows"] if BETTER.get(row["peer"]) not in measured]
    return plots.write(
        lambda figure: plots.draw_steps(figure, rows, "peer"), peers["machine"], path
    )
