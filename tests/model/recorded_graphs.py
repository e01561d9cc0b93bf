"""What CUDA graphs do, done on a CPU: operations recorded once, then repeated on the same tensors.

Python doesn't run again: a body that asks for a number, takes another branch or makes a new tensor
the second time is caught, as its replay would go on with those of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Body = Callable[[], None]


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("the host asked the device for a number")
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        with torch.inference_mode():
            for function, args, kwargs, result in self.operations:
                again = function(*args, **kwargs)
                for mine, its in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    # Same memory: a view, or an operation in place.
                    if isinstance(mine, Tensor) and mine.data_ptr() != its.data_ptr():
                        mine.copy_(its)


def record(bodies: Sequence[Body]) -> list[Body]:
    """Run the bodies once, then record each: a Capture."""
    for body in bodies:
        body()
    replays = []
    for body in bodies:
        with _Recording() as recording:
            body()
        replays.append(recording.replay)
    return replays
