"""Options that several commands share, and what tells that an extra is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer

from nemotron_voice.errors import ConfigurationError

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="[bold]demo[/bold] (bundled, closed vocabulary), a folder, a .nemo file, or a "
        "Hugging Face id.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.")
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        help="auto (bf16 on a GPU; on a CPU int8 for large models, fp32 for the demo), fp32, bf16 "
        "or int8."
    ),
]


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Imports that an extra of this package brings; without it, says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is missing; pip install 'nemotron-voice[{extra}]'"
        ) from error


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """An option's numbers, which stand between commas.

    Raises:
        ConfigurationError: it has others, or none.
    """
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise ConfigurationError(
            f"{option} {text!r} is not a list of whole numbers; write it as in {option} 80,320"
        )
    return numbers
