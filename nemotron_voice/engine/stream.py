"""One caller: audio in, transcripts out, and the order in which the two meet.

Three parties touch a stream: the caller's threads (push, update), event loops (flush, iteration)
and the engine's device thread (take_work, accept). A short lock makes each of their steps whole;
nobody waits for inference under it. Changes and flushes carry the sample at which they were asked
for, so what a stream says doesn't depend on how busy the engine is.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nemotron_voice.audio import StreamResampler, to_float
from nemotron_voice.config import StreamOptions
from nemotron_voice.engine.audio_buffer import AudioBuffer
from nemotron_voice.engine.finalise import Finaliser
from nemotron_voice.engine.fork import (
    PAST_SAMPLES,
    SHORT_SAMPLES,
    TAIL_FRAMES,
    Fork,
    window_bounds,
)
from nemotron_voice.engine.runner import Outcome, Work
from nemotron_voice.engine.scheduler import Ready
from nemotron_voice.engine.speech_level import RECENT_SAMPLES, has_speech, is_speaking
from nemotron_voice.errors import AudioOverflowError, NemotronVoiceError, StreamClosedError
from nemotron_voice.events import Events
from nemotron_voice.model.features import FRAME_SAMPLES
from nemotron_voice.resampler import MODEL_SAMPLE_RATE
from nemotron_voice.transcript import Token, Transcript

if TYPE_CHECKING:
    from nemotron_voice.model.network import Emission
    from nemotron_voice.recognizer import PCM

# A short word alone is what a state carried over a long silence misses; it is decoded once more,
# from a fresh state, out of the audio of the last seconds.
RETRY_S = 4.0
RETRY_CONFIDENCE = 0.4  # of its least sure token: below it, the sound was a cough or a chair
# Frames of digital silence (a muted caller's zeros) after which a stream sleeps: the left context
# of the released model, so that there is nothing else in it.
ASLEEP_AFTER_FRAMES = 56


class Host(Protocol):
    """What a stream needs of its engine."""

    def offer(self, ready: Ready) -> None:
        """Queue a step of a stream."""

    def release(self, stream: Stream) -> None:
        """Take the slot back, and a queued step; the stream won't run again. Idempotent."""

    def token(self, emission: Emission, offset: int = 0) -> Token:
        """The text of an emission, `offset` frames into the stream."""

    @property
    def lookaheads(self) -> tuple[int, ...]:
        """Look-aheads that the model offers, in encoder frames."""

    def resolve_language(self, language: object) -> tuple[int, str | None]:
        """Prompt index, and the locale where it is forced."""

    def resolve_latency(self, latency_ms: int) -> int:
        """Look-ahead of a latency mode that the model offers."""


@dataclass(slots=True)
class _Change:
    """New settings, from the chunk on that holds sample `at`."""

    at: int
    prompt: int | None = None
    forced_language: str | None = None
    lookahead: int | None = None


@dataclass(slots=True)
class _Flush:
    """A flush asked for at sample `at`."""

    at: int
    flush_id: int
    last: bool  # the audio has ended
    answer: Future[Transcript]


class Stream:
    """A RecognizerStream of an Engine; made by `Engine.open`."""

    def __init__(self, host: Host, row: int, options: StreamOptions) -> None:
        self.options = options
        self.row = row
        self._host = host
        self._lock = threading.RLock()
        self._resampler = StreamResampler(options.sample_rate)
        self._audio = AudioBuffer()
        self._events = Events()
        prompt, forced = host.resolve_language(options.language)
        self._prompt = prompt
        self._lookahead = host.resolve_latency(options.latency_ms)
        self._finaliser = Finaliser(forced, by_sentence=options.finalize == "sentence")
        self._marks: deque[_Change | _Flush] = deque()
        self._drained: list[tuple[int, Future[None]]] = []
        self._frame = 0  # encoder frames decoded
        self._silent_frames = 0  # of them, the last ones that were digital silence
        self._slept_frames = 0  # of them, those that were skipped, asleep
        self._final_sample = 0  # the audio up to here has been answered: a retry begins after it
        self._fork: Fork | None = None
        self._queued = False  # offered to the scheduler, or on the device
        self._on_device = False  # a step runs on the row, so that the slot can't be given back
        self._freed: list[Future[None]] = []  # who waits for that step to end
        self._fresh = True  # the row still holds its last user's state
        self._flushes = 0
        self._ended = False  # no more audio
        self._closed = False
        self._error: NemotronVoiceError | None = None

    # ---- the caller's side

    def push(self, pcm: PCM) -> None:
        """Take mono audio at `options.sample_rate`: PCM16 bytes, or an int16 or float array."""
        samples = to_float(pcm)
        with self._lock:
            self._check_open()
            self._check_room(samples.size)
            self._audio.append(self._resampler.process(samples))
            self._advance()

    def update(self, *, language: object | None = None, latency_ms: int | None = None) -> None:
        """Change settings from the chunk on that holds the next sample pushed."""
        with self._lock:
            self._check_open()
            change = _Change(self._audio.end)
            if language is not None:
                change.prompt, change.forced_language = self._host.resolve_language(language)
            if latency_ms is not None:
                change.lookahead = self._host.resolve_latency(latency_ms)
            self._marks.append(change)
            self._advance()

    def flush(self, *, deadline_s: float = 2.0) -> Coroutine[Any, Any, Transcript]:
        """Finalise what was said in the audio pushed so far; see RecognizerStream.flush."""
        return self._answer(self._ask_flush(last=False), deadline_s)

    async def finish(self, *, deadline_s: float = 60.0) -> Transcript:
        """End the audio, finalise all of it, free the slot; iteration ends after the final."""
        with self._lock:
            self._check_open()
            self._audio.append(self._resampler.process(np.zeros(0, np.float32), last=True))
            self._ended = True
        try:
            return await self._answer(self._ask_flush(last=True), deadline_s)
        finally:
            self._close()

    async def drained(self, max_buffered_s: float = 0.5) -> None:
        """Wait until less than `max_buffered_s` seconds, or less than a chunk, are undecoded.

        Gives way to the event loop's other tasks also where there is nothing to wait for: a stream
        asleep has no audio undecoded, however much of it is pushed.
        """
        await asyncio.sleep(0)
        limit = int(max_buffered_s * MODEL_SAMPLE_RATE)
        with self._lock:
            if self._is_drained(limit):
                return
            ready: Future[None] = Future()
            self._drained.append((limit, ready))
        await asyncio.wrap_future(ready)

    async def aclose(self) -> None:
        """Drop the stream; its slot is free on return. Idempotent.

        A step that is on the device is waited for. Cancelled meanwhile, the slot comes back by
        itself.
        """
        with self._lock:
            self._close()
            if not self._on_device:
                return
            freed: Future[None] = Future()  # one for each who waits: cancelling it cancels no other
            self._freed.append(freed)
        await asyncio.wrap_future(freed)

    def __aiter__(self) -> AsyncIterator[Transcript]:
        """Transcripts in order; ends after finish or aclose, raises if the stream failed."""
        return self._events

    def _check_open(self) -> None:
        if self._error is not None:
            raise StreamClosedError(
                f"the stream has failed ({self._error}); open a new one with engine.open()"
            ) from self._error
        if self._closed or self._ended:
            raise StreamClosedError("the stream has ended; open a new one with engine.open()")

    def _check_room(self, samples: int) -> None:
        incoming_s = samples / self.options.sample_rate
        buffered_s = self._backlog() / MODEL_SAMPLE_RATE
        if buffered_s + incoming_s > self.options.max_buffered_s:
            raise AudioOverflowError(
                f"{buffered_s:.1f} s of audio are waiting and {incoming_s:.1f} s more would pass "
                f"the bound of {self.options.max_buffered_s:g} s; none of this push was taken. "
                "Push at the speed of speech, await stream.drained() between pushes, or raise "
                "StreamOptions.max_buffered_s"
            )

    def _backlog(self) -> int:
        return self._audio.end - max(0, FRAME_SAMPLES * self._frame - SHORT_SAMPLES)

    def _ask_flush(self, *, last: bool) -> _Flush:
        with self._lock:
            if not last:
                self._check_open()
            flush = _Flush(self._audio.end, self._flushes, last, Future())
            self._flushes += 1
            self._marks.append(flush)
            self._advance()
            return flush

    async def _answer(self, flush: _Flush, deadline_s: float) -> Transcript:
        answer = asyncio.wrap_future(flush.answer)
        # Whoever asked may be cancelled; then an error is nobody's to hear.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(answer)
        except TimeoutError:
            with self._lock:
                if not flush.answer.done():  # answered by what is known; the rest comes later
                    self._answer_mid_speech(flush)
            return flush.answer.result()

    # ---- the device thread's side

    def take_work(self) -> Work | None:
        """The inputs of the step that the stream was queued for; None if it has closed since."""
        with self._lock:
            if self._closed:
                return None
            work = self._work()
            self._on_device = True
            return work

    def _work(self) -> Work:
        if self._fork is not None:
            fork = self._fork
            return Work(
                fork.window(),
                self.row,
                self._prompt,
                fork.lookahead,
                fresh=(fork.fresh or self._fresh) and fork.state is None,
                fork=True,
                more=fork.more,
                state=fork.state,
            )
        window = self._audio.read(*window_bounds(self._frame, self._lookahead + 1))
        return Work(window, self.row, self._prompt, self._lookahead, fresh=self._fresh)

    def accept(self, outcome: Outcome) -> None:
        """Take what a step made."""
        with self._lock:
            self._queued = self._on_device = False
            if self._closed:
                self._release()
            elif outcome.error is not None:
                self.fail(outcome.error)
            elif self._fork is not None:
                self._fork.accept(outcome.emissions, outcome.state)
                if self._fork.done:
                    self._end_fork(self._fork)
                self._advance()
            else:
                self._fresh = False
                self._frame += self._lookahead + 1
                self._keep_audio()
                self._add(
                    [self._host.token(emitted, self._slept_frames) for emitted in outcome.emissions]
                )
                self._advance()

    def fail(self, error: NemotronVoiceError) -> None:
        """End the stream with an error: pending flushes and the iteration raise it."""
        with self._lock:
            if not self._closed:
                self._error = error
                self._events.close(error)
                self._close(error)

    def abandon(self, error: NemotronVoiceError) -> None:
        """Fail, and free the slot at once: no step will come back from the device."""
        with self._lock:
            self.fail(error)
            self._release()

    def _advance(self) -> None:
        """Offer the next step, if there is one. What comes next is decided by samples alone."""
        if self._queued or self._closed:
            return
        self._serve_marks()
        while self._fork is None and self._sleeps():
            self._serve_marks()
        if self._fork is not None:
            self._queued = True
            now = time.monotonic()
            self._host.offer(Ready(self, self._fork.lookahead, now, now))
        elif self._chunk_end() <= self._audio.end:
            self._queued = True
            now = time.monotonic()
            chunk_s = (self._lookahead + 1) * FRAME_SAMPLES / MODEL_SAMPLE_RATE
            self._host.offer(Ready(self, self._lookahead, now, now + chunk_s))
        self._wake_drained()

    def _sleeps(self) -> bool:
        """Skip the next chunk if it goes on a long digital silence.

        Samples alone decide, and the state stays that of a caller who has long been silent: the
        first chunk with a sound in it is decoded as if the silence had been shorter.
        """
        if self._chunk_end() > self._audio.end:
            return False
        chunk = self._lookahead + 1
        if self._audio.read(*window_bounds(self._frame, chunk)).any():
            self._silent_frames = 0
            return False
        self._silent_frames += chunk
        if self._silent_frames <= ASLEEP_AFTER_FRAMES:
            return False
        self._frame += chunk
        self._slept_frames += chunk
        self._keep_audio()
        self._add([])
        return True

    def _add(self, tokens: list[Token]) -> None:
        """Publish what becomes of a chunk's tokens."""
        self._publish(self._finaliser.add(tokens, self._frame))
        self._publish_interim()

    def _chunk_end(self) -> int:
        return window_bounds(self._frame, self._lookahead + 1)[1]

    def _serve_marks(self) -> None:
        """Apply what was asked for before the end of the next chunk."""
        while self._fork is None and self._marks and self._chunk_end() > self._marks[0].at:
            mark = self._marks[0]
            if isinstance(mark, _Change):
                self._marks.popleft()
                if mark.prompt is not None:
                    self._prompt = mark.prompt
                    self._finaliser.forced_language = mark.forced_language
                self._lookahead = self._lookahead if mark.lookahead is None else mark.lookahead
            elif mark.answer.done():  # answered at its deadline
                self._marks.popleft()
            elif not mark.last and self._is_speaking(mark.at):
                self._marks.popleft()
                self._answer_mid_speech(mark)
            else:
                self._fork = self._begin_fork(mark)

    def _begin_fork(self, flush: _Flush) -> Fork:
        first = max(window_bounds(self._frame, 1)[0], 0)
        last_frame = -(-flush.at // FRAME_SAMPLES) + TAIL_FRAMES
        tail = self._audio.read(first, max(flush.at, first))
        return Fork(
            tail,
            first,
            self._frame,
            max(last_frame, self._frame),
            self._host.lookaheads,
            offset=self._slept_frames,
        )

    def _end_fork(self, fork: Fork) -> None:
        flush = self._marks[0]
        assert isinstance(flush, _Flush)  # noqa: S101 - a fork is only ever begun by its mark
        tokens = [self._host.token(emission, fork.offset) for emission in fork.emissions]
        if fork.fresh and any(token.confidence < RETRY_CONFIDENCE for token in tokens):
            tokens = []
        if not fork.fresh and not self._finaliser.has_words(tokens) and self._speech_before(flush):
            self._fork = self._retry_fork(flush)
            return
        self._fork = None
        self._marks.popleft()
        if not flush.answer.done():
            self._final_sample = flush.at
            frame = flush.at / FRAME_SAMPLES
            self._answer_flush(flush, self._finaliser.flush(tokens, frame, flush.flush_id))

    def _answer_mid_speech(self, flush: _Flush) -> None:
        frame = flush.at / FRAME_SAMPLES
        self._answer_flush(flush, self._finaliser.flush_mid_speech(frame, flush.flush_id))

    def _answer_flush(self, flush: _Flush, transcript: Transcript) -> None:
        self._publish([transcript])
        flush.answer.set_result(transcript)

    # ---- short words alone

    def _retry_fork(self, flush: _Flush) -> Fork:
        """Decode the audio since the last final once more, from a fresh state.

        The fresh state starts on the frame grid, so that its tokens' frames keep their meaning.
        """
        frame = self._retry_from(flush.at) // FRAME_SAMPLES
        first = frame * FRAME_SAMPLES
        samples = self._audio.read(first, flush.at)
        return Fork(
            samples,
            first,
            frame,
            -(-flush.at // FRAME_SAMPLES) + TAIL_FRAMES,
            self._host.lookaheads,
            fresh=True,
            offset=frame,
        )

    def _retry_from(self, at: int) -> int:
        return max(self._final_sample, at - int(RETRY_S * MODEL_SAMPLE_RATE), self._audio.first, 0)

    def _speech_before(self, flush: _Flush) -> bool:
        return has_speech(self._audio.read(min(self._retry_from(flush.at), flush.at), flush.at))

    def _is_speaking(self, at: int) -> bool:
        return is_speaking(self._audio.read(max(self._audio.first, at - RECENT_SAMPLES), at))

    def _keep_audio(self) -> None:
        """Forget what neither the next chunk nor a flush can need any more."""
        decoded = FRAME_SAMPLES * self._frame - PAST_SAMPLES
        self._audio.drop_before(max(0, decoded - int(RETRY_S * MODEL_SAMPLE_RATE)))

    # ---- events and the end

    def _publish(self, transcripts: list[Transcript]) -> None:
        for transcript in transcripts:
            self._final_sample = max(self._final_sample, round(transcript.end * MODEL_SAMPLE_RATE))
            if transcript.text or transcript.flush_id is not None:
                self._events.put(transcript)

    def _publish_interim(self) -> None:
        if self.options.interim_results:
            interim = self._finaliser.interim()
            if interim is not None:
                self._events.put(interim)

    def _wake_drained(self) -> None:
        if self._drained:
            still = []
            for limit, ready in self._drained:
                if self._is_drained(limit):
                    _resolve(ready)
                else:
                    still.append((limit, ready))
            self._drained = still

    def _is_drained(self, limit: int) -> bool:
        # Without a step on its way nothing gets less: what is there is no whole chunk.
        return self._closed or not self._queued or self._backlog() < limit

    def _close(self, error: NemotronVoiceError | None = None) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for mark in self._marks:
                if isinstance(mark, _Flush) and not mark.answer.done():
                    mark.answer.set_exception(
                        error or StreamClosedError("the stream was closed before its flush ended")
                    )
            self._marks.clear()
            self._wake_drained()
            self._events.close()
            if not self._on_device:  # else the device thread releases it, after its step
                self._release()

    def _release(self) -> None:
        self._on_device = False
        self._host.release(self)
        for freed in self._freed:
            _resolve(freed)
        self._freed.clear()


def _resolve(future: Future[None]) -> None:
    with contextlib.suppress(InvalidStateError):  # whoever waited was cancelled
        future.set_result(None)
