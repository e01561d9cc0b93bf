"""Whole files through one engine, as many at a time as find a slot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nemotron_voice.audio import read_file
from nemotron_voice.errors import EngineFullError
from nemotron_voice.hear import hear

if TYPE_CHECKING:
    from nemotron_voice.config import StreamOptions
    from nemotron_voice.engine.engine import Engine
    from nemotron_voice.engine.stream import Stream
    from nemotron_voice.transcript import Transcript

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# The engine tells nobody that another caller's slot came free; a file of this batch does.
ASK_AGAIN_S = 0.05


class FileBatch:
    """Files that share an engine with whoever else has streams on it."""

    def __init__(
        self,
        engine: Engine,
        options: StreamOptions,
        progress: Callable[[Path, float], None] | None,
    ) -> None:
        """Name what `Engine.transcribe` was asked for.

        Args:
            engine: opens the streams.
            options: of each; the file's sample rate is put in.
            progress: called with each file and the seconds of it that have been fed.
        """
        self._engine = engine
        self._options = options
        self._progress = progress or (lambda _path, _seconds: None)
        self._streams: set[Stream] = set()  # this batch's own
        self._turn = asyncio.Lock()  # files ask for a slot one after another, in their order
        self._freed = asyncio.Event()

    async def transcribe(self, paths: Sequence[Path]) -> list[list[Transcript]]:
        """Finals of each file, in order.

        Raises:
            AudioDecodeError: of the first file that can't be read.
        """
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:  # its end is that of all: each frees its slot
                tasks = [group.create_task(self._transcribe(path)) for path in paths]
        except ExceptionGroup as failures:
            failure = failures.exceptions[0]
        if failure is not None:
            raise failure  # with the cause that it has itself
        return [task.result() for task in tasks]

    async def _transcribe(self, path: Path) -> list[Transcript]:
        async with self._turn:
            audio = read_file(path)
            stream = await self._open(audio.sample_rate)
        self._streams.add(stream)
        finals: list[Transcript] = []

        def take(transcript: Transcript) -> None:
            if transcript.is_final and transcript.text:
                finals.append(transcript)

        progress = partial(self._progress, path)
        try:
            await hear(stream, audio, realtime=False, on_transcript=take, on_progress=progress)
        finally:
            self._streams.discard(stream)
            self._freed.set()
        return finals

    async def _open(self, sample_rate: int) -> Stream:
        """Open a stream as soon as there is a slot."""
        told = False
        while True:
            self._freed.clear()
            try:
                return self._engine.open(self._options, sample_rate=sample_rate)
            except EngineFullError as full:
                if not (self._streams or told):
                    told = True
                    _log.warning("no file goes on until another stream ends: %s", full)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_S):
                    await self._freed.wait()


def run_apart(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in a loop of its own, also from inside a running one; Ctrl+C cancels it."""
    cancel: Future[Callable[[], object]] = Future()

    async def main() -> _T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        cancel.set_result(partial(task.get_loop().call_soon_threadsafe, task.cancel))
        return await work

    with ThreadPoolExecutor(1, thread_name_prefix="nemotron-voice-files") as executor:
        try:
            return executor.submit(asyncio.run, main()).result()
        except (KeyboardInterrupt, SystemExit):  # this thread's; the other would go on to the end
            with contextlib.suppress(RuntimeError):  # it has ended just now
                cancel.result()()
            raise
