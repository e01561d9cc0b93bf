"""CUDA graphs: what Python launches once, kernel by kernel, the device then repeats in one launch.

A step is a thousand kernels of a few microseconds each; launched one by one, launching takes longer
than they do [NeMo PR #15863: 3 to 5 times, at 80 ms].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Body = Callable[[], None]
# Makes of bodies, which run one after the other, what repeats each of them.
Capture = Callable[[Sequence[Body]], list[Body]]


def capture_for(device: torch.device, *, graphs: bool) -> Capture | None:
    """How a device is to run steps of fixed shapes; None: it isn't, as it is a CPU."""
    if device.type != "cuda":
        return None
    return CudaGraphs(device) if graphs else launch_each


def launch_each(bodies: Sequence[Body]) -> list[Body]:
    """Capture nothing: a body is repeated by running it."""
    return list(bodies)


class CudaGraphs:
    """Captures bodies, all into one pool of memory.

    What a capture allocates is the pool's, and what its tensors no longer hold, the next capture
    gets. So the bodies of one call may hand tensors on to each other, and their graphs must be
    replayed together, in that order; graphs of different calls in any order, but never at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, bodies: Sequence[Body]) -> list[Body]:
        """Run the bodies once, then capture each."""
        with torch.cuda.device(self._device):
            # Plans of cuFFT, handles and workspaces of cuBLAS, and kernels are made when they are
            # first used, which a capture forbids; and workspaces are kept for each stream, so this
            # is the one that captures.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for body in bodies:
                    body()
            torch.cuda.current_stream().wait_stream(self._stream)
            return [self._graph(body).replay for body in bodies]

    def _graph(self, body: Body) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads of the process do with the GPU is their business.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            body()
        return graph
