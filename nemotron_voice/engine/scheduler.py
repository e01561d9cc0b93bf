"""Policy: which streams share the next step on the device.

Work-conserving: a step starts as soon as the device is free and anything is ready; no tick, no
batching delay. One step serves one latency mode (its chunks have one shape), so the mode of the
earliest deadline goes first and takes along every other ready stream of that mode.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemotron_voice.engine.stream import Stream


@dataclass(frozen=True, slots=True)
class Ready:
    """A stream with a step to run: a full chunk of audio, or a step of its flush."""

    stream: Stream
    lookahead: int
    since: float  # monotonic seconds: when it became ready
    deadline: float  # a chunk is due before the next one, a flush at once


class Scheduler:
    """Earliest deadline first over the streams that are ready. Thread-safe."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._ready: list[Ready] = []
        self._changed = threading.Condition()
        self._closed = False

    def offer(self, ready: Ready) -> None:
        """Queue a stream; it must not be queued already. After close() it is ignored."""
        with self._changed:
            if not self._closed:
                self._ready.append(ready)
                self._changed.notify()

    def withdraw(self, stream: Stream) -> None:
        """Forget the step of a stream that has ended."""
        with self._changed:
            self._ready = [ready for ready in self._ready if ready.stream is not stream]

    def next_batch(self) -> list[Ready] | None:
        """Wait for work, then take the streams of the next step; None once closed."""
        with self._changed:
            while not self._ready and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._ready.sort(key=_deadline)
            lookahead = self._ready[0].lookahead
            batch: list[Ready] = []
            later: list[Ready] = []
            for ready in self._ready:
                fits = ready.lookahead == lookahead and len(batch) < self._max_batch
                if fits:
                    batch.append(ready)
                else:
                    later.append(ready)
            self._ready = later
            return batch

    def close(self) -> None:
        """Wake the device thread to end; what was queued stays undone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Streams ready but not yet on the device."""
        with self._changed:
            return len(self._ready)


def _deadline(ready: Ready) -> float:
    return ready.deadline
