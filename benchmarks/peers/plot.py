"""Ours beside the peers, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemotron_voice.bench import plots

# Each peer at its best: these lines would lie above its other precision's.
LEFT_OUT = {"ours, fp32", "NeMo bf16", "Transformers fp32"}


def plot(peers: dict[str, Any], path: Path) -> Path:
    """Real-time factors of a step by streams, a panel a mode, as SVG."""
    rows = [row for row in peers["rows"] if row["peer"] not in LEFT_OUT]
    return plots.write(
        lambda figure: plots.draw_steps(figure, rows, "peer"), peers["machine"], path
    )
