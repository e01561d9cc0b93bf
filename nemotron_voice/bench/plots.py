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
    return [
        write(
            lambda figure: draw(figure, results["results"]),
            results["machine"],
            folder / f"bench_{results['benchmark']}.svg",
        )
    ]


def write(draw: Callable[[Any], None], machine: dict[str, Any], path: Path) -> Path:
    """Draw one picture, with the machine that it was measured on below.

    Args:
        draw: draws into a matplotlib figure.
        machine: of `machine.describe`.
        path: of the SVG; its folder is made.

    Raises:
        ConfigurationError: matplotlib is missing.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - of an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"plots need {error.name}; pip install 'nemotron-voice[bench]'"
        ) from error
    # The same figures make the same file; text stays text.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
        figure = Figure(figsize=(8, 5), layout="constrained", facecolor="white")
        draw(figure)
        figure.supxlabel(summary(machine), fontsize=6, color="grey")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return path


def draw_steps(figure: Any, rows: list[dict[str, Any]], name: str = "precision") -> None:
    """Real-time factor by streams: a panel a mode, a line a precision (or whatever `name` is)."""
    names = list(dict.fromkeys(row[name] for row in rows))
    latencies = list(dict.fromkeys(row["latency_ms"] for row in rows))
    counts = sorted({row["streams"] for row in rows})
    columns = min(3, len(latencies))
    panels = figure.subplots(-(-len(latencies) // columns), columns, sharey=True, squeeze=False)
    for axes, latency in zip(panels.flat, latencies, strict=False):
        for own_name in names:
            own = [r for r in rows if (r[name], r["latency_ms"]) == (own_name, latency)]
            axes.plot(
                [row["streams"] for row in own],
                [row["real_time_factor"] for row in own],
                marker="o",
                markersize=3,
                linewidth=2.0 if "ours" in str(own_name) else 1.0,
                label=own_name,
            )
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set(xscale="log", yscale="log", title=f"{latency} ms mode")
        axes.set_xticks([], minor=True)
        axes.set_xticks(counts, [str(count) for count in counts])
    for axes in panels.flat[len(latencies) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("step time / its audio")
    lines, labels = panels.flat[0].get_legend_handles_labels()
    if len(latencies) < panels.size:
        panels.flat[-1].legend(lines, labels, loc="center", frameon=False)
    else:
        panels.flat[0].legend(fontsize=7)
    figure.suptitle("A step's time by streams at once: below 1 is real time")


def _capacity(figure: Any, searches: list[dict[str, Any]]) -> None:
    """Time to final by callers."""
    axes = figure.subplots()
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
    for limit in sorted({found["final_limit_ms"] for one in searches for found in one["capacity"]}):
        axes.axhline(limit, color="grey", linewidth=0.6)
        axes.annotate(
            f"limit of p95: {limit:g} ms",
            (1.0, limit),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7,
            color="grey",
        )
    axes.set(
        yscale="log",
        xlabel="callers in real time",
        ylabel="flush to final, ms",
        title="Time to final by callers",
    )
    axes.legend(fontsize=7)


def _call_length(figure: Any, calls: list[dict[str, Any]]) -> None:
    """Step time by minute of the call."""
    axes = figure.subplots()
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
    "steps": draw_steps,
    "capacity": _capacity,
    "call_length": _call_length,
}
