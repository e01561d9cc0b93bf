"""Memory: which rows of the state slab are taken, and by nobody else."""

from __future__ import annotations

import threading

from nemotron_voice.errors import EngineFullError


class Slots:
    """Rows 0..count-1 of the slab. A freed row is handed out again, reset by its next user."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._lock = threading.Lock()

    def take(self) -> int:
        """Give out a free row.

        Raises:
            EngineFullError: all are taken.
        """
        with self._lock:
            if not self._free:
                raise EngineFullError(
                    f"all {self.count} stream slots are in use; close a stream, or load the engine "
                    f"with a larger max_streams"
                )
            return self._free.pop()

    def give_back(self, row: int) -> None:
        """Return a row taken before."""
        with self._lock:
            if row in self._free or not 0 <= row < self.count:
                raise ValueError(f"slot {row} is not taken")
            self._free.append(row)

    @property
    def used(self) -> int:
        """How many rows are taken."""
        with self._lock:
            return self.count - len(self._free)
