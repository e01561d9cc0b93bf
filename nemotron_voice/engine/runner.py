"""Device: runs one batched step over the state slab. Only the engine's one thread calls it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from nemotron_voice.errors import StepFailedError
from nemotron_voice.model.features import window_samples
from nemotron_voice.model.fixed_steps import FixedSteps

if TYPE_CHECKING:
    from nemotron_voice.model.graphs import Capture
    from nemotron_voice.model.network import Emission, Network
    from nemotron_voice.model.state import StreamState

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    """One stream's part of a step.

    The state is that of the slab's `row`, from the beginning with `fresh`. A fork runs on a copy of
    it, or of `state` (its later steps), so the stream that it was taken from can't notice; where
    it ends is `state` of the Outcome, if the fork has not ended (`more`).
    """

    samples: NDArray[np.float32]  # [window_samples(lookahead)]
    row: int
    prompt: int
    lookahead: int
    fresh: bool = False
    fork: bool = False
    more: bool = False  # the fork will take further steps
    state: StreamState | None = None  # a slab of one row


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step gave one stream: its emissions, or the error that ended it."""

    emissions: list[Emission]
    state: StreamState | None = None
    error: StepFailedError | None = None


class Runner:
    """The network and the slab of all streams' states."""

    def __init__(
        self, network: Network, rows: int, max_batch: int, capture: Capture | None = None
    ) -> None:
        """Allocate the slab.

        Args:
            network: on its device.
            rows: streams.
            max_batch: works in one step at most; as many rows of the slab are the forks' own.
            capture: how steps of fixed shapes are launched; None: steps have the works' shapes, and
                the host leads the decoder, which is faster where the network runs on the host.
        """
        self._network = network
        self._rows = rows
        idle = rows + max_batch  # a row for padding, where there is any
        self._slab = network.initial_state(idle if capture is None else idle + 1)
        self._scratch = range(rows, idle)
        self._zero = torch.zeros(1, dtype=torch.int64, device=network.device)
        self._fixed = (
            None if capture is None else FixedSteps(network, self._slab, idle, max_batch, capture)
        )

    @property
    def state_bytes(self) -> int:
        """Memory of all streams' states."""
        return self._slab.nbytes * self._rows // self._slab.rows

    def warm_up(self) -> None:
        """Run a flush's steps in each latency mode, so that no caller's first one is slower.

        Kernels are made for a shape when it is first met, and weights read from disk when they are
        first used: on two cores the first step of the real size takes seconds. A flush forks the
        state, and goes on from what its first step left. Graphs are captured here, and never again.
        """
        if self._fixed is not None:
            self._fixed.build()
        for lookahead in self._network.config.lookaheads:
            silence = np.zeros(window_samples(lookahead), np.float32)
            fork = Work(silence, 0, 0, lookahead, fork=True, more=True)
            (first,) = self._step([replace(fork, fresh=True)])
            self._step([replace(fork, state=first.state)])
            self._step([fork])

    @torch.inference_mode()
    def run(self, works: Sequence[Work]) -> list[Outcome]:
        """Run one step for works of one latency mode; rows are all different or forks.

        A step that raises is repeated for each stream alone, so that what one stream did (or what
        one allocation failed at) ends that stream and no other. A step that failed has changed no
        state.
        """
        try:
            return self._step(works)
        except Exception as error:  # noqa: BLE001 - whatever it was, it ends the stream, not the engine
            if len(works) > 1:
                _log.warning("a step of %d failed (%s); running each alone", len(works), error)
                return [outcome for work in works for outcome in self.run([work])]
            _log.exception("a step failed for one stream")
            failure = StepFailedError(f"the model's step failed for this stream: {error}")
            failure.__cause__ = error
            return [Outcome([], error=failure)]

    def _step(self, works: Sequence[Work]) -> list[Outcome]:
        places = self._prepare(works)
        emissions = self._advance(
            [work.samples for work in works],
            places,
            [work.prompt for work in works],
            works[0].lookahead,
        )
        return [
            Outcome(
                emitted,
                state=self._slab.take(self._index([place])) if work.fork and work.more else None,
            )
            for work, place, emitted in zip(works, places, emissions, strict=True)
        ]

    def _advance(
        self,
        samples: list[NDArray[np.float32]],
        rows: list[int],
        prompts: list[int],
        lookahead: int,
    ) -> list[list[Emission]]:
        if self._fixed is not None:
            return self._fixed(samples, rows, prompts, lookahead)
        return self._network.step(
            torch.from_numpy(np.stack(samples)).to(self._network.device),
            self._slab,
            self._index(rows),
            self._index(prompts),
            lookahead,
        )

    def _prepare(self, works: Sequence[Work]) -> list[int]:
        """Put every work's state into a row of the slab that may change, and say which."""
        scratch = iter(self._scratch)
        places = [next(scratch) if work.fork else work.row for work in works]
        fresh = [place for work, place in zip(works, places, strict=True) if work.fresh]
        if fresh:
            self._network.restart(self._slab, self._index(fresh))
        for work, place in zip(works, places, strict=True):
            if work.state is not None:
                self._slab.copy_(self._index([place]), work.state, self._zero)
        forked = [
            (place, work.row)
            for work, place in zip(works, places, strict=True)
            if work.fork and work.state is None and not work.fresh
        ]
        if forked:
            into, origin = zip(*forked, strict=True)
            self._slab.copy_(self._index(into), self._slab, self._index(origin))
        return places

    def _index(self, numbers: Sequence[int]) -> torch.Tensor:
        device = self._network.device
        pinned = device.type == "cuda"  # or the copy would wait for the device
        return torch.tensor(numbers, pin_memory=pinned).to(device, non_blocking=True)
