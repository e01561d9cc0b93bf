"""Transcripts as LiveKit's `SpeechData`."""

from __future__ import annotations

import dataclasses
from typing import Any

from livekit.agents import LanguageCode, stt
from livekit.agents.types import TimedString

from nemotron_voice.transcript import Transcript

_FIELDS = {field.name for field in dataclasses.fields(stt.SpeechData)}  # some are younger than 1.5


def speech_data(
    transcript: Transcript, *, offset_s: float = 0.0, last_language: str | None = None
) -> stt.SpeechData:
    """A transcript for the session.

    Args:
        transcript: on the stream's clock.
        offset_s: added to every time: LiveKit's `start_time_offset`.
        last_language: what is said where no language has been detected; LiveKit ignores "".
    """
    said = transcript.shifted(offset_s)
    letters: dict[str, int] = {}
    texts: dict[str, list[str]] = {}
    for run in said.languages:
        if run.language is not None:
            letters[run.language] = letters.get(run.language, 0) + len(run.text)
            texts.setdefault(run.language, []).append(run.text)
    by_prevalence = sorted(letters, key=letters.__getitem__, reverse=True)
    younger: dict[str, Any] = {
        "source_languages": [LanguageCode(language) for language in by_prevalence] or None,
        "source_texts": [" ".join(texts[language]) for language in by_prevalence] or None,
        "metadata": {"language_source": said.language_source, "revision": said.revision},
    }
    return stt.SpeechData(
        language=LanguageCode(said.language or last_language or ""),
        text=said.text,
        start_time=said.words[0].start if said.words else said.start,
        end_time=said.words[-1].end if said.words else said.end,
        confidence=said.confidence or 0.0,
        words=[
            TimedString(
                word.text,
                start_time=word.start,
                end_time=word.end,
                confidence=word.confidence,
                start_time_offset=offset_s,
            )
            for word in said.words
        ]
        or None,
        **{name: value for name, value in younger.items() if name in _FIELDS},
    )
