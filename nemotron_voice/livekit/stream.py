"""One caller's audio in, LiveKit speech events out."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from livekit import rtc
from livekit.agents import (
    APIConnectionError,
    APIConnectOptions,
    APIError,
    LanguageCode,
    stt,
    utils,
    vad,
)

from nemotron_voice.errors import (
    AudioFormatError,
    AudioOverflowError,
    NemotronVoiceError,
    StreamClosedError,
    is_permanent,
)
from nemotron_voice.livekit.languages import to_locale
from nemotron_voice.livekit.log import logger
from nemotron_voice.livekit.quiet import Quiet
from nemotron_voice.livekit.speech_data import speech_data
from nemotron_voice.recognizer import RecognizerStream
from nemotron_voice.replay import ReplayBuffer
from nemotron_voice.transcript import Transcript

if TYPE_CHECKING:
    from nemotron_voice.livekit.stt import STT, STTOptions

USAGE_EVERY_S = 5.0
FLUSH_DEADLINE_S = 1.0
REST_S = 1.0  # beyond a chunk; words that a flush in mid-speech left are final 0.8 s after the last

Asker = Literal["session", "quiet", "vad"]
Event = stt.SpeechEventType
# What the installed LiveKit knows; speech_end_time is younger than 1.5.
_EVENT_FIELDS = {field.name for field in dataclasses.fields(stt.SpeechEvent)}


class RecognizeStream(stt.RecognizeStream):
    """What `STT.stream()` returns.

    A broken engine stream ends a run with an `APIError`; LiveKit then runs again, and the audio
    that no final has covered (up to 30 s) is heard by the next engine stream. Times go on from run
    to run: seconds of audio since the first frame, plus `start_time_offset`.
    """

    def __init__(
        self,
        *,
        stt: STT,
        options: STTOptions,
        conn_options: APIConnectOptions,
    ) -> None:
        super().__init__(stt=stt, conn_options=conn_options)  # any rate: the engine resamples
        self._owner = stt
        self._options = options
        self._stream: RecognizerStream | None = None
        self._sample_rate = 0  # until the first frame
        self._first: rtc.AudioFrame | None = None  # which waits for the first engine stream
        self._replay = ReplayBuffer(16_000)
        self._offset_s: float | None = None
        self._began_at = 0.0  # wall clock of the first frame's first sample
        self._request_id = utils.shortuuid("nemotron_")
        self._quiet = Quiet(
            latency_s=options.latency_ms / 1000,
            preflight_s=options.preflight_s,
            end_s=options.end_of_utterance_s,
        )
        self._askers: deque[Asker] = deque()
        self._flushes: set[asyncio.Task[Transcript]] = set()
        self._speaking = False
        self._end_due_s: float | None = None  # END_OF_SPEECH waits for words until then
        self._last_interim: Transcript | None = None
        self._last_language: str | None = None
        self._unreported_s = 0.0
        self._refused_s = 0.0

    def update_options(self, *, language: str | None = None, latency_ms: int | None = None) -> None:
        """Change language or latency from the audio that comes next, without a gap.

        Raises:
            ConfigurationError: the model has no such language or latency.
        """
        if language is not None:
            self._options.language = language
        if latency_ms is not None:
            self._options.latency_ms = latency_ms
            self._quiet.latency_s = latency_ms / 1000
        if self._stream is not None:
            locale = None
            if language is not None:
                locale = to_locale(language, self._owner.loaded_languages)
            self._stream.update(language=locale, latency_ms=latency_ms)

    async def _run(self) -> None:
        if self._offset_s is None:
            self._offset_s = self.start_time_offset  # the base moves its own at each retry
        try:
            await self._listen()
        except APIError:
            raise
        except NemotronVoiceError as error:
            raise APIConnectionError(str(error), retryable=not is_permanent(error)) from error
        except Exception as error:
            # Any other exception would leave the session deaf without a word.
            raise APIConnectionError(f"the recogniser failed: {error!r}") from error

    async def _listen(self) -> None:
        """One engine stream's life."""
        engine = await self._owner.engine()
        if not self._sample_rate and not await self._has_audio():  # before that no slot is taken
            return
        stream = engine.open(
            sample_rate=self._sample_rate,
            finalize="flush",
            language=to_locale(self._options.language, engine.languages),
            latency_ms=self._options.latency_ms,
            max_buffered_s=self._replay.room_s,
        )
        origin_s = self._replay.start_s
        watcher: _Watcher | None = None
        tasks: list[asyncio.Task[Any]] = []
        try:
            for packet in self._replay.packets():
                stream.push(packet)
            unanswered = set(self._askers)
            self._askers.clear()
            self._stream = stream
            if unanswered:  # by the stream that broke
                self._flush(stream, "session" if "session" in unanswered else "quiet")
            if self._options.vad is not None:
                watcher = _Watcher(self._options.vad.stream(), self._flush_for_vad)
            tasks = [
                asyncio.create_task(self._read(stream, origin_s), name="nemotron.read"),
                asyncio.create_task(self._forward(stream, watcher), name="nemotron.forward"),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if tasks[1] not in done:
                raise StreamClosedError("the engine ended the stream")
            await stream.finish()
            await tasks[0]
            self._end_speech(None)
            self._report_usage()
        finally:
            self._stream = None
            await utils.aio.cancel_and_wait(*tasks, *self._flushes)
            if watcher is not None:
                await watcher.aclose()
            await stream.aclose()

    async def _has_audio(self) -> bool:
        """Wait for the first frame, which tells the rate; False if none comes."""
        async for item in self._input_ch:
            if isinstance(item, rtc.AudioFrame):
                self._began_at = time.time() - item.duration
                self._sample_rate = item.sample_rate
                self._replay = ReplayBuffer(self._sample_rate)
                self._first = item
                return True
            self._answer_flush("session", None)
        return False

    # ---- audio

    async def _forward(self, stream: RecognizerStream, watcher: _Watcher | None) -> None:
        if self._first is not None:
            first, self._first = self._first, None
            self._push(stream, first, watcher)
        async for item in self._input_ch:
            if isinstance(item, rtc.AudioFrame):
                self._push(stream, item, watcher)
            else:
                self._flush(stream, "session")

    def _push(
        self, stream: RecognizerStream, frame: rtc.AudioFrame, watcher: _Watcher | None
    ) -> None:
        pcm = _pcm(frame)
        try:
            stream.push(pcm)
        except AudioOverflowError as error:
            if not self._refused_s:  # once, not for every frame
                logger.error("%s", error)
            self._refused_s += frame.duration
            return
        except StreamClosedError:
            self._replay.append(pcm)  # the reader says why; the next stream hears this
            return
        if self._refused_s:
            logger.warning("audio is taken again; %.1f s were refused", self._refused_s)
            self._refused_s = 0.0
        self._replay.append(pcm)
        self._unreported_s += frame.duration
        if self._unreported_s > USAGE_EVERY_S - 1e-6:  # a sum of frames
            self._report_usage()
        if watcher is not None:
            watcher.push(frame)
        if self._end_due_s is not None and self._replay.end_s > self._end_due_s:
            self._end_speech(None)
        moment = self._quiet.at(self._replay.end_s)
        if moment == "end":
            self._flush(stream, "quiet")
        elif moment == "preflight" and self._last_interim is not None:
            self._send_text(Event.PREFLIGHT_TRANSCRIPT, self._last_interim)

    def _flush_for_vad(self) -> None:
        if self._stream is not None:
            self._flush(self._stream, "vad")

    def _flush(self, stream: RecognizerStream, asker: Asker) -> None:
        """Ask for a final; the stream's iteration brings it, in order with everything else."""
        self._askers.append(asker)
        try:
            answer = stream.flush(deadline_s=FLUSH_DEADLINE_S)
        except NemotronVoiceError as error:  # the reader raises it as well
            logger.debug("no flush: %s", error)
            return
        task = asyncio.create_task(answer, name="nemotron.flush")
        self._flushes.add(task)
        task.add_done_callback(self._flush_ended)

    def _flush_ended(self, task: asyncio.Task[Transcript]) -> None:
        self._flushes.discard(task)
        if not task.cancelled() and (error := task.exception()):  # the reader raises it as well
            logger.debug("no answer to a flush: %s", error)

    # ---- transcripts

    async def _read(self, stream: RecognizerStream, origin_s: float) -> None:
        answered = -1
        async for heard in stream:
            transcript = heard.shifted(origin_s)
            self._quiet.hear(transcript)
            if not transcript.is_final:
                self._take_interim(transcript)
                continue
            self._replay.drop_until(transcript.end)
            if heard.flush_id is None:
                self._take_final(transcript)
                continue
            waits = not transcript.complete and _leaves_words(self._last_interim, transcript)
            if heard.flush_id > answered:
                answered = heard.flush_id
                # The last flush is finish(), which nobody asked for.
                asker = self._askers.popleft() if self._askers else "quiet"
                self._answer_flush(asker, transcript)
                waits = waits and asker != "session"  # which has ended the turn itself
            else:  # what an answer in mid-speech had left
                self._take_final(transcript)
            if waits:
                self._end_due_s = self._replay.end_s + self._quiet.latency_s + REST_S
            else:
                self._end_speech(transcript)

    def _take_interim(self, transcript: Transcript) -> None:
        self._last_interim = transcript
        if not transcript.text:
            return
        self._end_due_s = None  # these words will be final, and end the speech
        self._begin_speech(transcript)
        if self._options.interim_results:
            self._send_text(Event.INTERIM_TRANSCRIPT, transcript)

    def _take_final(self, transcript: Transcript) -> bool:
        """Send what is said, if anything is."""
        self._last_interim = None
        if not any(letter.isalnum() for letter in transcript.text):
            return False
        self._begin_speech(transcript)
        self._send_text(Event.FINAL_TRANSCRIPT, transcript)
        return True

    def _answer_flush(self, asker: Asker, transcript: Transcript | None) -> None:
        said = transcript is not None and self._take_final(transcript)
        if not said and asker == "session":  # a commit waits for it
            data = stt.SpeechData(language=LanguageCode(self._last_language or ""), text="")
            self._send(Event.FINAL_TRANSCRIPT, alternatives=[data])

    def _begin_speech(self, transcript: Transcript) -> None:
        if not self._speaking:
            self._speaking = True
            start_s = transcript.words[0].start if transcript.words else transcript.start
            self._send(Event.START_OF_SPEECH, speech_start_time=self._began_at + start_s)

    def _end_speech(self, transcript: Transcript | None) -> None:
        self._end_due_s = None
        if self._speaking:
            self._speaking = False
            end_s = transcript.words[-1].end if transcript and transcript.words else None
            self._send(
                Event.END_OF_SPEECH,
                speech_end_time=None if end_s is None else self._began_at + end_s,
            )

    def _send_text(self, kind: stt.SpeechEventType, transcript: Transcript) -> None:
        self._last_language = transcript.language or self._last_language
        if kind is Event.FINAL_TRANSCRIPT:
            self._owner.note_final(transcript)
        data = speech_data(
            transcript, offset_s=self._offset_s or 0.0, last_language=self._last_language
        )
        self._send(kind, alternatives=[data])

    def _report_usage(self) -> None:
        if self._unreported_s:
            usage = stt.RecognitionUsage(audio_duration=self._unreported_s)
            self._unreported_s = 0.0
            self._send(Event.RECOGNITION_USAGE, recognition_usage=usage)

    def _send(self, kind: stt.SpeechEventType, **fields: Any) -> None:
        known = {name: value for name, value in fields.items() if name in _EVENT_FIELDS}
        self._event_ch.send_nowait(stt.SpeechEvent(type=kind, request_id=self._request_id, **known))


def _pcm(frame: rtc.AudioFrame) -> bytes:
    if frame.num_channels != 1:
        raise AudioFormatError(
            f"audio of {frame.num_channels} channels can't be heard as one caller; mix it down to "
            "one before push_frame"
        )
    return bytes(frame.data)


def _leaves_words(interim: Transcript | None, final: Transcript) -> bool:
    """Whether words that were shown are missing from an answer in mid-speech."""
    if interim is None or not interim.words:
        return False
    return not final.words or final.words[-1].start < interim.words[-1].start


class _Watcher:
    """A voice activity detector of our own, for sessions that have none."""

    def __init__(self, stream: vad.VADStream, on_silence: Callable[[], None]) -> None:
        self._stream = stream
        self._on_silence = on_silence
        self._task = asyncio.create_task(self._watch(), name="nemotron.vad")

    def push(self, frame: rtc.AudioFrame) -> None:
        self._stream.push_frame(frame)

    async def aclose(self) -> None:
        await utils.aio.cancel_and_wait(self._task)
        await self._stream.aclose()

    async def _watch(self) -> None:
        async for event in self._stream:
            if event.type is vad.VADEventType.END_OF_SPEECH:
                self._on_silence()
