"""Several processes that train apart and meet by the clock to average what they have learnt.

On a CPU two processes of one thread each do more work than one with two threads, and a process that
is held up by other work on the machine doesn't hold up the others.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import torch

PATIENCE_S = 120.0  # an evaluation may keep one away


@dataclass(slots=True)
class Table:
    """What the processes share: a row each to write on, and a gate to wait at."""

    rows: torch.Tensor  # [processes, numbers + 1], in shared memory
    gate: Any

    @staticmethod
    def lay(processes: int, numbers: int) -> Table:
        """A table for so many processes, which exchange so many numbers."""
        rows = torch.zeros(processes, numbers + 1).share_memory_()
        return Table(rows, torch.multiprocessing.get_context("spawn").Barrier(processes))


class Meeting:
    """The averaging of a process's tensors with the others', every `seconds`."""

    def __init__(self, rank: int, table: Table | None, seconds: float) -> None:
        self.rank, self.table, self.seconds = rank, table, seconds
        self.held = self.steps = 0
        if table is not None:
            table.gate.wait()
        self.began = time.monotonic()

    def average(self, tensors: list[torch.Tensor]) -> None:
        """To be called after each step: average in place if a meeting is due.

        A process counts by its steps since the last meeting. All hold equally many meetings.
        """
        if self.table is None:
            return
        self.steps += 1
        while time.monotonic() - self.began > (self.held + 1) * self.seconds:
            self.held += 1
            try:
                self._meet(tensors, self.table)
            except threading.BrokenBarrierError:  # the other has finished
                self.table = None
                return
            self.steps = 0

    def _meet(self, tensors: list[torch.Tensor], table: Table) -> None:
        row = table.rows[self.rank]
        at = 0
        for tensor in tensors:
            row[at : at + tensor.numel()] = tensor.detach().flatten()
            at += tensor.numel()
        row[at] = self.steps
        table.gate.wait(PATIENCE_S)
        share = table.rows[:, at] / table.rows[:, at].sum().clamp(min=1.0)
        if share.sum() > 0:
            mean = (table.rows[:, :at] * share[:, None]).sum(0)
            at = 0
            for tensor in tensors:
                tensor.data.copy_(mean[at : at + tensor.numel()].view_as(tensor))
                at += tensor.numel()
        table.gate.wait(PATIENCE_S)
