"""What the terminal shows: consoles, language badges, text that turns from interim to final."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from nemotron_voice.transcript import Transcript

PIPE_WIDTH = 120  # of tables where nothing tells a width
_COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")


def out() -> Console:
    """Standard output: results."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    return console


def err() -> Console:
    """Standard error: progress and complaints."""
    return Console(stderr=True, highlight=False)


def complain(message: str) -> None:
    """One red line on standard error."""
    err().print(f"[bold red]error:[/bold red] [red]{escape(message)}[/red]", soft_wrap=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on standard error, where someone can see it."""
    console = err()
    if not console.is_terminal:
        yield
        return
    with console.status(f"[dim]{escape(what)}[/dim]"):
        yield


class Badges:
    """A coloured mark for each language, colours in order of first appearance."""

    def __init__(self) -> None:
        self._colours: dict[str, str] = {}

    def of(self, language: str | None) -> Text:
        """Five columns wide: " es-ES "; dots where the language isn't known yet."""
        if language is None:
            return Text("  ···  ", style="dim")
        if language not in self._colours:
            self._colours[language] = _COLOURS[len(self._colours) % len(_COLOURS)]
        return Text(f" {language} ", style=f"bold black on {self._colours[language]}")


class LiveText:
    """Finals one under the other, and under them the interim, dim, while it changes.

    Where standard output is no terminal, plain lines; interims are marked with "~".
    """

    def __init__(self, console: Console, *, plain_interims: bool = True) -> None:
        self._console = console
        self._badges = Badges()
        self._plain_interims = plain_interims
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def interim(self, transcript: Transcript) -> None:
        """Show provisional text in place of what was provisional before."""
        if self._console.is_terminal:
            self._live.update(self._line(transcript, "dim italic"), refresh=True)
        elif self._plain_interims:
            self._console.print(Text(f"~ {transcript.text}"), soft_wrap=True)

    def final(self, transcript: Transcript, note: str = "") -> None:
        """Show text that stays, with a dim note behind it."""
        if self._console.is_terminal:
            self._live.update(Text(""), refresh=True)
        line = self._line(transcript, "")
        if note:
            line.append(f"  {note}", style="dim")
        self._console.print(line, soft_wrap=not self._console.is_terminal)

    def _line(self, transcript: Transcript, style: str) -> Text:
        line = Text(f"{transcript.start:6.1f} s ", style="dim")
        runs = transcript.languages
        if len(runs) <= 1:
            return Text.assemble(
                line, self._badges.of(transcript.language), " ", (transcript.text, style)
            )
        for run in runs:  # code switching: a badge before each language
            line = Text.assemble(line, self._badges.of(run.language), " ", (run.text, style), " ")
        return line
