"""The demonstration: teach the bundled checkpoint Hindi, and thirty dishes; what is forgotten?

    make finetune-demo

From nothing to docs/results/finetuning.json in about three hours on two cores, most of it synthesis
(of the old languages only where `--old` has none yet). Goes on where it stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nemotron_voice.evaluation import hypotheses
from nemotron_voice.evaluation.normalisation import Normaliser, normalise

GRAMMAR = Path("training/corpus/grammar/menu")
RESULTS = Path("docs/results/finetuning.json")
OLD_HOURS = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to be taught."""

    name: str
    language: str
    hours: float  # of speech to learn from
    test_clips: int
    steps: int
    rate: float
    old_weight: float = 1.0  # of the old languages' speech, beside the new's 1
    options: tuple[str, ...] = ()
    grammar: Path | None = None


CASES = (
    Case(
        name="hindi",
        language="hi-IN",
        hours=0.5,
        test_clips=150,
        steps=1300,
        rate=4.5e-4,
        old_weight=1.5,
        options=(
            "--add-pieces",
            "240",
            "--trainable",
            "blocks",
            "--hold",
            "2",
            "--base-share",
            "0.5",
        ),
    ),
    Case(
        name="menu",
        language="en-US",
        hours=0.2,
        test_clips=100,
        steps=250,
        rate=3e-4,
        grammar=GRAMMAR,
    ),
)


def main(
    synthesis_python: Annotated[
        Path, typer.Option(help="Python with training/requirements-synthesis.txt")
    ],
    work: Annotated[Path, typer.Option(help="Folder of everything made")] = Path("build/finetune"),
    old: Annotated[
        Path, typer.Option(help="Folder of training/synthesise.py with the old languages")
    ] = Path("build/training"),
    only: Annotated[str, typer.Option(help="hindi or menu; both by default")] = "",
    jobs: Annotated[int, typer.Option(help="Processes of the synthesis")] = 2,
) -> None:
    """Synthesise, fine-tune, test, compare with NeMo; write the figures."""
    synthesise = [
        str(synthesis_python),
        "-m",
        "training.synthesise",
        "--jobs",
        str(jobs),
        *("--dev-clips", "0"),
    ]
    _run(*synthesise, "--work", str(old), "--hours", str(OLD_HOURS))  # what is missing of it
    for case in CASES:
        if only in {"", case.name}:
            found = _teach(case, work, old, synthesise)
            # Read now: another case may have been taught meanwhile.
            known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
            figures = known | {case.name: found}
            text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
            RESULTS.write_text(text, encoding="utf-8")


def _teach(case: Case, work: Path, old: Path, synthesise: list[str]) -> dict[str, Any]:
    folder = work / case.name
    grammar = ["--grammar", str(case.grammar)] if case.grammar else []
    _run(
        *synthesise,
        *("--work", str(folder / "speech"), "--voices", str(old / "voices")),
        *("--languages", case.language, "--hours", str(case.hours)),
        *("--test-clips", str(case.test_clips), *grammar),
    )
    new, output = folder / "speech" / "manifests", folder / "tuned"
    kept = f"{old / 'manifests/train.jsonl'}={case.old_weight:g}"
    if not (output / "results.json").exists():
        _run(
            *(sys.executable, "-m", "training.finetune", "--model", "demo"),
            *("--train", str(new / "train.jsonl"), "--keep", kept),
            *("--test", f"new={new / 'test_a.jsonl'}"),
            *("--test", f"old={old / 'manifests/test_a.jsonl'}"),
            *("--steps", str(case.steps), "--rate", str(case.rate), *case.options),
            *("--latency-ms", "80,320", "--output", str(output), "--resume"),
        )
    results: dict[str, Any] = json.loads((output / "results.json").read_text(encoding="utf-8"))
    parity = output / "parity.json"
    if not parity.exists():
        _run(
            *(sys.executable, "-m", "benchmarks.nemo_parity", str(output / "model.nemo")),
            *(str(new / "test_a.jsonl"), "--latency-ms", "80", "--results", str(parity)),
        )
    results["parity"] = json.loads(parity.read_text(encoding="utf-8"))
    if case.grammar is not None:
        results["terms"] = _terms(case, output / "hypotheses")
    return results


def _terms(case: Case, folder: Path) -> dict[str, Any]:
    """How many of the grammar's dishes that were said were heard, before and after, at 80 ms."""
    assert case.grammar is not None
    lines = (case.grammar / f"{case.language}.txt").read_text(encoding="utf-8").splitlines()
    dishes = lines[lines.index("@dish") + 1 :]
    terms = [line.split()[-1] for line in dishes[: dishes.index("")]]
    found: dict[str, Any] = {"terms": len(terms)}
    for when in ("before", "after"):
        said = heard = 0
        for one in hypotheses.read(folder / f"new-{when}.jsonl"):
            if one.latency_ms != 80:
                continue
            reference, got = (
                normalise(text, case.language, Normaliser.multilingual).split()
                for text in (one.text, one.pred_text)
            )
            for term in terms:
                count = reference.count(term)
                said += count
                heard += min(count, got.count(term))
        found |= {"said": said, when: heard}
    return found


def _run(*command: str) -> None:
    print("==", " ".join(command), flush=True)
    subprocess.run(command, check=True)


def table(figures: dict[str, Any]) -> str:
    """For docs/fine-tuning.md, in Markdown."""
    lines = [
        "| taught | test set | mode | clips | before, WER % | after, WER % | after - before |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for name, case in figures.items():
        for test, found in case["tests"].items():
            for one in found["differences"]:
                row = one["groups"][0]
                d = row["difference"]
                lines.append(
                    f"| {name} | {test} | {one['latency_ms']} ms | {row['clips']} "
                    f"| {row['one']['value']:.1f} | {row['other']['value']:.1f} "
                    f"| {d['value']:+.1f} ({d['low']:+.1f} to {d['high']:+.1f}) |"
                )
    notes = []
    for name, case in figures.items():
        hours = sum(source["hours"] for source in case["train"][:1])
        parity = case["parity"]
        notes.append(
            f"{name}: {hours:.2f} h of new speech, {case['recipe']['steps']} steps, "
            f"{case['minutes']:.0f} minutes; engine and NeMo make the same tokens of "
            f"{parity['equal']} of {parity['clips']} test clips ({parity['tokens']} tokens) at "
            f"{parity['latency_ms']} ms"
        )
        if "terms" in case:
            terms = case["terms"]
            notes[-1] += (
                f"; of {terms['said']} times that one of the {terms['terms']} new terms was said, "
                f"{terms['before']} were heard before and {terms['after']} after"
            )
    return "\n".join(lines) + "\n\n" + ".\n".join(notes) + "."


if __name__ == "__main__":
    typer.run(main)
