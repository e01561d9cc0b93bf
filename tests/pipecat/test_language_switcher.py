"""NemotronLanguageSwitcher between STT and aggregator: what goes ahead of a final."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("pipecat")

from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    LLMMessagesAppendFrame,
    TranscriptionFrame,
    TTSUpdateSettingsFrame,
    UserMuteStartedFrame,
    UserMuteStoppedFrame,
)
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.transcriptions.language import Language

from nemotron_voice import languages
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.language_switch import LanguageChange
from nemotron_voice.pipecat import NemotronLanguageSwitcher
from tests.scripted_recognizer import transcript

BOTH = [Language.EN_US, Language.ES_US]


def says(text: str, language: str) -> TranscriptionFrame:
    return TranscriptionFrame(
        text, "", "now", result=transcript(text, final=True, language=language)
    )


async def heard(switcher: NemotronLanguageSwitcher, frames: Sequence[Frame]) -> list[Frame]:
    down, _ = await run_test(switcher, frames_to_send=frames)
    return [frame for frame in down if not isinstance(frame, UserMuteStartedFrame)]


async def test_settings_and_instruction_go_ahead_of_the_final() -> None:
    switcher = NemotronLanguageSwitcher(languages=BOTH, voices={Language.ES_US: "carmen"})
    changes: list[LanguageChange] = []

    @switcher.event_handler("on_language_switched")
    async def on_language_switched(_: Any, change: LanguageChange) -> None:
        changes.append(change)

    settings, instruction, final = await heard(switcher, [says("Quiero una mesa.", "es-ES")])
    assert isinstance(settings, TTSUpdateSettingsFrame)
    assert (settings.delta.language, settings.delta.voice) == (Language.ES_US, "carmen")
    assert isinstance(instruction, LLMMessagesAppendFrame)
    assert "Spanish" in instruction.messages[0]["content"]
    assert not instruction.run_llm
    assert not instruction.interruptible
    assert isinstance(final, TranscriptionFrame)
    assert [(change.before, change.after) for change in changes] == [("en-US", "es-US")]
    assert switcher.current_language is Language.ES_US


async def test_the_same_language_and_interims_pass_untouched() -> None:
    interim = InterimTranscriptionFrame(
        "Quiero", "", "now", result=transcript("Quiero una mesa", language="es-ES")
    )
    frames = [says("A table, please.", "en-US"), SleepFrame(0.05), interim]
    out = await heard(NemotronLanguageSwitcher(languages=BOTH), frames)
    assert [type(frame) for frame in out] == [TranscriptionFrame, InterimTranscriptionFrame]


async def test_tts_and_instruction_are_optional() -> None:
    switcher = NemotronLanguageSwitcher(languages=BOTH, tts=False, instruction=None)
    out = await heard(switcher, [says("Quiero una mesa.", "es-ES")])
    assert [type(frame) for frame in out] == [TranscriptionFrame]
    assert switcher.current_language is Language.ES_US


async def test_a_language_that_the_bot_lacks_is_told_and_nothing_is_switched() -> None:
    switcher = NemotronLanguageSwitcher(languages=BOTH)
    told: list[LanguageChange] = []

    @switcher.event_handler("on_language_not_spoken")
    async def on_language_not_spoken(_: Any, change: LanguageChange) -> None:
        told.append(change)

    out = await heard(switcher, [says("Ich möchte einen Tisch.", "de-DE")])
    assert [type(frame) for frame in out] == [TranscriptionFrame]
    assert [change.detected for change in told] == ["de-DE"]


async def test_what_a_muted_user_says_switches_nothing() -> None:
    switcher = NemotronLanguageSwitcher(languages=BOTH)
    frames = [
        UserMuteStartedFrame(),
        says("Quiero una mesa.", "es-ES"),
        SleepFrame(0.05),
        UserMuteStoppedFrame(),
    ]
    out = await heard(switcher, frames)
    assert not [frame for frame in out if isinstance(frame, TTSUpdateSettingsFrame)]


def test_a_voice_for_a_language_that_isn_t_spoken_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="fr-FR"):
        NemotronLanguageSwitcher(languages=BOTH, voices={"fr-FR": "amelie"})


async def test_a_fine_tuned_model_s_language_that_pipecat_lacks_is_told_as_its_locale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("BY_CODE", "_EXACT", "_LANGUAGES", "_TAGS"):  # what `add` does is undone
        monkeypatch.setattr(languages, name, dict(getattr(languages, name)))
    slot = languages.free_slot("rw-RW")
    languages.add(
        languages.Locale(
            "rw-RW", "Kinyarwanda", "Rwanda", "Ikinyarwanda", languages.READY, slot, ()
        )
    )
    switcher = NemotronLanguageSwitcher(languages=["en-US", "rw-RW"], instruction=None)
    settings, _ = await heard(switcher, [says("Muraho neza cyane.", "rw-RW")])
    assert isinstance(settings, TTSUpdateSettingsFrame)
    assert settings.delta.language == switcher.current_language == "rw-RW"
