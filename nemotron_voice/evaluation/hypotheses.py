"""What was heard, a JSON line for each clip and latency: kept, read again, compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation.normalisation import Normaliser
from nemotron_voice.evaluation.scoring import Errors, count_errors


@dataclass(frozen=True, slots=True)
class Piece:
    """One final transcript."""

    text: str
    start: float  # seconds of the clip
    end: float
    language: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Milliseconds from the end of each word that was heard right until its text was there."""

    shown: tuple[float, ...] = ()  # first as interim or final
    final: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """What was heard of one clip in one latency mode. Field names of a line are NeMo's."""

    id: str
    audio_filepath: str
    duration: float  # seconds
    text: str  # what was said
    target_lang: str | None  # locale in which it was said
    regional: bool  # its region counts too
    latency_ms: int
    prompt: str  # "auto", or the locale that was forced
    pred_text: str  # what was heard
    pred_lang: str | None
    finals: tuple[Piece, ...] = ()
    delays: Delays = field(default_factory=Delays)
    answer_ms: float | None = None  # in real time: from the clip's end to its last final
    error: str | None = None  # why the clip couldn't be heard to its end
    row: Mapping[str, Any] = field(default_factory=dict)  # the manifest's other fields

    def errors(self, normaliser: Normaliser) -> Errors:
        """Against what was said."""
        return count_errors(self.text, self.pred_text, self.target_lang, normaliser)

    @property
    def right_language(self) -> bool | None:
        """Whether the detected language is the clip's; None where it was forced or isn't known."""
        if self.prompt != "auto" or self.target_lang is None:
            return None
        if self.regional or self.pred_lang is None:
            return self.pred_lang == self.target_lang
        return self.pred_lang.partition("-")[0] == self.target_lang.partition("-")[0]


def write(hypotheses: Iterable[Hypothesis], path: Path) -> None:
    """A line for each."""
    with path.open("w", encoding="utf-8") as file:
        for one in hypotheses:
            file.write(as_line(one))


def as_line(hypothesis: Hypothesis) -> str:
    """JSON, the manifest's own fields beside ours."""
    own = asdict(hypothesis)
    others = own.pop("row")
    return json.dumps({**others, **own}, ensure_ascii=False) + "\n"


def read(path: Path) -> list[Hypothesis]:
    """Read what `write` wrote, or another tool's lines of the same fields.

    Raises:
        ConfigurationError: a line isn't that.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} can't be read: {error}") from error
    hypotheses = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            hypotheses.append(_hypothesis(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{path}, line {number} is no hypothesis of `nemotron-voice evaluate` ({error!r})"
            ) from error
    if not hypotheses:
        raise ConfigurationError(f"{path} has no hypothesis")
    return hypotheses


def _hypothesis(line: dict[str, Any]) -> Hypothesis:
    names = Hypothesis.__dataclass_fields__.keys() - {"row"}
    own = {name: line[name] for name in names if name in line}
    own["finals"] = tuple(Piece(**piece) for piece in line.get("finals", ()))
    delays = line.get("delays", {})
    own["delays"] = Delays(**{name: tuple(values) for name, values in delays.items()})
    rest = {name: value for name, value in line.items() if name not in names}
    return Hypothesis(**own, row=rest)
