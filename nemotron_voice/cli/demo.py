"""The bundled calls through the streaming engine, as a voice agent would hear them."""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import median

import numpy as np
from rich.table import Table
from rich.text import Text

from nemotron_voice.audio import read_file
from nemotron_voice.cli import screen
from nemotron_voice.config import StreamOptions
from nemotron_voice.errors import ModelNotFoundError
from nemotron_voice.hear import PACKET_MS, packets, sleep_until
from nemotron_voice.recognizer import Recognizer, RecognizerStream
from nemotron_voice.resampler import Samples
from nemotron_voice.transcript import Transcript

# What a voice activity detector waits for before it says that the caller has stopped (Pipecat's
# and LiveKit's defaults are 200 ms and more); the demo flushes that long after each turn.
ENDPOINT_S = 0.2


@dataclass(frozen=True, slots=True)
class Turn:
    """What the caller says between two of the agent's answers."""

    start: float  # seconds into the call
    end: float  # the caller stops
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A recorded call and its script."""

    audio: Path
    title: str
    turns: tuple[Turn, ...]


@dataclass(slots=True)
class Score:
    """What was heard against the script."""

    errors: int = 0
    words: int = 0
    turns: int = 0
    right_language: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def add(self, other: Score) -> None:
        """Sum up."""
        self.errors += other.errors
        self.words += other.words
        self.turns += other.turns
        self.right_language += other.right_language
        self.latencies_ms += other.latencies_ms


def bundled_calls() -> list[Call]:
    """The calls that come with the package.

    Raises:
        ModelNotFoundError: the package was built without them.
    """
    folder = Path(str(files("nemotron_voice"))) / "demo" / "calls"
    if not (folder / "calls.jsonl").is_file():
        raise ModelNotFoundError(
            f"{folder / 'calls.jsonl'} is missing: this copy of the package was built without the "
            "demo calls; install nemotron-voice from its wheel"
        )
    return read_calls(folder)


def read_calls(folder: Path) -> list[Call]:
    """Calls by their `calls.jsonl`, one a line.

    Each has audio (a file beside it), title, and turns with start, end (seconds), language, text.
    """
    calls = []
    for line in (folder / "calls.jsonl").read_text(encoding="utf-8").splitlines():
        call = json.loads(line)
        turns = tuple(Turn(**turn) for turn in call["turns"])
        calls.append(Call(folder / call["audio"], call["title"], turns))
    return calls


async def play(
    recognizer: Recognizer, calls: Sequence[Call], options: StreamOptions, *, fast: bool
) -> None:
    """Play every call and print what was heard, then a table against the scripts."""
    console = screen.out()
    scores = []
    for number, call in enumerate(calls, 1):
        console.print()
        console.print(Text(f"Call {number} of {len(calls)}: {call.title}", style="bold"))
        with screen.LiveText(console, plain_interims=False) as live:
            scores.append(await _play_call(recognizer, call, options, live, fast=fast))
    console.print()
    console.print(_table(calls, scores, options, fast=fast))


async def _play_call(
    recognizer: Recognizer,
    call: Call,
    options: StreamOptions,
    live: screen.LiveText,
    *,
    fast: bool,
) -> Score:
    audio = read_file(call.audio)
    samples = np.concatenate(list(audio))
    stream = recognizer.open(options, sample_rate=audio.sample_rate)
    player = _Player(stream, samples, audio.sample_rate, paced=not fast)

    async def show_interims() -> None:
        async for transcript in stream:
            if not transcript.is_final:
                live.interim(transcript)

    interims = asyncio.create_task(show_interims())
    score = Score()
    try:
        for turn in call.turns:
            await player.until(turn.end + ENDPOINT_S)
            asked = player.now()
            heard = await stream.flush()
            latency_ms = 1000 * (player.now() - asked)
            live.final(heard, f"{latency_ms:.0f} ms")
            score.add(score_turn(turn, heard, latency_ms))
        await player.until(samples.size / audio.sample_rate)
        rest = await stream.finish()
        if rest.text:
            live.final(rest)
            score.errors += len(plain_words(rest.text))
        await interims
    finally:
        interims.cancel()
        await stream.aclose()
    return score


class _Player:
    """Gives a call's audio to a stream, at the speed of speech or as fast as it is heard."""

    def __init__(
        self, stream: RecognizerStream, samples: Samples, sample_rate: int, *, paced: bool
    ) -> None:
        self._stream = stream
        self._samples = samples
        self._rate = sample_rate
        self._paced = paced
        self._given = 0
        self._began = self.now()

    def now(self) -> float:
        """The event loop's clock."""
        return asyncio.get_running_loop().time()

    async def until(self, moment: float) -> None:
        """Give the audio up to `moment`, in seconds into the call."""
        end = min(round(moment * self._rate), self._samples.size)
        for packet in packets([self._samples[self._given : end]], self._rate * PACKET_MS // 1000):
            self._given += packet.size
            if self._paced:
                await sleep_until(self._began + self._given / self._rate)
            else:
                await self._stream.drained()
            self._stream.push(packet)


def score_turn(turn: Turn, heard: Transcript, latency_ms: float) -> Score:
    """One turn against its script."""
    reference = plain_words(turn.text)
    return Score(
        errors=word_errors(reference, plain_words(heard.text)),
        words=len(reference),
        turns=1,
        right_language=int(heard.language == turn.language),
        latencies_ms=[latency_ms],
    )


def plain_words(text: str) -> list[str]:
    """Words without case and punctuation; an apostrophe parts nothing."""
    letters = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*'?", letters)


def word_errors(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, insertions and deletions from one to the other, as few as can be."""
    row = list(range(len(heard) + 1))
    for place, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(heard, 1):
            cheapest = min(diagonal + (word != other), row[column] + 1, row[column - 1] + 1)
            diagonal, row[column] = row[column], cheapest
    return row[-1]


def _table(
    calls: Sequence[Call], scores: Sequence[Score], options: StreamOptions, *, fast: bool
) -> Table:
    pace = "as fast as the machine can" if fast else "at the speed of speech"
    table = Table(
        title="Heard against the script",
        caption=f"{options.latency_ms} ms mode, language auto, played {pace}. Final after: from "
        f"the flush, {1000 * ENDPOINT_S:.0f} ms after the caller stops by the script, to the "
        "final text. Synthetic calls and a small model of a closed domain: a demonstration, not "
        "Nemotron's quality.",
    )
    table.add_column("call")
    for heading in ("turns", "words", "WER", "right language", "final after (median)"):
        table.add_column(heading, justify="right")
    total = Score()
    for call, score in zip(calls, scores, strict=True):
        table.add_row(call.title, *_cells(score))
        total.add(score)
    table.add_section()
    table.add_row("all", *_cells(total), style="bold")
    return table


def _cells(score: Score) -> list[str]:
    return [
        str(score.turns),
        str(score.words),
        f"{100 * score.errors / max(score.words, 1):.1f} %",
        f"{score.right_language}/{score.turns}",
        f"{median(score.latencies_ms):.0f} ms" if score.latencies_ms else "-",
    ]
