"""Transcripts as text, JSON lines, SubRip and WebVTT, written as they come."""

from __future__ import annotations

import html
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from nemotron_voice.transcript import Transcript, Word

# Two lines of 42 characters and 7 s: the usual bounds of a readable subtitle.
CUE_CHARACTERS = 84
CUE_S = 7.0
SHORTEST_CUE_S = 0.4

SUFFIXES = {"text": ".txt", "json": ".jsonl", "srt": ".srt", "vtt": ".vtt"}


class Writer(ABC):
    """Writes the transcripts of one file."""

    def __init__(self, output: TextIO, path: Path) -> None:
        self._output = output
        self._path = path

    @abstractmethod
    def final(self, transcript: Transcript) -> None:
        """Write text that stays."""

    def interim(self, transcript: Transcript) -> None:  # noqa: B027  (most formats have no place)
        """Write provisional text, where the format has a place for it."""

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


class TextWriter(Writer):
    """A line a sentence."""

    def final(self, transcript: Transcript) -> None:
        """Write a line."""
        self._write(f"{transcript.text}\n")


class JsonWriter(Writer):
    """An object a line: the file, and every field of the Transcript."""

    def final(self, transcript: Transcript) -> None:
        """Write a line."""
        event = {"file": str(self._path), **transcript.to_dict()}
        self._write(json.dumps(event, ensure_ascii=False) + "\n")

    interim = final


class SrtWriter(Writer):
    """SubRip: numbered cues."""

    def __init__(self, output: TextIO, path: Path) -> None:
        super().__init__(output, path)
        self._cues = 0

    def final(self, transcript: Transcript) -> None:
        """Write a cue, or several if it is long."""
        for start, end, text in cues(transcript):
            self._cues += 1
            self._write(f"{self._cues}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n")


class VttWriter(Writer):
    """WebVTT: cues that name their language."""

    def __init__(self, output: TextIO, path: Path) -> None:
        super().__init__(output, path)
        self._write("WEBVTT\n\n")

    def final(self, transcript: Transcript) -> None:
        """Write a cue, or several if it is long."""
        for start, end, text in cues(transcript):
            body = html.escape(text, quote=False)
            if transcript.language is not None:
                body = f"<lang {transcript.language}>{body}</lang>"
            self._write(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{body}\n\n")


WRITERS: dict[str, type[Writer]] = {
    "text": TextWriter,
    "json": JsonWriter,
    "srt": SrtWriter,
    "vtt": VttWriter,
}


def cues(transcript: Transcript) -> Iterator[tuple[float, float, str]]:
    """Start and end in seconds and text of each subtitle of a transcript."""
    first: Word | None = None
    last_end = 0.0
    cue = ""
    at = 0
    for word in transcript.words:
        before = at
        at = transcript.text.index(word.text, before) + len(word.text)
        gap_and_word = transcript.text[before:at]  # spaces are where the text has them
        full = len(cue) + len(gap_and_word) > CUE_CHARACTERS
        if first is not None and (full or word.end - first.start > CUE_S):
            yield first.start, max(last_end, first.start + SHORTEST_CUE_S), cue.strip()
            first, cue = None, ""
        first = first or word
        cue += gap_and_word
        last_end = word.end
    if first is not None:
        yield first.start, max(last_end, first.start + SHORTEST_CUE_S), cue.strip()


def _clock(seconds: float, decimal: str) -> str:
    ms = round(seconds * 1000)
    minutes, ms = divmod(ms, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}{decimal}{ms % 1000:03d}"
