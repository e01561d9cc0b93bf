"""Figures as tables in Markdown, as the model card has them, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation.comparison import Comparison, Pair
from nemotron_voice.evaluation.normalisation import DESCRIPTIONS, Normaliser
from nemotron_voice.evaluation.scoring import Interval
from nemotron_voice.evaluation.summary import ALL, MEAN, Figures

_LATE_MS = 1_000.0  # no engine with room answers so late
_Cell = Callable[[Figures], str]


def tables(rows: Sequence[Figures]) -> str:
    """Error rates, language accuracy and delays: groups down, latencies across.

    Args:
        rows: of `summary.summarise`.
    """
    parts = [_table(rows, "error rate, %", _rate)]
    if any(row.language for row in rows):
        parts.append(_table([row for row in rows if row.language], "language right, %", _language))
    if any(row.delays for row in rows):
        timed = [row for row in rows if row.delays]
        what = "word end to shown / word end to final / clip end to final, ms (median; 95 %)"
        parts.append(_table(timed, what, _delay))
        if any(row.delays and row.delays.answer.p95 > _LATE_MS for row in rows):
            parts.append(
                "**The machine fell behind**: these delays are of an overloaded engine, not of one "
                "with room; take a smaller --at-once. Error rates don't depend on it."
            )
    return "\n\n".join(parts)


def _table(rows: Sequence[Figures], what: str, cell: _Cell) -> str:
    latencies = sorted({row.latency_ms for row in rows})
    groups = dict.fromkeys((row.group, row.unit) for row in rows)
    cells = {(row.group, row.unit, row.latency_ms): row for row in rows}
    lines = [
        ["", "clips", *(f"{ms} ms" for ms in latencies)],
        ["---", *["---:"] * (1 + len(latencies))],
    ]
    for group, unit in groups:
        own = [cells.get((group, unit, ms)) for ms in latencies]
        clips = next(row.clips for row in own if row)
        name = group if group == MEAN else f"{group} ({unit})"
        if group == ALL:
            name = f"**{name}**"
        lines.append([name, str(clips), *(cell(row) if row else "-" for row in own)])
    head = f"{what}\n\n"
    return head + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rate(row: Figures) -> str:
    return _with_interval(row.error_rate)


def _language(row: Figures) -> str:
    return _with_interval(row.language) if row.language else "-"


def _with_interval(figure: Interval) -> str:
    if math.isnan(figure.low):
        return f"{figure.value:.1f}"
    return f"{figure.value:.1f} ({figure.low:.1f}-{figure.high:.1f})"


def _delay(row: Figures) -> str:
    if row.delays is None:
        return "-"
    delays = (row.delays.shown, row.delays.final, row.delays.answer)
    return " / ".join(f"{one.p50:.0f}; {one.p95:.0f}" if one.count else "-" for one in delays)


def method(normaliser: Normaliser, prompt: str, way: str) -> str:
    """What stands under every table."""
    return (
        f"Language: {prompt}. Audio: {way}. In brackets: 95 % interval, bootstrap over clips. "
        f"Normalisation `{normaliser}`: {DESCRIPTIONS[normaliser]}."
    )


def plot(rows: Sequence[Figures], path: Path) -> None:
    """Error rate against latency, a line for each locale, all of them in black with the interval.

    Raises:
        ConfigurationError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"plots need {error.name}; pip install 'nemotron-voice[evaluate]'"
        ) from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for group, unit in dict.fromkeys((row.group, row.unit) for row in rows if row.group != MEAN):
        own = [row for row in rows if (row.group, row.unit) == (group, unit)]
        latencies = [row.latency_ms for row in own]
        whole = group == ALL
        axes.plot(
            latencies,
            [row.error_rate.value for row in own],
            color="black" if whole else None,
            linewidth=2.5 if whole else 1,
            linestyle="--" if unit == "CER" else "-",
            marker="o",
            markersize=3,
            label=f"{group} ({unit})",
        )
        if whole or len({row.group for row in rows}) == 1:
            axes.fill_between(
                latencies,
                [row.error_rate.low for row in own],
                [row.error_rate.high for row in own],
                color="black",
                alpha=0.12,
            )
    ticks = sorted({row.latency_ms for row in rows})
    axes.set(
        xscale="log",
        ylim=(0, None),
        xlabel="latency mode: audio per chunk, ms",
        ylabel="error rate, %",
        title="Accuracy against latency",
    )
    axes.set_xticks([], minor=True)
    axes.set_xticks(ticks, [str(ms) for ms in ticks])
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, metadata={"Date": None})


def comparison(found: Comparison, names: tuple[str, str], top: int) -> str:
    """A table of differences, and the clips that changed most.

    Args:
        found: of `comparison.compare`.
        names: what A and B are.
        top: clips shown.
    """
    modes = (found.latency_ms, found.other_latency_ms)
    mode = f"{modes[0]} ms" if modes[0] == modes[1] else f"A at {modes[0]} ms, B at {modes[1]} ms"
    lines = [
        f"A: {names[0]}, B: {names[1]}; {mode}",
        "",
        "| | clips | A, % | B, % | B - A, points | | texts changed | B better on | B worse on |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for row in found.groups:
        d = row.difference
        lines.append(
            f"| {row.group} ({row.unit}) | {row.clips} | {row.one.value:.2f} "
            f"| {row.other.value:.2f} | {d.value:+.2f} ({d.low:+.2f} to {d.high:+.2f}) "
            f"| {row.verdict} | {row.changed} | {row.better} | {row.worse} |"
        )
    if found.unpaired:
        lines += ["", f"{found.unpaired} hypotheses are of clips that only one of them has."]
    changed = [pair for pair in found.pairs if pair.change][:top]
    if changed:
        lines += ["", "Changed most:"]
        lines += [line for pair in changed for line in _changed(pair)]
    return "\n".join(lines)


def _changed(pair: Pair) -> list[str]:
    return [
        "",
        f"- {pair.one.id}: {pair.errors.count} -> {pair.other_errors.count} errors",
        f"  - said: {pair.one.text}",
        f"  - A: {pair.one.pred_text}",
        f"  - B: {pair.other.pred_text}",
    ]
