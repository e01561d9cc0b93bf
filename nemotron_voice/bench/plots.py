"""Results as pictures; needs matplotlib, which the extra `bench` brings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemotron_voice.bench.machine import summary
from nemotron_voice.errors import ConfigurationError


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what there is to draw of a benchmark's results, as SVG.

    Args:
        results: of `results.results_of`, or read from its file.
        folder: where the pictures go.

    Returns:
        The files written; none for a benchmark that a table says all about.

    Raises:
        ConfigurationError: matplotlib is missing.
    """
    draw = _PLOTS.get(results["benchmark"])
    if draw is None:
        return []
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"plots need {error.name}; pip install 'nemotron-voice[bench]'"
        ) from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    draw(figure.subplots(), results["results"])
    figure.supxlabel(summary(results["machine"]), fontsize=6, color="grey")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench_{results['benchmark']}.svg"
    figure.savefig(path, metadata={"Date": None})
    return [path]


def _steps(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Real-time factor by streams, a line for each mode and precision."""
    subjects = list(dict.fromkeys(row["precision"] for row in rows))
    latencies = list(dict.fromkeys(row["latency_ms"] for row in rows))
    for style, precision in enumerate(subjects):
        for colour, latency in enumerate(latencies):
            own = [r for r in rows if (r["precision"], r["latency_ms"]) == (precision, latency)]
            axes.plot(
                [row["streams"] for row in own],
                [row["real_time_factor"] for row in own],
                color=f"C{colour}",
                linestyle=("-", "--", ":", "-.")[style % 4],
                marker="o",
                markersize=3,
                label=f"{latency} ms, {precision}",
            )
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="streams at once",
        ylabel="step time / audio of the step",
        title="Step time by streams: below 1 is real time",
    )
    axes.set_xticks([], minor=True)
    axes.set_xticks(counts := sorted({row["streams"] for row in rows}), [str(c) for c in counts])
    axes.legend(fontsize=7, ncols=2)


def _capacity(axes: Any, searches: list[dict[str, Any]]) -> None:
    """Time to final by callers."""
    for colour, one in enumerate(searches):
        trials = [trial for trial in one["trials"] if trial.get("finals")]
        for share, style in (("p50", "-"), ("p95", "--")):
            axes.plot(
                [trial["callers"] for trial in trials],
                [trial["final_ms"][share] for trial in trials],
                style,
                color=f"C{colour}",
                marker="o",
                markersize=3,
                label=f"{one['latency_ms']} ms, {one['precision']}, {share}",
            )
        for found in one["capacity"]:
            axes.axhline(found["final_limit_ms"], color="grey", linewidth=0.6)
    axes.set(
        yscale="log",
        xlabel="callers in real time",
        ylabel="flush to final, ms",
        title="Time to final by callers",
    )
    axes.legend(fontsize=7)


def _call_length(axes: Any, calls: list[dict[str, Any]]) -> None:
    """Step time by minute of the call."""
    for call in calls:
        axes.plot(
            [row["minute"] for row in call["minutes"]],
            [row["step_ms"]["p50"] for row in call["minutes"]],
            label=f"{call['model']}, {call['precision']}, {call['latency_ms']} ms mode",
        )
    axes.set(
        ylim=(0, None),
        xlabel="minute of the call",
        ylabel="ms a step (median)",
        title="Cost of a step by length of the call",
    )
    axes.legend(fontsize=7)


_PLOTS: dict[str, Callable[[Any, Any], None]] = {
    "steps": _steps,
    "capacity": _capacity,
    "call_length": _call_length,
}
