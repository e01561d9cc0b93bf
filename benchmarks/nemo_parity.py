"""Do the engine's network and NeMo make the same tokens of a `.nemo` file, clip for clip?

    python -m benchmarks.nemo_parity build/finetune/hindi/model.nemo test.jsonl --latency-ms 80

Each clip goes through NeMo's `conformer_stream_step` over the whole utterance, and chunk by chunk
through our network: tokens and their frames are compared. Needs the extra `reference`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from nemotron_voice.audio import read_samples
from nemotron_voice.config import lookahead_of
from nemotron_voice.evaluation.manifest import ManifestOptions, read_manifest
from nemotron_voice.languages import AUTO_PROMPT_INDEX
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.network import Network
from tests.model.tiny import stream
from tests.reference import nemo_model
from training.finetune.checkpoint import open_model

SILENCE = np.zeros(16_000, np.float32)  # behind each clip, so that its last chunk is whole


def main(
    model: Annotated[Path, typer.Argument(help=".nemo file")],
    manifest: Annotated[Path, typer.Argument(help="Clips")],
    latency_ms: Annotated[int, typer.Option(help="Mode")] = 80,
    limit: Annotated[int, typer.Option(help="First so many clips")] = 1_000,
    results: Annotated[Path | None, typer.Option(help="Where the figures go")] = None,
) -> None:
    """Compare, and fail if one clip differs."""
    lookahead = lookahead_of(latency_ms)
    theirs = open_model(str(model), Path())
    theirs.eval()
    theirs.preprocessor.featurizer.dither = 0.0
    checkpoint = load_checkpoint(model)
    ours = Network(checkpoint.weights, checkpoint.config)
    clips = read_manifest(manifest, ManifestOptions())[:limit]
    equal = tokens = 0
    for clip in track(clips, "comparing"):
        samples = np.concatenate([read_samples(clip.path), SILENCE])
        frames, emissions = stream(ours, samples, lookahead, AUTO_PROMPT_INDEX)
        mine = [(one.token_id, one.frame) for one in emissions]
        whole = nemo_model.whole(theirs, samples, lookahead, "auto")
        expected = [token for token in whole.tokens if token[1] < len(frames)]
        tokens += len(expected)
        equal += mine == expected
        if mine != expected:
            typer.echo(f"{clip.name}: {mine} against NeMo's {expected}")
    figures = {
        "model": model.parent.name,
        "latency_ms": latency_ms,
        "clips": len(clips),
        "equal": equal,
        "tokens": tokens,
    }
    if results is not None:
        results.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{equal} of {len(clips)} clips ({tokens} tokens) are equal to NeMo's")
    if equal < len(clips):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
