"""Matrix products in floating point: fp32 and bf16; int8_linear.py has those in int8.

Which kernels, and what they were measured against, is in docs/performance.md; `python -m
benchmarks.kernels` measures them again.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

Linear = Callable[[Tensor], Tensor]  # [..., inputs] -> [..., outputs]

# oneDNN lays weights out for a number of rows. Measured from 1 to 448 rows: 16 is never far from
# the best, and a third faster than weights that aren't laid out where rows are few.
_PACKED_FOR_ROWS: Final = 16
# In fp32, smaller matrices stay in the caches, where laying them out gains nothing.
_PACKED_FROM: Final = 500_000  # weights


def dense(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Linear:
    """Prepare `x @ weight.T + bias` in floating point.

    Args:
        weight: [outputs, inputs] fp32, on the device where it will run.
        bias: [outputs] fp32.
        dtype: float32 or bfloat16; of what it takes and gives, too.
    """
    weight, bias = weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype)
    if weight.device.type == "cpu" and _gains_by_layout(weight):
        return _PackedLinear(weight, bias)
    return lambda x: F.linear(x, weight, bias)


def _gains_by_layout(weight: Tensor) -> bool:
    """Whether a product is faster with weights that oneDNN has laid out; on x86-64, measured."""
    if weight.dtype == torch.bfloat16:
        return has_bf16()
    return (
        weight.numel() >= _PACKED_FROM
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and platform.machine() in {"x86_64", "AMD64"}
    )


@cache
def has_bf16() -> bool:
    """Whether oneDNN has bf16 kernels for this processor; AVX2 alone is not enough.

    Without them PyTorch multiplies in its own loops: right, and slower than fp32.
    """
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


class _PackedLinear:
    """On a CPU, with weights laid out for oneDNN once instead of at each call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001
            weight, _PACKED_FOR_ROWS
        )
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            x, self._weight, self._bias, "none", [], ""
        )
        return product
