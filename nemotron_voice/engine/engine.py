"""The engine: one copy of the model, one device thread, many streams."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch

from nemotron_voice import languages as language_table
from nemotron_voice.audio import read_file
from nemotron_voice.config import (
    DEFAULT_MODEL,
    FRAME_MS,
    EngineOptions,
    StreamOptions,
    lookahead_of,
)
from nemotron_voice.engine.runner import Runner
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
_T = TypeVar("_T")


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
        self._steps = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=100)  # seconds, streams
        self._observers: list[Callable[[StepReport], None]] = []
        loaded: Future[tuple[Network, Runner, Scheduler]] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(checkpoint, loaded), name="nemotron-voice-device", daemon=True
        )
        self._thread.start()
        network, self._runner, self._scheduler = loaded.result()
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
            EngineClosedError: close() was called.
            ConfigurationError: an option has no such value, or the model lacks the language.
        """
        stream_options = replace(options or StreamOptions(), **overrides)
        self.resolve_language(stream_options.language)
        self.resolve_latency(stream_options.latency_ms)
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine is closed; load a new one with Engine.load()")
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
        """Transcribe whole files, several at a time, at the speed of the device.

        Args:
            paths: audio files of any format and rate.
            language: "auto" or a locale, for all files.
            latency_ms: the mode; the largest is the most accurate and the cheapest.
            progress: called with each file and the seconds of it that have been fed.

        Returns:
            For each file its finals, a sentence each.

        Raises:
            AudioDecodeError: of the first file that can't be read.
        """
        files = [Path(path) for path in paths]
        options = StreamOptions(
            language=language, latency_ms=latency_ms, finalize="sentence", interim_results=False
        )
        self.resolve_language(language)

        async def all_files() -> list[list[Transcript]]:
            at_once = asyncio.Semaphore(max(1, self._slots.count - self._slots.used))
            return await asyncio.gather(
                *(self._transcribe_file(path, options, at_once, progress) for path in files)
            )

        return _run_apart(all_files())

    async def _transcribe_file(
        self,
        path: Path,
        options: StreamOptions,
        at_once: asyncio.Semaphore,
        progress: Callable[[Path, float], None] | None,
    ) -> list[Transcript]:
        async with at_once:
            audio = read_file(path)
            stream = self.open(options, sample_rate=audio.sample_rate)
            finals: list[Transcript] = []

            async def collect() -> None:
                finals.extend([t async for t in stream if t.is_final and t.text])

            collector = asyncio.create_task(collect())
            try:
                fed_s = 0.0
                for block in audio:
                    stream.push(block)
                    fed_s += len(block) / audio.sample_rate
                    if progress is not None:
                        progress(path, fed_s)
                    await stream.drained(max_buffered_s=5.0)
                await stream.finish()
                await collector
            finally:
                collector.cancel()
                await stream.aclose()
            return finals

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
        """Call `observer` after each step, on the device thread: it must be quick."""
        self._observers.append(observer)

    def close(self) -> None:
        """Stop the device thread; open streams fail with EngineClosedError. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._scheduler.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for stream in list(self._streams):
            stream.fail(EngineClosedError("the engine was closed while the stream was open"))

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
        """Take a stream's slot back; it won't run again."""
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
        self, checkpoint: Checkpoint, loaded: Future[tuple[Network, Runner, Scheduler]]
    ) -> None:
        try:
            parts = self._load(checkpoint)
        except BaseException as error:  # noqa: BLE001 - whoever loads the engine is told
            loaded.set_exception(error)
            return
        del checkpoint
        _, runner, scheduler = parts
        loaded.set_result(parts)
        while (batch := scheduler.next_batch()) is not None:
            taken = [(ready, work) for ready in batch if (work := ready.stream.take_work())]
            if not taken:
                continue
            began = time.monotonic()
            outcomes = runner.run([work for _, work in taken])
            self._note_step([ready for ready, _ in taken], began, time.monotonic())
            for (ready, _), outcome in zip(taken, outcomes, strict=True):
                stream = ready.stream
                try:
                    stream.accept(outcome)
                except Exception as error:  # noqa: BLE001 - a fault in one stream ends that one only
                    _log.exception("a stream failed")
                    failure = StepFailedError(f"the stream failed on its transcript: {error}")
                    failure.__cause__ = error
                    stream.fail(failure)

    def _note_step(self, batch: Sequence[Ready], began: float, ended: float) -> None:
        self._recent.append((ended - began, len(batch)))
        self._steps += 1
        for observer in self._observers:
            observer(
                StepReport(
                    latency_ms=FRAME_MS * (batch[0].lookahead + 1),
                    step_s=ended - began,
                    waits_s=tuple(began - ready.since for ready in batch),
                    late_s=tuple(ended - ready.deadline for ready in batch),
                )
            )


def _tag_language(spelling: str | None) -> str | None:
    return language_table.locale_of_tag(spelling) if spelling else None


def _run_apart(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in a loop of its own, also from inside a running one."""
    with ThreadPoolExecutor(1, thread_name_prefix="nemotron-voice-files") as executor:
        return executor.submit(asyncio.run, work).result()
