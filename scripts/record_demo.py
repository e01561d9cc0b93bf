"""Record the README's picture: `python scripts/record_demo.py docs/demo.svg`.

Plays the first bundled calls at the speed of speech, as `nemotron-voice demo` does, into a
recording console: the finals, not the interims that came before them. Nothing is drawn by hand.
"""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

from rich.console import Console

from nemotron_voice import Engine, StreamOptions
from nemotron_voice.cli import demo, screen

CALLS = 2


def main(picture: Path) -> None:
    """Play and write the picture."""
    console = Console(
        record=True, force_terminal=False, width=104, file=io.StringIO(), color_system="truecolor"
    )
    screen.out = lambda: console
    with Engine.load("demo") as engine:
        asyncio.run(demo.play(engine, demo.bundled_calls()[:CALLS], StreamOptions(), fast=False))
    console.save_svg(str(picture), title="nemotron-voice demo")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
