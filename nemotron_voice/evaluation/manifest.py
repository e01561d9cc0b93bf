"""Clips with a known text, from a NeMo-style manifest; everything wrong with it is found first.

A manifest is JSON lines with `audio_filepath` (relative to the manifest's folder), `text`,
`duration` in seconds and `target_lang`; besides, all optional, `offset` (seconds: the clip is a
part of its file), `id`, and `words` with `word`, `start` and `end`, from which delays are measured.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nemotron_voice import languages
from nemotron_voice.audio import AudioFile
from nemotron_voice.errors import AudioError, ConfigurationError

LANGUAGE_FIELDS: Final = ("target_lang", "language", "lang", "locale")  # the first is NeMo's
_TAG: Final = re.compile(r"\s*<([a-z]{2,3}-[A-Z]{2})>")  # of text made for training
_TOLERANCE_S: Final = 0.1  # a manifest's duration is rounded, and encoders pad
_RUNS_SHOWN: Final = 10  # runs of lines that a problem names
_SHOWN: Final = 100  # problems that a message lists; the others are counted


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word of the reference and when it is spoken."""

    text: str
    start: float  # seconds of the clip
    end: float


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance and what is said in it."""

    name: str  # the row's id, or its path as the manifest has it
    path: Path
    text: str
    duration_s: float
    offset_s: float | None  # where the clip begins in its file; None: it is the whole file
    locale: str | None  # of the 40; None where nobody says
    regional: bool  # the row says a region and the model has it; else its language counts alone
    words: tuple[TimedWord, ...]
    row: Mapping[str, Any]  # all of the manifest's line


class ManifestError(ConfigurationError):
    """A manifest that can't be used.

    Attributes:
        problems: every one of them, each with its lines.
    """

    def __init__(self, manifest: Path, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(problems) - _SHOWN
        listed = [*problems[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        super().__init__("\n  ".join([f"{manifest} has {count}; nothing was run:", *listed]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOptions:
    """What is taken from a manifest, and what it must have."""

    where: Mapping[str, Collection[str]] = field(default_factory=dict)  # field -> values to keep
    locale: str | None = None  # of rows that name none
    supported: Collection[str] | None = None  # locales of the model; None: all 40
    needs_locale: bool = False  # every row must name one, as it is forced
    normalise: Callable[[str, str | None], str] | None = None  # text, locale: what is compared


def read_manifest(
    manifest: Path,
    options: ManifestOptions | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Clip]:
    """Read and check a whole manifest; no audio is decoded where headers tell.

    Args:
        manifest: JSON lines.
        options: what is taken.
        progress: told how many rows are checked, of how many.

    Raises:
        ManifestError: with all problems of all rows: no JSON, a missing or unreadable file, no
            audio in it, several channels, another duration than promised, no text, an unknown
            locale, two rows of one name.
    """
    options = options or ManifestOptions()
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the manifest {manifest} can't be read: {error}") from error
    clips: list[Clip] = []
    wrong: dict[str, list[int]] = {}  # a problem, the lines that have it
    for number, line in enumerate(lines, 1):
        progress(number, len(lines))
        if not line.strip():
            continue
        try:
            row = _parse(line)
            if not _wanted(row, options.where):
                continue
            check = _Check(manifest.parent, options)
            clip = check.clip(row)
            found = check.problems
        except _UnusableError as error:
            clip, found = None, [str(error)]
        for problem in found:
            wrong.setdefault(problem, []).append(number)
        if clip is not None:
            clips.append(clip)
    names = Counter(clip.name for clip in clips)
    problems = [f"{_lines(numbers)}: {problem}" for problem, numbers in wrong.items()]
    problems += [f"{count} rows are named {name}" for name, count in names.items() if count > 1]
    if not clips and not problems:
        chosen = " that --where keeps" if options.where else ""
        problems = [f"it has no row{chosen}"]
    if problems:
        raise ManifestError(manifest, problems)
    return clips


def _lines(numbers: Sequence[int]) -> str:
    """As in `lines 3, 5-9 (6 rows)`; the numbers rise."""
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    shown = ["-".join(map(str, run)) for run in runs[:_RUNS_SHOWN]]
    more = [f"and {len(runs) - _RUNS_SHOWN} more places"] if len(runs) > _RUNS_SHOWN else []
    return f"lines {', '.join([*shown, *more])} ({len(numbers)} rows)"


class _UnusableError(Exception):
    """A row of which nothing can be said but this."""


def _parse(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _UnusableError(f"no JSON ({error})") from error
    if not isinstance(row, dict):
        raise _UnusableError("no JSON object")
    return row


def _wanted(row: Mapping[str, Any], where: Mapping[str, Collection[str]]) -> bool:
    return all(str(row.get(name)) in values for name, values in where.items())


class _Check:
    """One row's way to a clip; what is wrong with it is collected."""

    def __init__(self, folder: Path, options: ManifestOptions) -> None:
        self._folder = folder
        self._options = options
        self.problems: list[str] = []

    def clip(self, row: Mapping[str, Any]) -> Clip | None:
        named = row.get("audio_filepath")
        if not isinstance(named, str) or not named:
            raise _UnusableError('no "audio_filepath"')
        text, tags = _without_tags(row.get("text"))
        locale, regional = self._locale(row, tags)
        self._check_text(text, locale)
        path = self._folder / named  # an absolute path stays what it is
        duration_s = self._check_audio(path, row)
        words = self._words(row)
        if self.problems:
            return None
        return Clip(
            name=str(row.get("id", named)),
            path=path,
            text=text,
            duration_s=duration_s,
            offset_s=row.get("offset"),
            locale=locale,
            regional=regional,
            words=words,
            row=row,
        )

    def _check_text(self, text: str, locale: str | None) -> None:
        if not text:
            self.problems.append('no "text"')
        elif self._options.normalise and not self._options.normalise(text, locale).strip():
            self.problems.append(f"nothing is left of the text {text!r} when it is normalised")

    def _locale(self, row: Mapping[str, Any], tags: Sequence[str]) -> tuple[str | None, bool]:
        """The locale, and whether its region is meant."""
        said = next((row[name] for name in LANGUAGE_FIELDS if row.get(name)), None)
        said = said or (tags[0] if tags else self._options.locale)
        if said is None or said == languages.AUTO:
            if self._options.needs_locale:
                self.problems.append(
                    'no "target_lang", and the language is to be forced; add --locale LOCALE'
                )
            return None, False
        try:
            return supported_locale(said, self._options.supported)
        except ConfigurationError as error:
            leave = "" if self._options.supported is None else "; --where leaves rows out"
            self.problems.append(f"{error}{leave}")
            return None, False

    def _check_audio(self, path: Path, row: Mapping[str, Any]) -> float:
        """Seconds of the clip."""
        try:
            audio = AudioFile(path)
            whole_s = audio.duration_s
            if whole_s is None:  # the header doesn't say
                whole_s = sum(block.size for block in audio) / audio.sample_rate
        except AudioError as error:
            self.problems.append(str(error))
            return 0.0
        if whole_s == 0:
            self.problems.append(f"{path} holds no audio samples")
        if audio.channels != 1:
            self.problems.append(
                f"{path} has {audio.channels} channels; give one of them "
                "(ffmpeg -i FILE -af 'pan=mono|c0=c0' left.wav), as they may be different speakers"
            )
        return self._check_duration(path, row, whole_s)

    def _check_duration(self, path: Path, row: Mapping[str, Any], whole_s: float) -> float:
        promised, offset = row.get("duration"), row.get("offset")
        for name, value in (("duration", promised), ("offset", offset)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and (not number or not 0 <= value < float("inf")):
                self.problems.append(f'"{name}" is {value!r}, no number of seconds')
                return whole_s
        if offset is not None:
            end_s = whole_s if promised is None else offset + promised
            if end_s > whole_s + _TOLERANCE_S or offset >= whole_s:
                self.problems.append(f"the clip ends at {end_s:.2f} s, {path} at {whole_s:.2f} s")
            return float(end_s - offset)
        if promised is not None and abs(promised - whole_s) > _TOLERANCE_S:
            self.problems.append(
                f'"duration" is {promised:.2f} s, but {path} has {whole_s:.2f} s; '
                'add "offset" if only a part is meant'
            )
        return whole_s

    def _words(self, row: Mapping[str, Any]) -> tuple[TimedWord, ...]:
        try:
            words = tuple(
                TimedWord(str(word["word"]), float(word["start"]), float(word["end"]))
                for word in row.get("words") or ()
            )
        except (TypeError, KeyError, ValueError):
            self.problems.append('"words" is no list of {"word", "start", "end"}')
            return ()
        return words


def _without_tags(text: object) -> tuple[str, list[str]]:
    """A text without the language tags that training puts in, and the tags."""
    if not isinstance(text, str):
        return "", []
    return _TAG.sub("", text).strip(), _TAG.findall(text)


def supported_locale(name: object, supported: Collection[str] | None) -> tuple[str, bool]:
    """The model's locale for a name, and whether the name's own region is that one.

    A region that the model hasn't is the same language elsewhere: what counts is the language.

    Raises:
        ConfigurationError: the model hasn't the language.
    """
    code = languages.nearest(name)
    regional = languages.names_region(name)
    if supported is None or code in supported:
        return code, regional
    try:
        return languages.resolve(languages.BY_CODE[code].language, supported), False
    except ConfigurationError:
        return languages.resolve(name, supported), regional  # raises what is wrong with the name
