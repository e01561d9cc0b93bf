"""The agent goes on in the language that the caller has changed to."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, Final

from livekit.agents import Agent, AgentSession, UserInputTranscribedEvent

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.language_switch import (
    LanguageChange,
    LanguageSwitchPolicy,
    agent_locale,
    language_name,
)
from nemotron_voice.livekit.log import logger
from nemotron_voice.livekit.stt import STT
from nemotron_voice.transcript import Transcript, Word

DEFAULT_INSTRUCTION: Final = (
    "The caller now speaks {language}. Answer in {language} from now on, until told otherwise."
)


class LanguageSwitcher:
    """Listens to a session's finals; what `switch_language` returns."""

    def __init__(
        self,
        session: AgentSession[Any],
        policy: LanguageSwitchPolicy,
        *,
        tts_options: Mapping[str, Mapping[str, Any]],
        instruction: str | Callable[[LanguageChange], str] | None,
        on_switched: Callable[[LanguageChange], object] | None,
        on_not_spoken: Callable[[LanguageChange], object] | None,
    ) -> None:
        self._session = session
        self._policy = policy
        self._tts_options = tts_options
        self._instruction = instruction
        self._on_switched = on_switched
        self._on_not_spoken = on_not_spoken
        self._plain: str | None = None  # the agent's instructions without ours
        self._ours = ""
        self._tasks: set[asyncio.Task[None]] = set()
        session.on("user_input_transcribed", self._hear)

    @property
    def current(self) -> str:
        """Locale that the agent speaks now."""
        return self._policy.current

    def detach(self) -> None:
        """Listen no more; the language stays."""
        self._session.off("user_input_transcribed", self._hear)

    # LiveKit calls this before it begins the answer, also one begun ahead of the turn's end: what
    # is changed here, without waiting, is what that answer is made with.
    def _hear(self, event: UserInputTranscribedEvent) -> None:
        if not event.is_final or not event.transcript:
            return
        change = self._policy.hear(self._transcript(event))
        if change is None:
            return
        if not change.spoken:
            logger.info("the caller speaks %s, the agent doesn't", change.detected)
            if self._on_not_spoken is not None:
                self._on_not_spoken(change)
            return
        logger.info("language: %s -> %s", change.before, change.after)
        self._tell_tts(change.after)
        self._instruct(change)
        if self._on_switched is not None:
            self._on_switched(change)

    def _transcript(self, event: UserInputTranscribedEvent) -> Transcript:
        ears = self._part("stt")
        if isinstance(ears, STT):
            known = ears.recent_final(event.transcript)
            if known is not None:
                return known
        return _transcript_of(event)

    def _part(self, name: str) -> Any:
        """The agent's own STT or TTS, or the session's."""
        own = getattr(_agent(self._session), name, None)
        return own or getattr(self._session, name)

    def _tell_tts(self, locale: str) -> None:
        options = self._tts_options.get(locale)
        tts = self._part("tts")
        if options is None or tts is None:
            return
        if not hasattr(tts, "update_options"):
            logger.warning("%s can't change its options in a call; its voice stays", tts.label)
            return
        tts.update_options(**options)

    def _instruct(self, change: LanguageChange) -> None:
        agent = _agent(self._session)
        if self._instruction is None or agent is None:
            return
        if callable(self._instruction):
            text = self._instruction(change)
        else:
            text = self._instruction.replace("{language}", language_name(change.after))
        present = str(agent.instructions)
        if self._plain is None or present != self._ours:  # somebody else has changed them
            self._plain = present
        self._ours = f"{self._plain}\n\n{text}"
        update = agent.update_instructions(self._ours)
        if (rest := _begin(update)) is not None:  # a realtime model's session has to be told
            task = asyncio.ensure_future(rest)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def switch_language(
    session: AgentSession[Any],
    *,
    languages: Iterable[str],
    initial: str | None = None,
    tts_options: Mapping[str, Mapping[str, Any]] | None = None,
    instruction: str | Callable[[LanguageChange], str] | None = DEFAULT_INSTRUCTION,
    on_switched: Callable[[LanguageChange], object] | None = None,
    on_not_spoken: Callable[[LanguageChange], object] | None = None,
    min_words: int = 3,
    min_confidence: float = 0.5,
) -> LanguageSwitcher:
    """Let TTS and LLM follow the caller into another language, before the answer to it begins.

    Example::

        switch_language(
            session,
            languages=["en-US", "es-US"],
            tts_options={"en-US": {"voice": "anna"}, "es-US": {"voice": "carmen"}},
        )

    Args:
        session: whose `stt` is a nemotron STT. With another STT its language counts as detected.
        languages: what the agent speaks.
        initial: what it speaks first; None: the first of `languages`.
        tts_options: for each language what `tts.update_options` is called with.
        instruction: added to the agent's instructions: a text, in which "{language}" becomes the
            language's English name; or a function of the change; None for nothing.
        on_switched: called with the `LanguageChange` after a switch.
        on_not_spoken: called when the caller speaks a language that the agent doesn't.
        min_words: different words that show a language, see `LanguageSwitchPolicy`.
        min_confidence: mean confidence below which a final is no evidence.

    Raises:
        ConfigurationError: a name that is no language, or options for one that isn't among
            `languages`.
    """
    policy = LanguageSwitchPolicy(
        languages, initial=initial, min_words=min_words, min_confidence=min_confidence
    )
    options = {agent_locale(name): each for name, each in (tts_options or {}).items()}
    for locale in options:
        if locale not in policy.agent_languages:
            raise ConfigurationError(
                f"tts_options has {locale}, which is none of the agent's languages; "
                f"they are {', '.join(policy.agent_languages)}"
            )
    return LanguageSwitcher(
        session,
        policy,
        tts_options=options,
        instruction=instruction,
        on_switched=on_switched,
        on_not_spoken=on_not_spoken,
    )


def _agent(session: AgentSession[Any]) -> Agent | None:
    try:
        return session.current_agent
    except RuntimeError:  # it isn't running
        return None


def _transcript_of(event: UserInputTranscribedEvent) -> Transcript:
    """What another STT tells: text and language."""
    language = str(event.language) if event.language else None
    words = tuple(Word(text, 0.0, 0.0, 1.0, language) for text in event.transcript.split())
    return Transcript(
        text=event.transcript,
        is_final=True,
        language=language,
        language_source="tag" if language else None,
        languages=(),
        words=words,
        start=0.0,
        end=0.0,
        confidence=1.0,
        flush_id=None,
        revision=0,
    )


def _begin(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run a coroutine up to where it waits; what is left of it, if it does.

    (asyncio's eager tasks do this from Python 3.12 on.)
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None

    @types.coroutine
    def rest() -> Generator[Any, Any, None]:
        try:
            value = yield waits_for
            while True:
                value = yield coroutine.send(value)
        except StopIteration:
            return

    async def whole() -> None:
        await rest()

    return whole()
