"""The engine: one copy of the model, one device thread, many streams."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from nemotron_voice import languages as language_table
from nemotron_voice.config import (
    DEFAULT_MODEL,
    FRAME_MS,
    EngineOptions,
    StreamOptions,
    lookahead_of,
)
from nemotron_voice.engine.files import FileBatch, run_apart
from nemotron_voice.engine.runner import Runner, Work
from nemotron_voice.engine.scheduler import Ready, Scheduler
from nemotron_voice.engine.slots import Slots
from nemotron_voice.engine.stream import Stream
from nemotron_voice.errors import (
    EngineClosedError,
    StepFailedError,
    UnsupportedLatencyError,
)
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.graphs import capture_for
from nemotron_voice.model.network import Network
from nemotron_voice.transcript import Token, Transcript

if TYPE_CHECKING:
    from nemotron_voice.model.checkpoint import Checkpoint
    from nemotron_voice.model.network import Emission

_log = logging.getLogger(__name__)

# A process that ends waits so long for the step on its device; the slowest takes about a second.
EXIT_S = 10.0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How busy an engine is."""

    streams: int
    max_streams: int
    waiting: int  # streams ready for a step
    steps: int  # since the engine was loaded
    step_ms: float | None  # median of the last 100 steps
    batch: float | None  # mean streams a step, of the last 100
    state_bytes: int


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did, for whoever measures."""

    latency_ms: int  # the mode that its streams share
    step_s: float  # on the device
    waits_s: tuple[float, ...]  # of each stream, from having a full chunk to the step's begin
    late_s: tuple[
        float, ...
    ]  # of each stream, from its deadline to the step's end; negative: early


class Engine:
    """A Recognizer in this process.

    `Engine.load("demo")` runs the bundled checkpoint; `Engine.load()` the real one. Bound to no
    event loop: streams may be used from several loops and threads at once.
    """

    def __init__(self, checkpoint: Checkpoint, options: EngineOptions | None = None) -> None:
        self.options = options or EngineOptions()
        self.model_name = checkpoint.name
        self._languages = checkpoint.languages
        self._tokens = [
            Token(piece, 0, 0.0, _tag_language(checkpoint.tokenizer.tag(token_id)))
            for token_id, piece in enumerate(
                checkpoint.tokenizer.piece(token_id)
                for token_id in range(checkpoint.tokenizer.size)
            )
        ]
        self._slots = Slots(self.options.max_streams)
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._failure: BaseException | None = None  # what the device thread died of
        self._steps = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=100)  # seconds, streams
        self._observers: list[Callable[[StepReport], None]] = []
        loaded: Future[tuple[Network, Runner, Scheduler]] = Future()
        # Taken out by the thread: what it is given itself, it keeps as long as it runs.
        given = [checkpoint]
        self._thread = threading.Thread(
            target=self._run, args=(given, loaded), name="nemotron-voice-device", daemon=True
        )
        self._thread.start()
        network, self._runner, self._scheduler = loaded.result()
        atexit.register(self._end_at_exit, weakref.ref(self))
        self._lookaheads = network.config.lookaheads
        self._auto_prompt = language_table.AUTO_PROMPT_INDEX if network.config.num_prompts else -1

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        offline: bool = False,
        **options: Any,
    ) -> Self:
        """Load a model, start its device thread and run a first step of each latency mode.

        Args:
            model: a hub id, "demo" (bundled), or a local `.nemo` file or Hugging Face folder.
            revision: branch, tag or commit of a hub id.
            offline: use only what is in the local hub cache.
            options: fields of EngineOptions (device, precision, max_streams, ...).

        Raises:
            ModelNotFoundError, CheckpointError, ConfigurationError.
        """
        engine_options = EngineOptions(**options)
        return cls(load_checkpoint(model, revision=revision, offline=offline), engine_options)

    @property
    def languages(self) -> tuple[str, ...]:
        """Locales that the model can transcribe."""
        return self._languages

    def open(self, options: StreamOptions | None = None, **overrides: Any) -> Stream:
        """Open a stream; `overrides` are fields of StreamOptions.

        Raises:
            EngineFullError: all slots are taken.
            EngineClosedError: close() was called, or the device thread has failed.
            ConfigurationError: an option has no such value, or the model lacks the language.
        """
        stream_options = replace(options or StreamOptions(), **overrides)
        self.resolve_language(stream_options.language)
        self.resolve_latency(stream_options.latency_ms)
        with self._lock:
            if self._closed:
                raise self._why_closed()
            row = self._slots.take()
            stream = Stream(self, row, stream_options)
            self._streams.add(stream)
            return stream

    def transcribe(
        self,
        paths: Iterable[str | Path],
        *,
        language: object = language_table.AUTO,
        latency_ms: int = 1120,
        progress: Callable[[Path, float], None] | None = None,
    ) -> list[list[Transcript]]:
        """Transcribe whole files, as many at a time as find a slot, at the speed of the device.

        A file waits for its slot while streams hold them all, be it this batch's, other callers' or
        another batch's: close what the calling thread itself holds before. Ctrl+C ends the batch
        within a step.

        Args:
            paths: audio files of any format and rate.
            language: "auto" or a locale, for all files.
            latency_ms: the mode; the largest is the most accurate and the cheapest.
            progress: called with each file and the seconds of it that have been fed.

        Returns:
            For each file its finals, a sentence each.

        Raises:
            AudioDecodeError: of the first file that can't be read.
            EngineClosedError: the engine was closed, or has failed, meanwhile.
        """
        files = [Path(path) for path in paths]
        options = StreamOptions(
            language=language, latency_ms=latency_ms, finalize="sentence", interim_results=False
        )
        self.resolve_language(language)
        return run_apart(FileBatch(self, options, progress).transcribe(files))

    @property
    def failure(self) -> EngineClosedError | None:
        """Why the engine can't go on, if its device thread has failed: only a new one helps."""
        return None if self._failure is None else self._why_closed()

    def stats(self) -> EngineStats:
        """A snapshot for metrics; cheap."""
        recent = list(self._recent)
        return EngineStats(
            streams=self._slots.used,
            max_streams=self._slots.count,
            waiting=self._scheduler.waiting,
            steps=self._steps,
            step_ms=1e3 * median(seconds for seconds, _ in recent) if recent else None,
            batch=sum(streams for _, streams in recent) / len(recent) if recent else None,
            state_bytes=self._runner.state_bytes,
        )

    def observe(self, observer: Callable[[StepReport], None]) -> None:
        """Call `observer` after each step, on the device thread: it must be quick.

        One that raises is logged, and not called again.
        """
        self._observers.append(observer)

    def close(self) -> None:
        """Stop the device thread; open streams fail with EngineClosedError. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._end_thread()
        self._abandon_streams(EngineClosedError("the engine was closed while the stream was open"))

    @staticmethod
    def _end_at_exit(reference: weakref.ref[Engine]) -> None:
        """Let the step on the device end before the interpreter does.

        A daemon thread that comes back from PyTorch to an interpreter that is going is ended inside
        C++, which aborts the process: "terminate called without an active exception", SIGABRT.
        """
        engine = reference()
        if engine is not None:
            engine._end_thread(EXIT_S)  # noqa: SLF001 - this class' own

    def _end_thread(self, timeout_s: float | None = None) -> None:
        self._scheduler.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _abandon_streams(self, error: EngineClosedError) -> None:
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.abandon(error)

    def _why_closed(self) -> EngineClosedError:
        if self._failure is None:
            return EngineClosedError("the engine is closed; load a new one with Engine.load()")
        error = EngineClosedError(
            f"the engine's device thread has failed ({self._failure!r}); its streams have ended. "
            "Load a new engine with Engine.load(), and report the log's traceback"
        )
        error.__cause__ = self._failure
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- what streams need of their engine (stream.Host)

    def offer(self, ready: Ready) -> None:
        """Queue a step of a stream."""
        self._scheduler.offer(ready)

    def release(self, stream: Stream) -> None:
        """Take a stream's slot back, and its queued step; it won't run again. Idempotent."""
        self._scheduler.withdraw(stream)
        with self._lock:
            if stream in self._streams:
                self._streams.discard(stream)
                self._slots.give_back(stream.row)

    def token(self, emission: Emission, offset: int = 0) -> Token:
        """The text of an emission, `offset` frames into the stream."""
        token = self._tokens[emission.token_id]
        return Token(token.text, emission.frame + offset, emission.confidence, token.language)

    def resolve_language(self, language: object) -> tuple[int, str | None]:
        """Prompt index, and the locale where one is forced.

        Raises:
            ConfigurationError: no such language, or not one of this model's.
        """
        code = language_table.resolve(language, self._languages)
        if self._auto_prompt < 0:  # a model of one language has no prompt, and writes no tags
            return -1, self._languages[0]
        if code == language_table.AUTO:
            return self._auto_prompt, None
        return language_table.BY_CODE[code].prompt_index, code

    @property
    def lookaheads(self) -> tuple[int, ...]:
        """Look-aheads that the model offers, in encoder frames of 80 ms."""
        return self._lookaheads

    def resolve_latency(self, latency_ms: int) -> int:
        """Look-ahead of a latency mode.

        Raises:
            UnsupportedLatencyError: no such mode, or not one that this model was made for.
        """
        lookahead = lookahead_of(latency_ms)
        if lookahead not in self._lookaheads:
            allowed = ", ".join(str(FRAME_MS * (right + 1)) for right in self._lookaheads)
            raise UnsupportedLatencyError(
                f"{self.model_name} has no mode of latency_ms={latency_ms}; choose one of {allowed}"
            )
        return lookahead

    # ---- the device thread

    def _load(self, checkpoint: Checkpoint) -> tuple[Network, Runner, Scheduler]:
        """Put the model on the device, and run a first step of each mode.

        On the thread that will run it: OpenMP keeps a team of threads for each thread that has
        ever used it, and once there are more of them than cores, all of them sleep and are woken
        for each product. Measured with a model built on another thread: a step took 96 ms instead
        of 53.
        """
        options = self.options
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        network = Network.from_checkpoint(
            checkpoint, device=options.device, precision=options.precision
        )
        max_batch = options.batch_on(network.device.type)
        runner = Runner(
            network,
            options.max_streams,
            max_batch,
            capture_for(network.device, graphs=options.cuda_graphs),
        )
        runner.warm_up()
        return network, runner, Scheduler(max_batch)

    def _run(
        self, given: list[Checkpoint], loaded: Future[tuple[Network, Runner, Scheduler]]
    ) -> None:
        try:
            parts = self._load(given.pop())
        except BaseException as error:  # noqa: BLE001 - whoever loads the engine is told
            loaded.set_exception(error)
            return
        _, runner, scheduler = parts
        loaded.set_result(parts)
        try:
            while (batch := scheduler.next_batch()) is not None:
                self._step(runner, batch)
        except BaseException as error:  # noqa: BLE001 - every stream and open() are told
            self._fail(error)

    def _step(self, runner: Runner, batch: Sequence[Ready]) -> None:
        taken = [(ready, work) for ready in batch if (work := self._take_work(ready.stream))]
        if not taken:
            return
        began = time.monotonic()
        outcomes = runner.run([work for _, work in taken])
        self._note_step([ready for ready, _ in taken], began, time.monotonic())
        for (ready, _), outcome in zip(taken, outcomes, strict=True):
            try:
                ready.stream.accept(outcome)
            except Exception as error:  # noqa: BLE001 - a fault in one stream ends that one only
                _fail_stream(ready.stream, "transcript", error)

    def _take_work(self, stream: Stream) -> Work | None:
        try:
            return stream.take_work()
        except Exception as error:  # noqa: BLE001 - as above
            _fail_stream(stream, "audio", error)
            return None

    def _note_step(self, batch: Sequence[Ready], began: float, ended: float) -> None:
        self._recent.append((ended - began, len(batch)))
        self._steps += 1
        for observer in list(self._observers):
            report = StepReport(
                latency_ms=FRAME_MS * (batch[0].lookahead + 1),
                step_s=ended - began,
                waits_s=tuple(began - ready.since for ready in batch),
                late_s=tuple(ended - ready.deadline for ready in batch),
            )
            try:
                observer(report)
            except Exception:  # noqa: BLE001 - whoever measures is no reason to stop hearing
                _log.exception("an observer of the engine failed; it is called no more")
                self._observers.remove(observer)

    def _fail(self, error: BaseException) -> None:
        """End what can't go on without the device thread: every stream, and open()."""
        _log.critical("the device thread failed, and with it the engine", exc_info=error)
        with self._lock:
            self._closed, self._failure = True, error
        self._scheduler.close()
        self._abandon_streams(self._why_closed())


def _fail_stream(stream: Stream, what: str, error: Exception) -> None:
    _log.error("a stream failed", exc_info=error)
    failure = StepFailedError(f"the stream failed on its {what}: {error}")
    failure.__cause__ = error
    stream.fail(failure)


def _tag_language(spelling: str | None) -> str | None:
    return language_table.locale_of_tag(spelling) if spelling else None
