"""Word error rate and language accuracy of the demo checkpoint, by latency mode and language.

    python -m benchmarks.accuracy --work build/training --speech ../shared/speech

Prints the README's table and writes docs/results/accuracy.json. Sets: (a) held-out sentences in
held-out voices, (b) a synthesis engine never trained on, (c) recorded human digits and numbers.
The same figures as `nemotron-voice evaluate` prints for each set, in `auto` and with each clip's
language forced.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from benchmarks.clips import DEMO_LANGUAGES, KINDS, SETS, load_sets, recorded
from nemotron_voice import Engine
from nemotron_voice.config import LATENCIES_MS
from nemotron_voice.evaluation.hypotheses import Hypothesis
from nemotron_voice.evaluation.listening import ListenOptions, listen
from nemotron_voice.evaluation.normalisation import Normaliser
from nemotron_voice.evaluation.summary import ALL, by_field, summarise

PROMPTS = {"auto": "auto", "forced": "manifest"}
AT_ONCE = 32


def main(
    work: Annotated[Path, typer.Option(help="Folder of training/synthesise.py")] = Path(
        "build/training"
    ),
    speech: Annotated[Path, typer.Option(help="Recorded speech with a manifest")] = Path(
        "../shared/speech"
    ),
    model: Annotated[str, typer.Option(help="Model to measure")] = "demo",
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/accuracy.json"
    ),
) -> None:
    """Measure and print the table."""
    sets = load_sets(work, speech)
    figures: dict[str, Any] = {}
    with Engine.load(model, max_streams=AT_ONCE) as engine, Progress() as progress:
        task = progress.add_task("streaming", total=2 * len(LATENCIES_MS) * len(sets))
        recordings = recorded(speech, KINDS)
        by_kind = asyncio.run(listen(engine, recordings, ListenOptions(latency_ms=320)))
        for name, clips in sets.items():
            for latency_ms in LATENCIES_MS:
                for prompt, language in PROMPTS.items():
                    way = ListenOptions(language=language, latency_ms=latency_ms, at_once=AT_ONCE)
                    heard = asyncio.run(listen(engine, clips, way))
                    mode = figures.setdefault(name, {}).setdefault(str(latency_ms), {})
                    mode[prompt] = by_language(heard)
                    progress.advance(task)
    found = {
        "model": model,
        "clips": {name: len(clips) for name, clips in sets.items()},
        "sets": figures,
        "recorded": {
            kind: {"clips": len(own), **by_language(own)}
            for kind, own in by_field(by_kind, "kind").items()
        },
    }
    results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{table(found)}\n\n{recorded_table(found)}")


def by_language(heard: Sequence[Hypothesis]) -> dict[str, Any]:
    """WER of each language and of all with its interval, and the language accuracy, %."""
    rows = {row.group: row for row in summarise(heard, Normaliser.multilingual)}
    if not rows:
        return {}
    whole = rows.get(ALL) or next(iter(rows.values()))  # of one language
    return {
        **{c: round(rows[c].error_rate.value, 2) for c in DEMO_LANGUAGES if c in rows},
        "all": round(whole.error_rate.value, 2),
        "interval": [round(whole.error_rate.low, 2), round(whole.error_rate.high, 2)],
        "language": round(whole.language.value, 2) if whole.language else None,
    }


def table(results: dict[str, Any]) -> str:
    """The README's table, in Markdown."""
    lines = [
        "| set | latency | "
        + " | ".join(DEMO_LANGUAGES)
        + " | all (95 % interval) | all, forced | language right |",
        "|---|---|" + "---|" * (len(DEMO_LANGUAGES) + 3),
    ]
    for name, modes in results["sets"].items():
        if not results["clips"][name]:
            continue
        for latency, prompts in modes.items():
            auto, forced = prompts["auto"], prompts["forced"]
            cells = [f"{auto[code]:.1f}" if code in auto else "-" for code in DEMO_LANGUAGES]
            low, high = auto["interval"]
            lines.append(
                f"| ({name}) {SETS[name]}, {results['clips'][name]} clips | {latency} ms | "
                + " | ".join(cells)
                + f" | {auto['all']:.1f} ({low:.1f}-{high:.1f}) | {forced['all']:.1f} "
                f"| {auto['language']:.1f} % |"
            )
    return "\n".join(lines)


def recorded_table(results: dict[str, Any]) -> str:
    """Recorded speech by its kind, in Markdown."""
    lines = [
        "| recorded, 320 ms | clips | "
        + " | ".join(DEMO_LANGUAGES)
        + " | all (95 % interval) | language right |",
        "|---|---:|" + "---:|" * (len(DEMO_LANGUAGES) + 2),
    ]
    found = results["recorded"]
    for kind in sorted(found, key=KINDS.index):
        row = found[kind]
        cells = [f"{row[code]:.0f}" if code in row else "-" for code in DEMO_LANGUAGES]
        low, high = row["interval"]
        lines.append(
            f"| {kind}s | {row['clips']} | "
            + " | ".join(cells)
            + f" | {row['all']:.0f} ({low:.0f}-{high:.0f}) | {row['language']:.0f} % |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
