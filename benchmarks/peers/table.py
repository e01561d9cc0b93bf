"""Ours beside the peers, in Markdown."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.peers.measure import OURS
from nemotron_voice.bench.machine import summary as machine_summary
from nemotron_voice.config import LATENCIES_MS


def summary(peers: dict[str, Any]) -> str:
    """Ours in int8 and the best peer by mode: factor of one stream, streams that hold."""
    ours = [row for row in peers["rows"] if row["peer"] == "ours, int8"]
    theirs = [row for row in peers["rows"] if row["peer"] not in OURS]
    lines = [
        "| mode | ours: 1 stream | best peer: 1 stream | ours holds | best peer holds |",
        "|---|---:|---:|---:|---:|",
    ]
    for latency in LATENCIES_MS:
        mine = [row for row in ours if row["latency_ms"] == latency]
        others = [row for row in theirs if row["latency_ms"] == latency]
        fastest = min(
            (row for row in others if row["streams"] == 1), key=lambda row: row["real_time_factor"]
        )
        roomiest = max(
            sorted({row["peer"] for row in others}), key=lambda peer: _held(others, peer)
        )
        best = f"{_shown(others, roomiest)}, {roomiest}" if _held(others, roomiest) else "0"
        single = next(row for row in mine if row["streams"] == 1)
        lines.append(
            f"| {latency} ms | {_factor(single)} | {_factor(fastest)}, {fastest['peer']} | "
            f"{_shown(mine, 'ours, int8')} | {best} |"
        )
    return "\n".join(lines) + "\n\nReal-time factors: a step's time over the chunk's."


def _factor(row: dict[str, Any]) -> str:
    return f"{row['real_time_factor']:.2f}"


def _held(rows: list[dict[str, Any]], peer: str) -> int:
    held = [row["streams"] for row in rows if row["peer"] == peer and row["real_time_factor"] <= 1]
    return max(held, default=0)


def _shown(rows: list[dict[str, Any]], peer: str) -> str:
    most = max(row["streams"] for row in rows if row["peer"] == peer)
    held = _held(rows, peer)
    return f"{held} or more" if held == most else str(held)


def table(peers: dict[str, Any]) -> str:
    """Real-time factors of a step by mode and streams, and the streams that each holds."""
    rows = peers["rows"]
    names = list(dict.fromkeys(row["peer"] for row in rows))
    counts = sorted({row["streams"] for row in rows})
    cells = {(row["peer"], row["latency_ms"], row["streams"]): row for row in rows}
    lines = [
        "| mode | engine | " + " | ".join(map(str, counts)) + " | holds |",
        "|---|---|" + "---:|" * (len(counts) + 1),
    ]
    for latency in LATENCIES_MS:
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
            if not any(name == peer and latency == mode for peer, mode, _ in cells):
                continue
            who = f"**{name}**" if name.startswith("ours") else name
            lines.append(f"| {latency} ms | {who} | {shown} | {held[-1] if held else 0}{more} |")
    return "\n".join(lines) + f"\n\n{_rounds(rows)}{machine_summary(peers['machine'])}."


def _rounds(rows: list[dict[str, Any]]) -> str:
    """How far apart several rounds of a cell are."""
    apart = [
        max(found) / min(found) - 1
        for found in (
            [each["real_time_factor"] for each in row["rounds"]] for row in rows if "rounds" in row
        )
    ]
    if not apart:
        return ""
    counts = sorted({len(row.get("rounds", [row])) for row in rows})
    return (
        f"The fastest of {counts[0]} to {counts[-1]} rounds of a cell, of which the slowest took "
        f"{median(apart):.0%} longer (median; {max(apart):.0%} at most). "
    )
