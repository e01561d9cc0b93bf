"""What `--offline` shows: the caller's words as they come, the bot's answers, and a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
from pipecat.frames.frames import (
    InterimTranscriptionFrame,
    LLMContextFrame,
    TranscriptionFrame,
    TTSUpdateSettingsFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.processors.aggregators.llm_response_universal import LLMUserAggregator
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import TTSSettings
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nemotron_voice.cli.demo import Turn
from nemotron_voice.cli.screen import LiveText
from nemotron_voice.language_switch import language_name
from nemotron_voice.transcript import Transcript


@dataclass(slots=True)
class HeardTurn:
    """What reached the bot of one turn of the script; without a script, of one user turn."""

    language: str | None  # by the script
    finals: list[Transcript] = field(default_factory=list)  # those that came finalized
    final_ms: list[float] = field(default_factory=list)  # each, after the VAD's stop
    llm_ms: list[float] = field(default_factory=list)  # the LLM's context, after the VAD's stop

    @property
    def right_language(self) -> bool:
        """Whether most words were heard in the script's language."""
        longest = max(self.finals, key=lambda final: len(final.words), default=None)
        return longest is not None and longest.language == self.language


class CallScreen(BaseObserver):
    """Watches the pipeline's frames; times are of the pipeline's clock, when each was pushed."""

    def __init__(
        self, console: Console, turns: Sequence[Turn], current_turn: Callable[[], int]
    ) -> None:
        super().__init__(observe_every_push=False)
        self._console = console
        self._live = LiveText(console, plain_interims=False)
        self._has_script = bool(turns)
        self._current_turn = current_turn
        self._stopped_ns: int | None = None
        self.heard = [HeardTurn(turn.language) for turn in turns] or [HeardTurn(None)]

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    async def on_push_frame(self, data: FramePushed) -> None:
        """Show a frame that the user would notice."""
        frame = data.frame
        if data.direction is not FrameDirection.DOWNSTREAM:
            return
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            self._stopped_ns = data.timestamp
        elif isinstance(frame, InterimTranscriptionFrame):
            if isinstance(frame.result, Transcript):
                self._live.interim(frame.result)
        elif isinstance(frame, TranscriptionFrame):
            if isinstance(frame.result, Transcript):
                self._final(frame.result, data.timestamp, finalized=frame.finalized)
        elif isinstance(frame, TTSUpdateSettingsFrame) and isinstance(frame.delta, TTSSettings):
            language = language_name(str(frame.delta.language))
            self._print("switch", f"to {language}, voice {frame.delta.voice}", "bold yellow")
        elif isinstance(frame, LLMContextFrame) and isinstance(data.source, LLMUserAggregator):
            self._turn_over(data.timestamp)

    def bot_says(self, text: str, language: str, voice: str) -> None:
        """The TTS begins a sentence."""
        self._print("bot", f"{text}  [{language}, {voice}]", "green")

    def _final(self, transcript: Transcript, moment_ns: int, *, finalized: bool) -> None:
        note = ""
        if finalized and self._stopped_ns is not None:
            turn = self._turn()
            turn.finals.append(transcript)
            turn.final_ms.append((moment_ns - self._stopped_ns) / 1e6)
            note = f"final {turn.final_ms[-1]:.0f} ms after VAD stop"
        self._live.final(transcript, note)

    def _turn_over(self, moment_ns: int) -> None:
        if self._stopped_ns is not None:
            turn = self._turn()
            turn.llm_ms.append((moment_ns - self._stopped_ns) / 1e6)
            self._print("turn", f"LLM asked {turn.llm_ms[-1]:.0f} ms after VAD stop", "dim")
        if not self._has_script:
            self.heard.append(HeardTurn(None))

    def _turn(self) -> HeardTurn:
        return self.heard[self._current_turn() if self._has_script else -1]

    def _print(self, kind: str, text: str, style: str) -> None:
        line = Text.assemble((f"{kind:>16} ", "dim"), (text, style))
        self._console.print(line, soft_wrap=not self._console.is_terminal)


class CallTable:
    """Sums up, a row for each call."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, list[HeardTurn], bool]] = []

    def add(self, title: str, heard: Sequence[HeardTurn], *, has_script: bool) -> None:
        """Take a call."""
        turns = [turn for turn in heard if has_script or turn.finals]
        self._rows.append((title, turns, has_script))

    def render(self) -> Table:
        """For rich to print."""
        table = Table(
            title="What reached the bot",
            caption="Final and LLM context: milliseconds after the VAD's stop, which itself comes "
            "200 ms after the last sound. Bundled model and synthetic calls: a demonstration, not "
            "Nemotron's quality.",
        )
        table.add_column("call")
        for heading in (
            "turns",
            "finalized",
            "right language",
            "final p50",
            "p95",
            "LLM context p50",
            "p95",
        ):
            table.add_column(heading, justify="right")
        for title, turns, has_script in self._rows:
            table.add_row(title, *_cells(turns, has_script=has_script))
        if len(self._rows) > 1:
            every = [turn for _, turns, _ in self._rows for turn in turns]
            table.add_section()
            table.add_row("all", *_cells(every, has_script=True), style="bold")
        return table


def _cells(turns: Sequence[HeardTurn], *, has_script: bool) -> list[str]:
    right = f"{sum(turn.right_language for turn in turns)}/{len(turns)}" if has_script else "-"
    return [
        str(len(turns)),
        f"{sum(bool(turn.finals) for turn in turns)}/{len(turns)}",
        right,
        *_percentiles([ms for turn in turns for ms in turn.final_ms]),
        *_percentiles([ms for turn in turns for ms in turn.llm_ms]),
    ]


def _percentiles(values: Sequence[float]) -> list[str]:
    if not values:
        return ["-", "-"]
    return [f"{value:.0f} ms" for value in np.percentile(values, [50, 95])]
