"""A Hugging Face dataset as a manifest to train on: `python -m training.finetune.fetch --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from nemotron_voice.evaluation.hub import DatasetSpec, prepare


def main(
    name: Annotated[str, typer.Argument(help="google/fleurs, or a folder that `datasets` loads")],
    config: Annotated[str | None, typer.Option(help="el_gr")] = None,
    split: Annotated[str, typer.Option(help="train, validation, test")] = "train",
    text_column: Annotated[
        str | None, typer.Option(help="With case and punctuation, which the model learns too")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit")] = None,
    limit: Annotated[int | None, typer.Option(help="First so many clips", min=1)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: the user's cache")
    ] = None,
) -> None:
    """Download once, and say where the manifest is."""
    spec = DatasetSpec(
        name=name,
        config=config,
        split=split,
        text_column=text_column,
        revision=revision,
        limit=limit,
    )
    with Progress() as progress:
        task = progress.add_task("writing clips", total=None)
        path = prepare(
            spec,
            lambda done, total: progress.update(task, completed=done, total=total),
            folder=output,
        )
    typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
