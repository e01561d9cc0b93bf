"""NemotronLanguageSwitcher: the bot answers in the language that the caller speaks, mid-call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from loguru import logger
from pipecat.frames.frames import (
    Frame,
    LLMMessagesAppendFrame,
    TranscriptionFrame,
    TTSUpdateSettingsFrame,
    UserMuteStartedFrame,
    UserMuteStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import TTSSettings
from pipecat.transcriptions.language import Language

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.language_switch import (
    LanguageChange,
    LanguageSwitchPolicy,
    agent_locale,
    language_name,
)
from nemotron_voice.pipecat.languages import to_language
from nemotron_voice.transcript import Transcript

DEFAULT_INSTRUCTION: Final = (
    "The caller now speaks {language}. Answer in {language} from now on, until told otherwise."
)


class NemotronLanguageSwitcher(FrameProcessor):
    """Stands between NemotronSTTService and the user aggregator, and switches TTS and LLM.

    Example::

        switcher = NemotronLanguageSwitcher(
            languages=[Language.EN_US, Language.ES_US],
            voices={Language.EN_US: "anna", Language.ES_US: "carmen"},
        )

        @switcher.event_handler("on_language_switched")
        async def on_language_switched(switcher, change):
            print(change.before, change.after)

    When finals show that the caller has changed language (see `LanguageSwitchPolicy` for when), a
    `TTSUpdateSettingsFrame` and an instruction to the LLM go ahead of that final, so the answer to
    it is already in the new language. No interruption drops them. Every other frame passes
    untouched, in both directions.

    A language that the bot doesn't speak changes nothing; `on_language_not_spoken` tells of it,
    once until the caller changes language again. While the user aggregator has muted the user,
    nothing counts: the bot doesn't hear it either.

    Event handlers, each called with the switcher and a `LanguageChange`:

    - on_language_switched: the bot goes on in `change.after`.
    - on_language_not_spoken: the caller speaks `change.detected`, the bot stays in `change.before`.
    """

    def __init__(
        self,
        *,
        languages: Iterable[Language | str],
        initial: Language | str | None = None,
        voices: Mapping[Language, str] | Mapping[str, str] | None = None,
        tts: bool = True,
        instruction: str | Callable[[LanguageChange], str] | None = DEFAULT_INSTRUCTION,
        min_words: int = 3,
        min_confidence: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """Nothing is sent before the first switch: the bot begins as it was configured.

        Args:
            languages: what the bot speaks. The TTS is given each as it is written here.
            initial: what it speaks first; None: the first of `languages`.
            voices: the TTS voice of each language; one that isn't here keeps the voice.
            tts: whether to tell the TTS.
            instruction: what to tell the LLM, as a developer message: a text, in which "{language}"
                becomes the language's English name; or a function of the change; None for nothing.
            min_words: different words that show a language, see `LanguageSwitchPolicy`.
            min_confidence: mean confidence below which a final is no evidence.
            kwargs: of FrameProcessor.

        Raises:
            ConfigurationError: a name that is no language, or a voice for a language that isn't
                among `languages`.
        """
        super().__init__(**kwargs)
        named = [(agent_locale(language), language) for language in languages]
        self._policy = LanguageSwitchPolicy(
            [locale for locale, _ in named],
            initial=initial,
            min_words=min_words,
            min_confidence=min_confidence,
        )
        # The first name of a locale is the one that the TTS is told.
        self._names = {locale: _as_named(language) for locale, language in reversed(named)}
        self._voices = {agent_locale(name): voice for name, voice in (voices or {}).items()}
        for locale in self._voices:
            if locale not in self._names:
                raise ConfigurationError(
                    f"voices has {locale}, which is none of the bot's languages; "
                    f"they are {', '.join(self._policy.agent_languages)}"
                )
        self._tts = tts
        self._instruction = instruction
        self._user_muted = False
        self._register_event_handler("on_language_switched")
        self._register_event_handler("on_language_not_spoken")

    @property
    def current_language(self) -> Language | str:
        """What the bot speaks now, as written in `languages`."""
        return self._names[self._policy.current]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Pass the frame on; ahead of a final that shows a new language, the news of it.

        Args:
            frame: any frame.
            direction: its direction, which it keeps.
        """
        await super().process_frame(frame, direction)
        if isinstance(frame, UserMuteStartedFrame):
            self._user_muted = True
        elif isinstance(frame, UserMuteStoppedFrame):
            self._user_muted = False
        elif (
            isinstance(frame, TranscriptionFrame)
            and isinstance(frame.result, Transcript)
            and not self._user_muted
        ):
            await self._hear(frame.result)
        await self.push_frame(frame, direction)

    async def _hear(self, transcript: Transcript) -> None:
        change = self._policy.hear(transcript)
        if change is None:
            return
        if not change.spoken:
            logger.info(f"{self}: the caller speaks {change.detected}, the bot doesn't")
            await self._call_event_handler("on_language_not_spoken", change)
            return
        logger.info(f"{self}: {change.before} -> {change.after}")
        if self._tts:
            await self.push_frame(TTSUpdateSettingsFrame(delta=self._voice_of(change.after)))
        if self._instruction is not None:
            await self._instruct(change)
        await self._call_event_handler("on_language_switched", change)

    def _voice_of(self, locale: str) -> TTSSettings:
        settings = TTSSettings(language=self._names[locale])
        if locale in self._voices:
            settings.voice = self._voices[locale]
        return settings

    async def _instruct(self, change: LanguageChange) -> None:
        if callable(self._instruction):
            text = self._instruction(change)
        else:
            text = str(self._instruction).replace("{language}", language_name(change.after))
        frame = LLMMessagesAppendFrame([{"role": "developer", "content": text}], run_llm=False)
        # The turn that the final opens begins with an interruption (pipecat#5683).
        frame.interruptible = False
        await self.push_frame(frame)


def _as_named(language: Language | str) -> Language | str:
    """What the TTS is told: Pipecat's own name where there is one, else the locale."""
    if isinstance(language, Language):
        return language
    locale = agent_locale(language)
    return to_language(locale) or locale
