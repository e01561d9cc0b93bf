"""Steps of fixed shapes over a slab: for a GPU, which replays them without a look from the host.

`Network.step` takes any number of rows and asks the device for each token. Here the number is
padded to one of a few sizes, everything that a step reads and writes lies where it always does, and
the host waits for the device once in a step (once more for each further pass of the decoder).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nemotron_voice.model.encoder import Advance
from nemotron_voice.model.features import window_samples
from nemotron_voice.model.graphs import Body, Capture
from nemotron_voice.model.network import Emission, Network, commit
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.transducer import Decoding, emissions_of


def sizes_up_to(largest: int) -> list[int]:
    """Numbers of rows that steps are made for, ascending.

    Powers of two, and from 16 on what lies halfway: at most a third of a larger step is padding.
    Below some 180 rows x frames a step takes as long as reading the weights does (1.3 GB), so there
    padding costs next to nothing; and each size costs start-up a second or so and memory.
    """
    powers = [2**power for power in range(largest.bit_length())]
    halfway = [3 * power // 2 for power in powers if power >= 16]
    return sorted({size for size in (*powers, *halfway) if size < largest} | {largest})


class FixedSteps:
    """The steps of one slab, one for each number of rows and look-ahead."""

    def __init__(
        self, network: Network, state: StreamState, idle: int, largest: int, capture: Capture
    ) -> None:
        """Allocate what goes in and out; nothing runs before `build`.

        Args:
            network: on its device.
            state: the slab.
            idle: a row of the slab that no stream has. Padding advances it, several times in one
                step: of what is written to it twice, anything may stay.
            largest: rows of a step at most.
            capture: how what a step launches is repeated.
        """
        self._network = network
        self._state = state
        self._idle = idle
        self._capture = capture
        self._sizes = sizes_up_to(largest)
        self._done = (
            torch.cuda.Event()  # type: ignore[no-untyped-call]
            if network.device.type == "cuda"
            else None
        )
        self._steps: dict[tuple[int, int], _Step] = {}
        # One buffer for all shapes: steps never overlap.
        farthest, device = max(network.config.lookaheads), network.device
        self._samples = _Twin.allocate(largest * window_samples(farthest), torch.float32, device)
        self._places = _Twin.allocate(2 * largest, torch.int64, device)
        self._record = _Twin.allocate(
            math.prod(network.transducer.record_shape(largest, farthest + 1)), torch.int32, device
        )

    @torch.inference_mode()
    def build(self) -> None:
        """Run and capture every step, the largest first: smaller ones fit into its memory."""
        shapes = [(r, size) for r in self._network.config.lookaheads for size in self._sizes]
        for lookahead, size in sorted(shapes, key=lambda shape: (shape[0] + 1) * shape[1])[::-1]:
            self._steps[lookahead, size] = self._step(lookahead, size)

    @torch.inference_mode()
    def __call__(
        self,
        samples: Sequence[NDArray[np.float32]],
        rows: Sequence[int],
        prompts: Sequence[int],
        lookahead: int,
    ) -> list[list[Emission]]:
        """Run one chunk of each row, as `Network.step` does; if anything raises, nothing changed.

        Args:
            samples: n of [window_samples(lookahead)], 16 kHz in -1..1.
            rows: n rows of the slab, no row twice.
            prompts: n prompt slots.
            lookahead: one of the model's.

        Returns:
            Each row's emissions.
        """
        count = len(rows)
        size = next(size for size in self._sizes if size >= count)
        step, padding = self._steps[lookahead, size], size - count
        np.stack(samples, out=step.samples.host.numpy()[:count])
        step.samples.host[count:] = 0  # or the last callers' voices stayed
        step.places.host[:] = torch.tensor(
            [[*rows, *[self._idle] * padding], [*prompts, *[0] * padding]]
        )
        step.samples.send()
        step.places.send()
        step.encode()
        record = step.record.host[:count]
        while True:
            step.decode()
            step.record.fetch()
            self._wait()
            if int(record[:, 0, 1].min()) > lookahead:  # every row has done its frames
                break
        step.commit()
        return emissions_of(record)  # while the device does the rest

    def _step(self, lookahead: int, size: int) -> _Step:
        """Make the step of a shape."""
        network, transducer, state = self._network, self._network.transducer, self._state
        samples = self._samples.view(size, window_samples(lookahead))
        places = self._places.view(2, size)
        record = self._record.view(*transducer.record_shape(size, lookahead + 1))
        rows, prompts = places.device
        rows.fill_(self._idle)  # the first run is padding only
        prompts.zero_()
        under_way: list[tuple[Advance, Decoding]] = []

        def encode() -> None:
            frames, after = network.encode(samples.device, state, rows, prompts, lookahead)
            idle = rows == self._idle  # padding has nothing to say, so the decoder is soon done
            decoding = transducer.begin(frames, state, rows, idle, record.device)
            under_way[:] = [(after, decoding)]

        def decode() -> None:
            _, decoding = under_way[0]
            transducer.advance(decoding)

        def finish() -> None:
            after, decoding = under_way[0]
            commit(state, rows, after, decoding.decoder)

        return _Step(samples, places, record, *self._capture((encode, decode, finish)))

    def _wait(self) -> None:
        """Wait for the device."""
        if self._done is not None:
            self._done.record(torch.cuda.current_stream(self._network.device))
            self._done.synchronize()


@dataclass(frozen=True, slots=True)
class _Twin:
    """Memory of the device and as much of the host's, where the device can reach it itself."""

    device: Tensor
    host: Tensor

    @classmethod
    def allocate(cls, size: int, dtype: torch.dtype, device: torch.device) -> _Twin:
        pinned = device.type == "cuda"
        return cls(
            torch.zeros(size, dtype=dtype, device=device),
            torch.zeros(size, dtype=dtype, pin_memory=pinned),
        )

    def view(self, *shape: int) -> _Twin:
        """The beginning of it."""
        size = math.prod(shape)
        return _Twin(self.device[:size].view(shape), self.host[:size].view(shape))

    def send(self) -> None:
        self.device.copy_(self.host, non_blocking=True)

    def fetch(self) -> None:
        self.host.copy_(self.device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of one shape: what goes in and out, and its parts in their order."""

    samples: _Twin  # [n, window_samples(lookahead)] fp32
    places: _Twin  # [2, n] int64: rows of the slab, prompts
    record: _Twin  # as `Decoding` describes it
    encode: Body  # changes no row
    decode: Body  # neither; repeated until every row is done
    commit: Body
