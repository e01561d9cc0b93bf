"""STT: Nemotron 3.5 ASR in this process (or behind any Recognizer) for LiveKit agents."""

from __future__ import annotations

import dataclasses
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from livekit import rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectionError,
    APIConnectOptions,
    NotGivenOr,
    stt,
)
from livekit.agents import (
    vad as vad_module,
)
from livekit.agents.utils import AudioBuffer, is_given

from nemotron_voice.config import DEFAULT_MODEL, LATENCIES_MS, StreamOptions
from nemotron_voice.errors import ConfigurationError, NemotronVoiceError, is_permanent
from nemotron_voice.livekit.languages import to_locale
from nemotron_voice.livekit.log import logger
from nemotron_voice.livekit.speech_data import speech_data
from nemotron_voice.livekit.stream import RecognizeStream
from nemotron_voice.recognizer import Recognizer
from nemotron_voice.shared_engine import is_url, prewarm, shared_engine
from nemotron_voice.transcript import Transcript

Endpointing = Literal["auto", "flush", "engine", "vad"]

END_OF_UTTERANCE_S = 0.6
PREFLIGHT_S = 0.2
MANUAL_FLUSH = "manual_flush" in {f.name for f in dataclasses.fields(stt.STTCapabilities)}
RECENT = 32  # finals remembered for `switch_language`


@dataclass
class STTOptions:
    """What a stream is opened with."""

    language: str
    latency_ms: int
    interim_results: bool
    preflight_s: float | None
    end_of_utterance_s: float | None
    vad: vad_module.VAD | None


class STT(stt.STT[Any]):
    """Streaming speech to text in 40 languages, with the detected language on each transcript.

    Example::

        session = AgentSession(stt=nemotron.STT(model="demo", latency_ms=160), llm=..., tts=...)

    One STT serves any number of sessions and streams of the process; they share one engine.

    Who ends an utterance (`endpointing`):

    - "flush": the session, which flushes at its turn ends (livekit-agents 1.8.9 and later).
    - "engine": we do, after `end_of_utterance_s` without a word. `turn_detection="stt"` needs this.
    - "vad": we do, when `vad` hears silence.
    - "auto": "engine", and the session may flush sooner; or "vad" where a `vad` is given.
    """

    def __init__(
        self,
        *,
        engine: Recognizer | None = None,
        model: str = DEFAULT_MODEL,
        url: str | None = None,
        language: str = "auto",
        latency_ms: int = 320,
        interim_results: bool = True,
        endpointing: Endpointing = "auto",
        end_of_utterance_s: float = END_OF_UTTERANCE_S,
        preflight_s: float | None = PREFLIGHT_S,
        vad: vad_module.VAD | None = None,
    ) -> None:
        """Nothing is loaded before `prewarm()` or the first audio.

        Args:
            engine: any Recognizer. None: the process' own engine of `model`, loaded once.
            model: hub id, folder or `.nemo` file; "demo" needs no download.
            url: of a server instead ("ws://host:8080", `nemotron-voice serve`); its API key is in
                the environment's NEMOTRON_VOICE_API_KEY. The process keeps one client for it.
            language: a locale or name, or "auto": the model detects it.
            latency_ms: audio per chunk: 80, 160, 320, 560 or 1120. Smaller shows interims sooner,
                larger hears better; finals come at once in each.
            interim_results: whether provisional text is sent.
            endpointing: see above.
            end_of_utterance_s: quiet that ends an utterance in "engine" and "auto".
            preflight_s: quiet after which the text so far is sent as PREFLIGHT_TRANSCRIPT, on which
                the session may begin its answer; None for never.
            vad: a detector of our own, for "vad" and "auto".

        Raises:
            ConfigurationError: a setting has no such value.
        """
        if endpointing not in {"auto", "flush", "engine", "vad"}:
            raise ConfigurationError(
                f"endpointing={endpointing!r} isn't known; it is auto, flush, engine or vad"
            )
        if url is not None and (engine is not None or not is_url(url)):
            raise ConfigurationError(
                f"url={url!r} is an address such as 'ws://host:8080', and stands instead of engine="
            )
        if endpointing == "vad" and vad is None:
            raise ConfigurationError(
                'endpointing="vad" needs vad=, for example livekit.agents.inference.VAD'
            )
        StreamOptions(language=to_locale(language), latency_ms=latency_ms)
        capabilities: dict[str, Any] = {"aligned_transcript": "word", "offline_recognize": True}
        if MANUAL_FLUSH:
            capabilities["manual_flush"] = endpointing in {"auto", "flush"}
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True, interim_results=interim_results, **capabilities
            )
        )
        if endpointing == "flush" and not MANUAL_FLUSH:
            logger.warning(
                'endpointing="flush", but this livekit-agents never flushes an STT (1.8.9 is the '
                'first that does): no turn will end. Use endpointing="auto"'
            )
        ours = endpointing == "engine" or (endpointing == "auto" and vad is None)
        self._options = STTOptions(
            language=language,
            latency_ms=latency_ms,
            interim_results=interim_results,
            preflight_s=preflight_s if interim_results else None,
            end_of_utterance_s=end_of_utterance_s if ours else None,
            vad=vad if endpointing in {"auto", "vad"} else None,
        )
        self._model = url or model
        self._own_engine = engine
        self._engine: Recognizer | None = engine
        self._streams: weakref.WeakSet[RecognizeStream] = weakref.WeakSet()
        self._recent: deque[Transcript] = deque(maxlen=RECENT)

    @property
    def model(self) -> str:
        """Name of the checkpoint."""
        return self._model if self._own_engine is None and not is_url(self._model) else "nemotron"

    @property
    def provider(self) -> str:
        """Who runs it."""
        return "nemotron-voice"

    @property
    def loaded_languages(self) -> tuple[str, ...] | None:
        """Locales of the model in use; None before it is loaded."""
        return self._engine.languages if self._engine is not None else None

    async def engine(self) -> Recognizer:
        """The recogniser; loads the model if it must.

        Raises:
            ModelNotFoundError, CheckpointError.
        """
        if self._engine is None:
            self._engine = await shared_engine(self._model)
        return self._engine

    def prewarm(self) -> None:
        """Begin to load the model, on a thread of its own, and return at once."""
        if self._engine is None:
            prewarm(self._model)

    def update_options(
        self, *, language: NotGivenOr[str] = NOT_GIVEN, latency_ms: NotGivenOr[int] = NOT_GIVEN
    ) -> None:
        """Change language or latency of every stream, from the audio that comes next.

        Raises:
            ConfigurationError: the model has no such language or latency; nothing changes.
        """
        update: dict[str, Any] = {}
        if is_given(language):
            update["language"] = language
        if is_given(latency_ms):
            update["latency_ms"] = latency_ms
        asked = dict(update)
        if "language" in asked:
            asked["language"] = to_locale(asked["language"], self.loaded_languages)
        StreamOptions(**asked)
        self._options = dataclasses.replace(self._options, **update)
        for stream in self._streams:
            stream.update_options(**update)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> RecognizeStream:
        """Open a stream; it takes an engine slot with its first audio."""
        options = dataclasses.replace(self._options)
        if is_given(language):
            to_locale(language, self.loaded_languages)
            options.language = language
        stream = RecognizeStream(stt=self, options=options, conn_options=conn_options)
        self._streams.add(stream)
        return stream

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,  # noqa: ARG002 - nothing is connected to
    ) -> stt.SpeechEvent:
        frame = rtc.combine_audio_frames(buffer)
        try:
            transcripts = await self._recognize(
                frame, language if is_given(language) else self._options.language
            )
        except NemotronVoiceError as error:
            raise APIConnectionError(str(error), retryable=not is_permanent(error)) from error
        data = [speech_data(transcript) for transcript in transcripts if transcript.text]
        if not data:
            return stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT)
        whole = data[0]
        for more in data[1:]:
            whole.text = f"{whole.text} {more.text}"
            whole.end_time = more.end_time
            whole.words = [*(whole.words or []), *(more.words or [])]
        return stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[whole])

    async def _recognize(self, frame: rtc.AudioFrame, language: str) -> list[Transcript]:
        engine = await self.engine()
        stream = engine.open(
            sample_rate=frame.sample_rate,
            language=to_locale(language, engine.languages),
            latency_ms=LATENCIES_MS[-1],  # nobody waits for an interim
            finalize="flush",
            interim_results=False,
        )
        pcm = bytes(frame.data)
        second = 2 * frame.sample_rate
        try:
            for at in range(0, len(pcm), second):
                stream.push(pcm[at : at + second])
                await stream.drained(max_buffered_s=5.0)
            await stream.finish()
            return [transcript async for transcript in stream if transcript.is_final]
        finally:
            await stream.aclose()

    def note_final(self, transcript: Transcript) -> None:
        """Remember a final for `switch_language`, which is told text and language only."""
        self._recent.append(transcript)

    def recent_final(self, text: str) -> Transcript | None:
        """The latest final with this text."""
        return next((one for one in reversed(self._recent) if one.text == text), None)

    async def aclose(self) -> None:
        """Close every stream. An engine that was given stays open, as does the shared one."""
        for stream in list(self._streams):
            await stream.aclose()
