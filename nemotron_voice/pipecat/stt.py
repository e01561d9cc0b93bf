"""NemotronSTTService: Nemotron 3.5 ASR in this process (or behind any Recognizer) for Pipecat.

Pipecat handles audio, VAD and mute frames one at a time, so nothing here waits for inference:
audio is put into the stream's queue, and a task of its own pushes what the stream answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    ServiceSwitcherRequestMetadataFrame,
    StartFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import STTService
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601
from pipecat.utils.tracing.service_decorators import traced_stt
from pipecat.utils.types import NOT_GIVEN, NotGiven, is_given

from nemotron_voice.config import DEFAULT_MODEL, StreamOptions
from nemotron_voice.errors import (
    AudioError,
    AudioOverflowError,
    ConfigurationError,
    EngineFullError,
    ModelError,
    NemotronVoiceError,
    ProtocolError,
    ServerRefusedError,
    ServerUnreachableError,
    is_permanent,
)
from nemotron_voice.pipecat.call_stream import Answer, CallStream
from nemotron_voice.pipecat.languages import joins_without_space, to_language, to_locale
from nemotron_voice.pipecat.speech_gate import Backlog, SpeechGate
from nemotron_voice.recognizer import Recognizer, RecognizerStream
from nemotron_voice.shared_engine import is_url, shared_engine
from nemotron_voice.transcript import Transcript, select_words

# Seconds from the end of speech to the final: the detector's stop delay of 0.2 s and a flush.
# Measured with the bundled checkpoint and four calls at once on two cores: 0.28 to 0.31 at 80 to
# 320 ms (benchmarks/pipecat_turns.py).
NEMOTRON_TTFS_P99 = 0.3
NO_VAD_S = 10.0  # of audio with words and no detector's word: something is missing
# Of the wall clock. The detector ends speech 1 s after the last audio, so what wasn't final by then
# was heard by a service that a ServiceSwitcher has taken out of the call.
OUT_OF_CALL_S = 2.0
CONNECT_EVERY_S = 1.0  # to a server that doesn't answer when the call begins
MAX_HELD = 32  # finals that came in a silence and wait for the next flush


@dataclass
class NemotronSTTSettings(STTSettings):
    """What may change during a call.

    Attributes:
        latency_ms: audio per chunk: 80, 160, 320, 560 or 1120. Smaller shows interims sooner,
            larger hears better; finals come at once in each.
        interim_results: whether to push provisional text.
    """

    latency_ms: int | NotGiven = field(default_factory=lambda: NOT_GIVEN)
    interim_results: bool | NotGiven = field(default_factory=lambda: NOT_GIVEN)


class NemotronSTTService(STTService):
    """Streaming speech to text in 40 languages, with the detected language on each transcript.

    Example::

        stt = NemotronSTTService(
            settings=NemotronSTTService.Settings(model="demo", language="auto", latency_ms=160)
        )

    Finals come when the voice activity detector reports a stop: the service flushes its stream,
    which answers some tens of milliseconds later with `finalized=True`. A flush never disturbs a
    caller who goes on talking. `result` of each frame is the `nemotron_voice.Transcript`.
    """

    Settings = NemotronSTTSettings
    _settings: NemotronSTTSettings

    def __init__(
        self,
        *,
        engine: Recognizer | None = None,
        url: str | None = None,
        sample_rate: int | None = None,
        vad: bool = True,
        flush_deadline_s: float = 1.0,
        ttfs_p99_latency: float | None = NEMOTRON_TTFS_P99,
        settings: NemotronSTTSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """Nothing is loaded before the pipeline starts.

        Args:
            engine: any Recognizer, shared by all calls of the process. None: the process' own
                engine of `settings.model`, loaded at the first call and shared by the later ones.
            url: of a server instead ("ws://host:8080", `nemotron-voice serve`); its API key is in
                the environment's NEMOTRON_VOICE_API_KEY. The process keeps one client for it.
            sample_rate: of the audio in Hz, 8,000 to 48,000; None: the pipeline's.
            vad: the pipeline has a voice activity detector (in the user aggregator or before this
                service). False: finals come at the end of each sentence, and nothing is gated.
            flush_deadline_s: a final comes this long after a stop at the latest, with what has
                been decoded by then.
            ttfs_p99_latency: seconds from the end of speech to the final, for turn strategies.
            settings: model, language (None or "auto": the model detects it), latency_ms,
                interim_results.
            kwargs: of STTService.

        Raises:
            ConfigurationError: a setting has no such value.
        """
        defaults = self.Settings(
            model=DEFAULT_MODEL, language="auto", latency_ms=320, interim_results=True
        )
        if settings is not None:
            defaults.apply_update(settings)
        if url is not None:
            if engine is not None or not is_url(url):
                raise ConfigurationError(
                    f"url={url!r} is an address such as 'ws://host:8080', and stands instead of "
                    "engine="
                )
            defaults.model = url
        # Refuse what no engine could serve.
        StreamOptions(**_stream_settings(defaults))
        super().__init__(
            sample_rate=sample_rate,
            ttfs_p99_latency=ttfs_p99_latency,
            settings=defaults,
            **kwargs,
        )
        self._own_engine = engine
        self._engine: Recognizer | None = None
        self._call = CallStream(
            self,
            open_stream=self._open_stream,
            on_transcript=self._take,
            on_error=self._report,
            flush_deadline_s=flush_deadline_s,
        )
        self._connecting: asyncio.Task[None] | None = None
        self._gate = SpeechGate(has_detector=vad)
        self._backlog = Backlog()
        self._warned = False
        self._refused_bytes = 0  # in a row
        self._heard_at = 0.0  # wall clock of the last audio
        self._held: list[Transcript] = []

    def can_generate_metrics(self) -> bool:
        """TTFB (from the end of speech to the final) and usage."""
        return True

    def language_to_service_language(self, language: Language) -> str | None:
        """The language's own name: which locale it means depends on the model.

        Raises:
            ConfigurationError: the model has no such language.
        """
        to_locale(language)
        return language.value

    # ---- start and end

    async def start(self, frame: StartFrame) -> None:
        """Load the engine if none was given, and open the call's stream."""
        await super().start(frame)
        await self._begin()

    async def _begin(self) -> None:
        try:
            self._engine = self._own_engine or await _load(str(self._settings.model))
        except NemotronVoiceError as error:
            await self._report(error)
            if is_permanent(error):
                return
            self._connecting = self.create_task(self._connect(), name="connect")
        await self._call.open(self.sample_rate)

    async def _connect(self) -> None:
        """The server doesn't answer yet: go on asking; the call keeps its audio meanwhile."""
        while self._engine is None:
            await asyncio.sleep(CONNECT_EVERY_S)
            try:
                self._engine = await _load(str(self._settings.model))
            except NemotronVoiceError as error:
                if is_permanent(error):  # it answers, and refuses
                    await self._call.aclose()
                    await self._report(error)
                    return

    async def stop(self, frame: EndFrame) -> None:
        """Finalise all that was said; its final goes out before the EndFrame does."""
        out_of_call = time.monotonic() - self._heard_at > OUT_OF_CALL_S
        if not (out_of_call and self._gate.has_detector):
            self._gate.stopped(self._call.now_s)
            await self._call.finish()
            await self._push_finals([], finalized=True)
        await self._call.aclose()
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Drop the stream: its slot is free at once."""
        await super().cancel(frame)
        await self._call.aclose()

    async def cleanup(self) -> None:
        """Drop what is left, in whatever order the pipeline ended."""
        await super().cleanup()
        await self._call.aclose()
        if self._connecting is not None and not self._connecting.done():
            await self.cancel_task(self._connecting)

    def _open_stream(self, sample_rate: int, max_buffered_s: float) -> RecognizerStream:
        if self._engine is None:
            if self._connecting is not None and not self._connecting.done():
                raise ServerUnreachableError(f"{self._settings.model} does not answer yet")
            raise ModelError("no engine: loading the model failed, or the pipeline hasn't started")
        finalize = "flush" if self._gate.has_detector else "sentence"
        return self._engine.open(
            sample_rate=sample_rate,
            finalize=finalize,
            max_buffered_s=max_buffered_s,
            **_stream_settings(self._settings, self._engine.languages),
        )

    # ---- audio

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Put audio into the stream's queue; what it says is pushed by another task.

        Args:
            audio: mono PCM16.
        """
        self._heard_at = time.monotonic()
        self._backlog.note(self._heard_at, self._call.now_s)
        try:
            self._call.push(audio)
        except (AudioError, AudioOverflowError) as error:
            if not self._refused_bytes:  # one error for a stretch of refusals, not 50 a second
                await self._report(error)
            self._refused_bytes += len(audio)
        else:
            if self._refused_bytes:
                lost_s = self._refused_bytes / (2 * self._call.sample_rate)
                logger.warning(f"{self}: audio is taken again, {lost_s:.1f} s were refused")
            self._refused_bytes = 0
        yield None

    async def process_audio_frame(
        self, frame: InputAudioRawFrame, direction: FrameDirection
    ) -> None:
        """Take audio at whatever rate it comes: at another one, another stream takes over."""
        if frame.num_channels != 1:
            await self.push_error(
                f"audio of {frame.num_channels} channels can't be heard as one caller; "
                "set audio_in_channels=1 in the transport",
                category=ErrorCategory.APPLICATION,
            )
            return
        known = self._call.sample_rate
        if known and frame.sample_rate != known and not self._muted:
            await self._call.move(frame.sample_rate)
        await super().process_audio_frame(frame, direction)

    # ---- frames of the pipeline

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Watch the detector, from whichever side it speaks, mute, and the service switcher."""
        now_s = self._call.now_s
        was_muted = self._muted
        if isinstance(frame, VADUserStartedSpeakingFrame) and not was_muted:
            behind_s = max(0.0, self._backlog.at(time.monotonic(), now_s))
            self._gate.started(now_s, frame.start_secs + behind_s)
        if isinstance(frame, ServiceSwitcherRequestMetadataFrame) and frame.service is self:
            await self._become_active()
        await super().process_frame(frame, direction)
        if was_muted:
            if not self._muted:
                self._gate.listens_anew(now_s)
        elif self._muted or isinstance(frame, VADUserStoppedSpeakingFrame):
            self._finalize_now(now_s)

    def _finalize_now(self, now_s: float) -> None:
        self._gate.stopped(now_s)
        self.request_finalize()
        self._call.flush()

    async def _become_active(self) -> None:
        """Another service listened until now: what this one heard before belongs to the past."""
        self._gate.listens_anew(self._call.now_s)
        self._held = []
        await self._call.restart()

    async def _update_settings(  # type: ignore[override]  # as in STTService
        self, delta: STTSettings
    ) -> dict[str, Any]:
        """Apply new settings to the running stream, from the audio that comes next.

        A setting that can't be is refused with an error frame, and nothing changes.
        """
        try:
            await self._apply(delta)
        except NemotronVoiceError as error:
            await self.push_error(
                f"settings refused: {error}", exception=error, category=ErrorCategory.APPLICATION
            )
            return {}
        changed = await super()._update_settings(delta)
        if changed and self._call.is_idle:  # what was refused for good has another chance
            await self._begin()
        return changed

    async def _apply(self, delta: STTSettings) -> None:
        engine = self._engine
        model_changes = is_given(delta.model) and delta.model != self._settings.model
        if model_changes:
            if self._own_engine is not None:
                raise ConfigurationError(
                    f"model={delta.model!r} can't be changed: this service was given its engine; "
                    "leave out engine= to let it load models by name"
                )
            engine = await _load(str(delta.model))
        update: dict[str, Any] = {}
        if is_given(delta.language):
            update["language"] = to_locale(delta.language, engine.languages if engine else None)
        latency_ms = getattr(delta, "latency_ms", NOT_GIVEN)
        if is_given(latency_ms):
            update["latency_ms"] = latency_ms
        StreamOptions(**update)
        if model_changes:
            self._engine = engine
            self._settings.apply_update(self.Settings(**update))
            await self._call.move(self._call.sample_rate or self.sample_rate)
        elif update:
            self._call.update(**update)

    # ---- transcripts

    async def _take(self, transcript: Transcript, answer: Answer | None) -> None:
        if not transcript.is_final:
            if self._gate.speaking and self._settings.interim_results:
                await self._push_interim(transcript)
            elif not self._gate.ever_spoken and transcript.end > NO_VAD_S and not self._warned:
                self._warned = True
                logger.warning(
                    f"{self}: words are heard, but no voice activity detector has reported speech "
                    "yet; give the user aggregator a vad_analyzer, or this service vad=False"
                )
            return
        spoken = select_words(
            transcript, lambda word: self._gate.heard_speech(word.start, word.end)
        )
        if spoken is not transcript:
            logger.debug(f"{self}: heard where nobody spoke, dropped from {transcript.text!r}")
        # What an incomplete answer left comes a moment later: at once, not with the next turn.
        if answer == "flush" or (answer == "rest" and not self._gate.speaking):
            await self._push_finals([spoken], finalized=True)
        elif self._gate.speaking:
            await self._push_finals([spoken], finalized=False)
        elif spoken.text:  # alone in a silence it would open a turn
            self._held = [*self._held, spoken][-MAX_HELD:]

    async def _push_finals(self, transcripts: list[Transcript], *, finalized: bool) -> None:
        """Push what was held and these; the last answers the flush."""
        ready = [t for t in (*self._held, *transcripts) if t.text]
        self._held = []
        for transcript in ready:
            if finalized and transcript is ready[-1]:
                self.confirm_finalize()
            await self._push_final(transcript)
        if finalized and not ready:
            # Nothing was said: the measurement ends here, and no frame is owed.
            self._finalize_requested = False
            await self.stop_ttfb_metrics()
            await self._cancel_ttfb_timeout()

    async def _push_final(self, transcript: Transcript) -> None:
        language = to_language(transcript.language)
        frame = TranscriptionFrame(
            transcript.text, self._user_id, time_now_iso8601(), language, result=transcript
        )
        frame.includes_inter_frame_spaces = joins_without_space(transcript.language)
        # The interruption that a turn begins with would drop a final that waits behind it
        # (pipecat#5683).
        frame.interruptible = False
        await self.emit_stt_usage_metrics()  # before the frame: tracing closes its span there
        await self.push_frame(frame)
        await self._handle_transcription(transcript.text, True, language)  # noqa: FBT003

    async def _push_interim(self, transcript: Transcript) -> None:
        language = to_language(transcript.language)
        frame = InterimTranscriptionFrame(
            transcript.text, self._user_id, time_now_iso8601(), language, result=transcript
        )
        frame.includes_inter_frame_spaces = joins_without_space(transcript.language)
        await self.push_frame(frame)

    @traced_stt
    async def _handle_transcription(
        self,
        transcript: str,
        is_final: bool,  # noqa: FBT001 - the decorator's contract
        language: Language | None = None,
    ) -> None:
        """What the tracing decorator hangs on."""

    async def _report(self, error: NemotronVoiceError) -> None:
        await self.push_error(str(error), exception=error, category=_category(error))


async def _load(model: str) -> Recognizer:
    try:
        return await shared_engine(model)
    except NemotronVoiceError:
        raise
    except Exception as error:  # CUDA out of memory, a library that doesn't load
        raise ModelError(f"{model} can't be loaded: {error!r}") from error


def _stream_settings(
    settings: NemotronSTTSettings, supported: Collection[str] | None = None
) -> dict[str, Any]:
    """The stream's options; interims are gated here, so that they can be switched on later."""
    language: Any = settings.language
    return {"language": to_locale(language, supported), "latency_ms": settings.latency_ms}


def _category(error: NemotronVoiceError) -> ErrorCategory:
    """Pipecat's kind of an error; INVALID_REQUEST takes the service out of use."""
    if isinstance(error, ConfigurationError | ModelError | ProtocolError):
        return ErrorCategory.INVALID_REQUEST
    if isinstance(error, EngineFullError):
        return ErrorCategory.RATE_LIMIT
    if isinstance(error, AudioError):
        return ErrorCategory.APPLICATION
    if isinstance(error, ServerRefusedError):
        return ErrorCategory.AUTHORIZATION
    if isinstance(error, ServerUnreachableError):
        return ErrorCategory.CONNECTIVITY
    return ErrorCategory.SERVER
