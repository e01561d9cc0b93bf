"""Device: runs one batched step over the state slab. Only the engine's one thread calls it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nemotron_voice.errors import StepFailedError
from nemotron_voice.model.state import StreamState

if TYPE_CHECKING:
    from nemotron_voice.model.network import Emission, Network

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    """One stream's part of a step.

    The state comes from the slab's `row` (a stream), from `state` (the later steps of a flush), or
    is a new stream's (`fresh`). It goes back to the row, or, with `fork`, into `state` of the
    Outcome: a fork never writes to the slab, so the stream that it was taken from can't notice.
    """

    samples: NDArray[np.float32]  # [window_samples(lookahead)]
    row: int
    prompt: int
    lookahead: int
    fresh: bool = False
    fork: bool = False
    state: StreamState | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step gave one stream: its emissions, or the error that ended it."""

    emissions: list[Emission]
    state: StreamState | None = None
    error: StepFailedError | None = None


class Runner:
    """The network and the slab of all streams' states."""

    def __init__(self, network: Network, rows: int) -> None:
        self._network = network
        self._slab = StreamState.allocate(network.config, rows, network.device, network.dtype)
        self._initial = network.initial_state(1)

    @property
    def state_bytes(self) -> int:
        """Memory of all streams' states."""
        return self._slab.nbytes

    @torch.inference_mode()
    def run(self, works: Sequence[Work]) -> list[Outcome]:
        """Run one step for works of one latency mode; rows are all different or forks.

        A step that raises is repeated for each stream alone, so that what one stream did (or what
        one allocation failed at) ends that stream and no other. The network's step is pure: what
        failed has changed no state.
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
        device = self._network.device
        samples = torch.from_numpy(np.stack([work.samples for work in works])).to(device)
        prompts = torch.tensor([work.prompt for work in works], device=device)
        after, emissions = self._network.step(
            samples, self._gather(works), prompts, works[0].lookahead
        )
        kept = [place for place, work in enumerate(works) if not work.fork]
        if kept:
            rows = torch.tensor([works[place].row for place in kept], device=device)
            self._slab.scatter_(rows, after.gather(torch.tensor(kept, device=device)))
        return [
            Outcome(
                emissions[place],
                state=after.gather(torch.tensor([place], device=device)) if work.fork else None,
            )
            for place, work in enumerate(works)
        ]

    def _gather(self, works: Sequence[Work]) -> StreamState:
        device = self._network.device
        if all(work.state is None and not work.fresh for work in works):
            return self._slab.gather(torch.tensor([work.row for work in works], device=device))
        return _concatenate([self._state_of(work) for work in works])

    def _state_of(self, work: Work) -> StreamState:
        if work.state is not None:
            return work.state
        if work.fresh:
            return self._initial
        return self._slab.gather(torch.tensor([work.row], device=self._network.device))


def _concatenate(states: Sequence[StreamState]) -> StreamState:
    """Stack the rows of several states into one."""
    columns: dict[str, Any] = {}
    for field in fields(StreamState):
        values = [getattr(state, field.name) for state in states]
        if isinstance(values[0], torch.Tensor):
            columns[field.name] = torch.cat(values)
        else:
            columns[field.name] = [torch.cat(column) for column in zip(*values, strict=True)]
    return StreamState(**columns)
