"""Many files through one engine: several at a time, written in the order they were named."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from nemotron_voice.audio import duration_of, read_file
from nemotron_voice.captions import SUFFIXES, WRITERS, Writer
from nemotron_voice.cli import screen
from nemotron_voice.config import StreamOptions
from nemotron_voice.errors import AudioError, ConfigurationError
from nemotron_voice.hear import hear
from nemotron_voice.transcript import Transcript

if TYPE_CHECKING:
    from nemotron_voice.recognizer import Recognizer

AT_ONCE = 8  # files streamed side by side: they share batches

# What a file's task hands over: its transcripts, then what went wrong or None.
Item = Transcript | Exception | None


@dataclass(frozen=True, slots=True)
class Job:
    """What the command line asked for."""

    files: Sequence[Path]
    options: StreamOptions
    output_format: str
    realtime: bool
    output_dir: Path | None

    def __post_init__(self) -> None:
        """Refuse two files that would be written to the same place.

        Raises:
            ConfigurationError.
        """
        if self.output_dir is None:
            return
        sources: dict[Path, Path] = {}
        for path in self.files:
            target = self.target(path, self.output_dir)
            if target in sources:
                raise ConfigurationError(
                    f"{sources[target]} and {path} would both be written to {target}; rename one, "
                    "or transcribe them in two runs with an --output-dir each"
                )
            sources[target] = path

    def target(self, path: Path, folder: Path) -> Path:
        """Where in the output folder a file's transcripts go."""
        return folder / (path.name + SUFFIXES[self.output_format])


async def run(recognizer: Recognizer, job: Job) -> int:
    """Transcribe all files; one that can't be read is named and doesn't stop the others.

    Returns:
        How many files failed.
    """
    at_once = asyncio.Semaphore(1 if job.realtime else AT_ONCE)
    lines: list[asyncio.Queue[Item]] = [asyncio.Queue() for _ in job.files]
    failures = 0
    with _progress(job) as advance:

        async def listen(path: Path, line: asyncio.Queue[Item]) -> None:
            async with at_once:
                try:
                    audio = read_file(path)
                    await hear(
                        recognizer.open(job.options, sample_rate=audio.sample_rate),
                        audio,
                        realtime=job.realtime,
                        on_transcript=line.put_nowait,
                        on_progress=lambda seconds: advance(path, seconds),
                    )
                except Exception as error:
                    line.put_nowait(error)
                    raise
                line.put_nowait(None)

        tasks = [
            asyncio.create_task(listen(path, line))
            for path, line in zip(job.files, lines, strict=True)
        ]
        try:
            for path, line in zip(job.files, lines, strict=True):
                failures += await _write(path, line, job)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return failures


async def _write(path: Path, line: asyncio.Queue[Item], job: Job) -> int:
    """Write one file's transcripts as they come; returns 1 if it can't be read to its end."""
    with _writer(path, job) as (interim, final):
        while isinstance(item := await line.get(), Transcript):
            if not item.is_final:
                interim(item)
            elif item.text:
                final(item)
    if item is None:
        return 0
    if not isinstance(item, AudioError):
        raise item
    screen.complain(str(item))
    return 1


Show = Callable[[Transcript], None]


@contextlib.contextmanager
def _writer(path: Path, job: Job) -> Iterator[tuple[Show, Show]]:
    """Where one file's interims and finals go."""
    if job.output_dir is not None:
        job.output_dir.mkdir(parents=True, exist_ok=True)
        with job.target(path, job.output_dir).open("w", encoding="utf-8") as output:
            writer = WRITERS[job.output_format](output, path)
            yield writer.interim, writer.final
        return
    console = screen.out()
    if job.output_format == "text" and len(job.files) > 1:
        console.print(f"== {path}", style="bold", markup=False, soft_wrap=True)
    if job.output_format == "text" and job.realtime:
        with screen.LiveText(console) as live:
            yield live.interim, live.final
        return
    stdout_writer: Writer = WRITERS[job.output_format](sys.stdout, path)
    yield stdout_writer.interim, stdout_writer.final


@contextlib.contextmanager
def _progress(job: Job) -> Iterator[Callable[[Path, float], None]]:
    """A bar on standard error, in seconds of audio, unless the text itself shows progress."""
    console = screen.err()
    to_terminal = job.output_dir is None and screen.out().is_terminal
    if not console.is_terminal or (job.realtime and to_terminal):
        yield lambda _path, _seconds: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} s of audio"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        known = [seconds for path in job.files if (seconds := _duration(path)) is not None]
        task = bar.add_task("transcribing", total=sum(known) or None)
        done: dict[Path, float] = {}

        def advance(path: Path, seconds: float) -> None:
            done[path] = seconds
            bar.update(task, completed=sum(done.values()))

        yield advance


def _duration(path: Path) -> float | None:
    try:
        return duration_of(path)
    except AudioError:
        return None  # reported when its turn comes
