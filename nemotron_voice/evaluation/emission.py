"""How long after a word has been spoken its text is there: shown, and final."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jiwer

from nemotron_voice.evaluation.hypotheses import Delays
from nemotron_voice.evaluation.manifest import TimedWord
from nemotron_voice.transcript import Transcript, join_texts


@dataclass(frozen=True, slots=True)
class Event:
    """A transcript and when it came."""

    at_s: float  # seconds since the clip's first sample was spoken
    transcript: Transcript


def delays(
    words: Sequence[TimedWord], events: Sequence[Event], normalise: Callable[[str], str]
) -> Delays:
    """Delays of the words that were heard right.

    The final text is aligned with the reference. A word of it is shown when the text so far, with
    its interim, first has it in its place, and final when the finals alone have.

    Args:
        words: of the reference, with their times.
        events: of a stream in real time, in order.
        normalise: how texts are compared; a word that it takes apart isn't measured.
    """
    if not words or not events:
        return Delays()
    texts = [_Texts.at(event.at_s, events[: n + 1], normalise) for n, event in enumerate(events)]
    spoken = [(normalise(word.text), word.end) for word in words]
    spoken = [(text, end) for text, end in spoken if text and " " not in text]
    if not spoken or not texts[-1].final:
        return Delays()
    heard = texts[-1].final
    shown, final = [], []
    for place, end in _right(spoken, heard):
        first_shown = next(t.at_s for t in texts if t.shown[place : place + 1] == [heard[place]])
        first_final = next(t.at_s for t in texts if len(t.final) > place)
        shown.append(round(1e3 * (first_shown - end), 1))
        final.append(round(1e3 * (first_final - end), 1))
    return Delays(shown=tuple(shown), final=tuple(final))


@dataclass(frozen=True, slots=True)
class _Texts:
    """Words that were there at an instant."""

    at_s: float
    shown: list[str]
    final: list[str]

    @classmethod
    def at(cls, at_s: float, events: Sequence[Event], normalise: Callable[[str], str]) -> _Texts:
        finals = [event.transcript for event in events if event.transcript.is_final]
        last = events[-1].transcript
        interim = [] if last.is_final else [last]
        return cls(
            at_s,
            normalise(join_texts([*finals, *interim])).split(),
            normalise(join_texts(finals)).split(),
        )


def _right(spoken: Sequence[tuple[str, float]], heard: Sequence[str]) -> list[tuple[int, float]]:
    """Places in what was heard, with the end of the reference's word, where both are equal."""
    edits = jiwer.process_words(" ".join(text for text, _ in spoken), " ".join(heard))
    return [
        (chunk.hyp_start_idx + n, spoken[chunk.ref_start_idx + n][1])
        for chunk in edits.alignments[0]
        if chunk.type == "equal"
        for n in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]
