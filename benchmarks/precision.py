"""What bf16 and int8 change: WER against fp32, and texts that depend on the neighbours.

    python -m training.synthesise --work build/precision --hours 0 --dev-clips 0 --test-clips 325
    python -m benchmarks.precision --many build/precision

Every clip is heard in each precision and mode with 31 others, and every sixth alone in an engine of
one slot: sets b and c, and of set a 325 sentences a language instead of 40, of which a word is a
third of a point. Half an hour on two cores. Writes docs/results/precision.json.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
import typer
from rich.progress import track
from torch import Tensor

from benchmarks.clips import DEMO_LANGUAGES, SETS, load_sets
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.bench.fresh_process import in_fresh_process
from nemotron_voice.bench.machine import describe, summary
from nemotron_voice.config import LATENCIES_MS, Precision, lookahead_of
from nemotron_voice.engine.fork import PAST_SAMPLES
from nemotron_voice.evaluation.comparison import compare
from nemotron_voice.evaluation.hypotheses import Hypothesis
from nemotron_voice.evaluation.listening import ListenOptions, listen
from nemotron_voice.evaluation.manifest import Clip
from nemotron_voice.evaluation.normalisation import Normaliser
from nemotron_voice.languages import AUTO_PROMPT_INDEX
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.encoder import advance
from nemotron_voice.model.features import chunk_samples, window_samples
from nemotron_voice.model.network import Network

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
MODES = LATENCIES_MS
ALONE, TOGETHER = 1, 32  # clips at once
ALONE_EVERY = 6  # clips of which one is heard alone, too
FRAMES_EVERY = 10  # clips of which one's frames are compared


def hear(clips: Sequence[Clip], precision: Precision, mode: int, streams: int) -> list[Hypothesis]:
    """What is heard, so many clips at once, in a process of its own."""
    return in_fresh_process(_heard, clips, precision, mode, streams)


def _heard(
    clips: Sequence[Clip], precision: Precision, mode: int, streams: int
) -> list[Hypothesis]:
    way = ListenOptions(latency_ms=mode, at_once=streams)
    with Engine.load(
        "demo", precision=precision, max_streams=streams, max_batch=streams, threads=1
    ) as engine:
        return asyncio.run(listen(engine, clips, way))


def measure(clips: Sequence[Clip]) -> dict[str, Any]:
    """Figures of each precision and mode; as many processes side by side as there are cores."""
    ways = [(name, mode, n) for n in (TOGETHER, ALONE) for name in PRECISIONS for mode in MODES]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        running = {
            pool.submit(hear, clips if way[2] == TOGETHER else clips[::ALONE_EVERY], *way): way
            for way in ways
        }
        heard = {}
        for done in track(as_completed(running), total=len(ways), description="listening"):
            heard[running[done]] = done.result()
    return {
        precision: {
            str(mode): against(
                heard[PRECISIONS[0], mode, TOGETHER], heard[precision, mode, TOGETHER]
            )
            | {
                "changed_by_neighbours": _different(
                    heard[precision, mode, ALONE], heard[precision, mode, TOGETHER][::ALONE_EVERY]
                ),
                "other_than_fp32": _different(
                    heard[PRECISIONS[0], mode, TOGETHER], heard[precision, mode, TOGETHER]
                ),
            }
            for mode in MODES
        }
        for precision in PRECISIONS
    }


def frame_errors(clips: Sequence[Clip]) -> dict[str, float]:
    """How far frames are from those of fp32 before they are decoded, % of their size.

    The mean over frames of every clip, alone, at 560 ms.
    """
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("demo")
    networks = {name: Network.from_checkpoint(checkpoint, "cpu", name) for name in PRECISIONS}
    found: dict[str, list[Tensor]] = {name: [] for name in PRECISIONS[1:]}
    for clip in clips:
        frames = {name: _frames(network, clip) for name, network in networks.items()}
        exact = frames[PRECISIONS[0]]
        for name, errors in found.items():
            errors.append((frames[name] - exact).norm(dim=-1) / exact.norm(dim=-1))
    return {name: round(100 * float(torch.cat(one).mean()), 3) for name, one in found.items()}


@torch.inference_mode()
def _frames(network: Network, clip: Clip) -> Tensor:
    """A whole file's frames as the decoder gets them: [frames, d_model]."""
    lookahead = lookahead_of(560)
    size, window = chunk_samples(lookahead), window_samples(lookahead)
    samples = torch.from_numpy(read_samples(clip.path))
    chunks = math.ceil(len(samples) / size)
    samples = F.pad(samples, (PAST_SAMPLES, window))  # as far as the first chunk reaches back
    state, row = network.initial_state(1), torch.tensor([0])
    prompt = torch.tensor([AUTO_PROMPT_INDEX])
    made = []
    for chunk in range(chunks):
        heard = samples[chunk * size :][:window][None]
        frames, after = network.encode(heard, state, row, prompt, lookahead)
        advance(state, row, after)
        made.append(frames[0])
    return torch.cat(made)


def against(exact: Sequence[Hypothesis], others: Sequence[Hypothesis]) -> dict[str, Any]:
    """WER of all clips and of each language, and intervals of the differences."""
    (found,) = compare(exact, others, Normaliser.multilingual)
    return {row.group: round(row.other.value, 2) for row in found.groups} | {
        "intervals": {
            row.group: [round(row.difference.low, 2), round(row.difference.high, 2)]
            for row in found.groups
        }
    }


def _different(some: Sequence[Hypothesis], others: Sequence[Hypothesis]) -> int:
    return sum(one.pred_text != other.pred_text for one, other in zip(some, others, strict=True))


def main(
    many: Annotated[
        Path, typer.Option(help="Folder of training/synthesise.py with many clips of set a")
    ] = Path("build/precision"),
    work: Annotated[Path, typer.Option(help="The same, with set b")] = Path("build/training"),
    speech: Annotated[Path, typer.Option(help="Recorded speech with a manifest")] = Path(
        "../shared/speech"
    ),
    sets: Annotated[
        str, typer.Option(help="a: held-out voices; b: another synthesis; c: human digits")
    ] = "abc",
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/precision.json"
    ),
) -> None:
    """Measure and print the table."""
    chosen: dict[str, list[Clip]] = {}
    for name in sets:
        chosen |= load_sets(many if name == "a" else work, speech, name)
    clips = [clip for own in chosen.values() for clip in own]
    figures = {
        "clips": len(clips),
        "alone": len(clips[::ALONE_EVERY]),
        "sets": {name: len(own) for name, own in chosen.items()},
        "precisions": measure(clips),
        "frame_errors": in_fresh_process(frame_errors, clips[::FRAMES_EVERY]),
        "machine": describe(),
    }
    results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(figures))


def table(figures: dict[str, Any]) -> str:
    """In Markdown."""
    exact = figures["precisions"]["fp32"]
    lines = [
        "| precision, mode | "
        + " | ".join(DEMO_LANGUAGES)
        + " | all | all, against fp32 | other texts than fp32 | changed by neighbours |",
        "|---|" + "---|" * (len(DEMO_LANGUAGES) + 4),
    ]
    for precision, modes in figures["precisions"].items():
        for mode, row in modes.items():
            cells = [f"{row[code]:.1f}" for code in DEMO_LANGUAGES]
            difference = ""
            if precision != "fp32":
                cells = [
                    f"{cell} ({row[code] - exact[mode][code]:+.2f})"
                    for cell, code in zip(cells, DEMO_LANGUAGES, strict=True)
                ]
                low, high = row["intervals"]["all"]
                difference = f"{row['all'] - exact[mode]['all']:+.2f} ({low:+.2f} to {high:+.2f})"
            lines.append(
                f"| {precision}, {mode} ms | "
                + " | ".join(cells)
                + f" | {row['all']:.2f} | {difference} "
                f"| {row['other_than_fp32']} | {row['changed_by_neighbours']} |"
            )
    sets = ", ".join(f"{count} {SETS[name]}" for name, count in figures["sets"].items())
    return "\n".join(lines) + (
        f"\n\n{figures['clips']} clips ({sets}); WER in %, `auto`, and in brackets the difference "
        "from fp32; in the brackets of all, where 95 % of resampled sets lie. "
        f"{figures['alone']} of the clips were heard alone, too. "
        "Frames as the decoder gets them are "
        + " and ".join(f"{error:.2g} % ({name})" for name, error in figures["frame_errors"].items())
        + f" off those of fp32. {summary(figures['machine'])}."
    )


if __name__ == "__main__":
    typer.run(main)
