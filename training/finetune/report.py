"""Before and after, through the engine, at the latency that will be deployed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemotron_voice.engine import Engine
from nemotron_voice.evaluation import hypotheses as lines
from nemotron_voice.evaluation.comparison import compare
from nemotron_voice.evaluation.hypotheses import Hypothesis
from nemotron_voice.evaluation.listening import ListenOptions, listen
from nemotron_voice.evaluation.manifest import Clip
from nemotron_voice.evaluation.normalisation import DESCRIPTIONS, Normaliser
from nemotron_voice.evaluation.report import comparison as comparison_table
from nemotron_voice.evaluation.summary import as_json, summarise

AT_ONCE = 32
Heard = dict[str, list[Hypothesis]]  # by the name of the test set


def evaluate(model: str | Path, tests: dict[str, list[Clip]], latencies_ms: Sequence[int]) -> Heard:
    """What a checkpoint hears of each test set, in `auto`, in fp32."""

    async def all_of(engine: Engine) -> Heard:
        heard: Heard = {}
        for name, clips in tests.items():
            heard[name] = []
            for latency_ms in latencies_ms:
                options = ListenOptions(latency_ms=latency_ms, at_once=AT_ONCE)
                heard[name] += await listen(engine, clips, options)
        return heard

    with Engine.load(model, precision="fp32", max_streams=AT_ONCE) as engine:
        return asyncio.run(all_of(engine))


def keep(heard: Heard, folder: Path, when: str) -> None:
    """Write hypotheses as `nemotron-voice compare` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in heard.items():
        lines.write(own, folder / f"{name}-{when}.jsonl")


def kept(folder: Path, tests: Sequence[str], when: str) -> Heard | None:
    """What `keep` wrote; None if something is missing."""
    paths = {name: folder / f"{name}-{when}.jsonl" for name in tests}
    if not all(path.is_file() for path in paths.values()):
        return None
    return {name: lines.read(path) for name, path in paths.items()}


def figures(before: Heard, after: Heard) -> dict[str, Any]:
    """For JSON: error rates of each set and latency, before and after, and the difference."""
    found: dict[str, Any] = {}
    for name in before:
        found[name] = {
            "before": as_json(summarise(before[name], Normaliser.multilingual)),
            "after": as_json(summarise(after[name], Normaliser.multilingual)),
            "differences": [
                {"latency_ms": one.latency_ms, "groups": as_json(one.groups)}
                for one in compare(before[name], after[name], Normaliser.multilingual)
            ],
        }
    return found


def write(
    before: Heard, after: Heard, head: str, details: dict[str, Any], output: Path, *, top: int = 5
) -> str:
    """report.md and results.json; returns the report.

    Args:
        before: hypotheses of the base.
        after: of the fine-tuned checkpoint.
        head: what was done, in Markdown.
        details: for results.json beside the figures.
        output: folder.
        top: clips of each set to show that changed most.
    """
    parts = [head]
    for name in before:
        parts.append(f"## {name}")
        parts += [
            comparison_table(one, ("the base", "fine-tuned"), top)
            for one in compare(before[name], after[name], Normaliser.multilingual)
        ]
    normaliser = Normaliser.multilingual
    parts.append(
        f"Language: auto, streamed through the engine in fp32. In brackets: 95 % interval, paired "
        f"bootstrap over clips. Normalisation `{normaliser}`: {DESCRIPTIONS[normaliser]}."
    )
    text = "\n\n".join(parts) + "\n"
    (output / "report.md").write_text(text, encoding="utf-8")
    results = details | {"tests": figures(before, after)}
    (output / "results.json").write_text(
        json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return text
