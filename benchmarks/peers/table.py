"""Ours beside the peers, in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LATENCIES = (80, 160, 320, 560, 1120)


def table(peers: dict[str, Any]) -> str:
    """Real-time factors of a step by mode and streams, and the streams that each holds.

    Ours is read from bench_steps.json, of the same machine on the same day.
    """
    ours = json.loads(Path("docs/results/bench_steps.json").read_text(encoding="utf-8"))
    rows = [{**row, "peer": f"**ours, {row['precision']}**"} for row in ours["results"]]
    rows += peers["rows"]
    names = list(dict.fromkeys(row["peer"] for row in rows))
    counts = sorted({row["streams"] for row in rows})
    cells = {(row["peer"], row["latency_ms"], row["streams"]): row for row in rows}
    lines = [
        "| mode | engine | " + " | ".join(map(str, counts)) + " | holds |",
        "|---|---|" + "---:|" * (len(counts) + 1),
    ]
    for latency in LATENCIES:
        for name in names:
            factors = [
                cells[name, latency, count]["real_time_factor"]
                if (name, latency, count) in cells
                else None
                for count in counts
            ]
            held = [c for c, f in zip(counts, factors, strict=True) if f is not None and f <= 1]
            shown = " | ".join("-" if f is None else f"{f:.2f}" for f in factors)
            more = "+" if held and held[-1] == counts[-1] else ""
            lines.append(f"| {latency} ms | {name} | {shown} | {held[-1] if held else 0}{more} |")
    return "\n".join(lines)
