"""Each measurement in a process of its own: a long sweep in one gets slower, and memory stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import ParamSpec, TypeVar

from nemotron_voice.errors import NemotronVoiceError

Progress = Callable[[str], None]  # told a line at a time; a function of a module, to be pickled

_P = ParamSpec("_P")
_R = TypeVar("_R")


class MeasurementError(NemotronVoiceError):
    """A measurement couldn't be made; nothing can be said about the engine."""


def in_fresh_process(function: Callable[_P, _R], *arguments: _P.args, **options: _P.kwargs) -> _R:
    """Call a function of a module in a new process, and return what it returns.

    Raises:
        MeasurementError: the process died.
    """
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        try:
            return pool.submit(function, *arguments, **options).result()
        except BrokenProcessPool as error:
            raise MeasurementError(
                "the measured process died, most likely for want of memory; take fewer streams or "
                "precision int8"
            ) from error


def _end_with_parent() -> None:
    """Don't outlive a benchmark that was killed: it would slow the next one."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True, name="watch-parent").start()


def resident_bytes() -> int:
    """Memory of this process that is really there (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
