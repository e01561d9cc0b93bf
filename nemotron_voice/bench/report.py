"""Results as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nemotron_voice.bench.machine import summary
from nemotron_voice.bench.trial import C120_S


def table(results: dict[str, Any]) -> str:
    """The table of any benchmark's results, and a line about the machine.

    Args:
        results: of `results.results_of`, or read from its file.
    """
    body = _TABLES[results["benchmark"]](results["results"])
    return f"{body}\n\n{summary(results['machine'])}."


def markdown(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; the first column to the left, the others to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _steps(rows: list[dict[str, Any]]) -> str:
    """A table for each precision: modes down, streams across."""
    parts = []
    for subject in dict.fromkeys(_subject(row) for row in rows):
        own = [row for row in rows if _subject(row) == subject]
        counts = list(dict.fromkeys(row["streams"] for row in own))
        cells = {(row["latency_ms"], row["streams"]): row for row in own}
        parts.append(
            f"{subject}: ms a step (real-time factor)\n\n"
            + markdown(
                ["mode", *(f"{count} stream{'s' * (count > 1)}" for count in counts)],
                [
                    [f"{latency} ms", *(_step(cells.get((latency, count))) for count in counts)]
                    for latency in dict.fromkeys(row["latency_ms"] for row in own)
                ],
            )
        )
    return "\n\n".join(parts)


def _step(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['step_ms']['p50']:.1f} ({row['real_time_factor']:.2f})"


def _subject(row: dict[str, Any]) -> str:
    count = row.get("threads")
    threads = f", {count} thread{'s' * (count > 1)}" if count else ""
    return f"{row['model']}, {row['precision']}{threads}"


def _capacity(searches: list[dict[str, Any]]) -> str:
    rows = []
    for one in searches:
        trials = {trial["callers"]: trial for trial in one["trials"]}
        short = "" if one["duration_s"] >= C120_S else f" ({one['duration_s']:g} s trials, no C120)"
        for found in one["capacity"]:
            trial = trials.get(found["callers"])
            rows.append(
                [
                    f"{_subject(one)}, {one['latency_ms']} ms{short}",
                    f"{found['final_limit_ms']:g} ms",
                    f"**{found['callers']}**",
                    *(_trial(trial) if trial else ["-"] * 5),
                    f"{found['next_tried']} {found['next_verdict']}",
                ]
            )
    return markdown(
        [
            "model, mode",
            "p95 final within",
            "callers",
            "final p50 / p95 / p99",
            "late chunks",
            "cores",
            "memory",
            "state a stream",
            "next number tried",
        ],
        rows,
    )


def _trial(trial: dict[str, Any]) -> list[str]:
    final = " / ".join(f"{ms:.0f}" for ms in trial["final_ms"].values())
    chunks = trial["chunks"]
    return [
        f"{final} ms",
        f"{100 * chunks['late'] / max(chunks['pushed'], 1):.2f} %",
        str(trial["process_cores"]),
        f"{trial['resident_mb']} MB",
        f"{trial['state_mb_per_stream']:.1f} MB",
    ]


def _startup(rows: list[dict[str, Any]]) -> str:
    def cell(row: dict[str, Any], name: str, digits: int) -> str:
        value = row[name]
        return (
            f"{value['median']:.{digits}f} ({value['least']:.{digits}f}-{value['most']:.{digits}f})"
        )

    return markdown(
        [
            "median (least-most)",
            "ready, s",
            "of it import, s",
            "of it load, s",
            "first step beyond later ones, ms",
            "first flush beyond later ones, ms",
            "memory, MB",
            "a stream, MB",
        ],
        [
            [
                f"{_subject(row)}, {row['latency_ms']} ms",
                *(cell(row, name, 2) for name in ("ready_s", "import_s", "load_s")),
                *(
                    cell(row, name, 1)
                    for name in ("first_step_penalty_ms", "first_flush_penalty_ms")
                ),
                cell(row, "loaded_mb", 0),
                cell(row, "stream_mb", 1),
            ]
            for row in rows
        ],
    )


def _call_length(calls: list[dict[str, Any]]) -> str:
    return markdown(
        [
            "call",
            "first minute, ms a step",
            "last minute",
            "then in turn: this call",
            "a fresh one",
            "this / fresh",
            "memory, MB",
        ],
        [
            [
                f"{_subject(call)}, {call['latency_ms']} ms mode, {len(call['minutes'])} minutes",
                f"{call['minutes'][0]['step_ms']['p50']:.2f}",
                f"{call['minutes'][-1]['step_ms']['p50']:.2f}",
                f"{call['in_turn']['long']['p50']:.2f}",
                f"{call['in_turn']['fresh']['p50']:.2f}",
                f"{call['in_turn']['quotient']:.3f}",
                f"{call['memory_growth_mb']:+.1f}",
            ]
            for call in calls
        ],
    )


def _packets(rows: list[dict[str, Any]]) -> str:
    return markdown(
        ["packets", "a push, µs (mean)", "p99, µs", "packets/s of one core", "callers' packets"],
        [
            [
                f"{row['packet_ms']} ms at {row['sample_rate']} Hz",
                f"{row['mean_us']:.1f}",
                f"{row['push_us']['p99']:.1f}",
                row["packets_per_s"],
                row["callers_a_core"],
            ]
            for row in rows
        ],
    )


def _roofline(rows: list[dict[str, Any]]) -> str:
    return markdown(
        [
            "step",
            "G operations",
            "MB, weights + states",
            "compute, ms",
            "memory, ms",
            "measured, ms",
            "share of the roof",
        ],
        [
            [
                f"{_subject(row)}, {row['latency_ms']} ms x {row['streams']}",
                f"{row['giga_operations']:.1f}",
                f"{row['weight_mb']:.0f} + {row['state_mb']:.0f}",
                f"{row['compute_ms']:.1f}",
                f"{row['memory_ms']:.1f}",
                f"{row['step_ms']:.1f}",
                f"{100 * row['share_of_roof']:.0f} % ({row['bound_by']})",
            ]
            for row in rows
        ],
    )


_TABLES: dict[str, Callable[[Any], str]] = {
    "steps": _steps,
    "capacity": _capacity,
    "startup": _startup,
    "call_length": _call_length,
    "packets": _packets,
    "roofline": _roofline,
}
