"""Matrix products in the precisions that the network runs in: fp32, bf16, int8.

Which kernels, and what they were measured against, is in docs/performance.md; `python -m
benchmarks.kernels` measures them again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.errors import ConfigurationError

Linear = Callable[[Tensor], Tensor]  # [..., inputs] -> [..., outputs]

# oneDNN lays weights out for a number of rows. Measured from 1 to 448 rows: 16 is never far from
# the best, and a third faster than weights that aren't laid out where rows are few.
_PACKED_FOR_ROWS: Final = 16
_INT8_MAX: Final = 127
_INT7_MAX: Final = 63
_SMALLEST: Final = 1e-12  # scale of a row of zeros
_ZERO_POINT: Final = 128  # what 0 is in activations from 1 to 255
_FEW_OUTPUTS: Final = 256


def dense(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Linear:
    """Prepare `x @ weight.T + bias` in floating point.

    Args:
        weight: [outputs, inputs] fp32, on the device where it will run.
        bias: [outputs] fp32.
        dtype: float32 or bfloat16; of what it takes and gives, too.
    """
    weight, bias = weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype)
    if dtype == torch.bfloat16 and weight.device.type == "cpu":
        return _PackedLinear(weight, bias)
    return lambda x: F.linear(x, weight, bias)


class _PackedLinear:
    """bf16 on a CPU, with weights laid out for oneDNN once instead of at each call."""

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


@cache
def has_amx() -> bool:
    """Whether activations from -127 to 127 are faster than those from 1 to 255; sums are the same.

    AMX takes both, signed ones a little faster at one row. Without it, and up to 256 outputs with
    it, oneDNN runs signed ones in a loop that is there for completeness: measured, 60 ms instead of
    0.1 for 1024 x 4096, and 3.6 ms instead of 0.03 for 768 x 192.
    """
    return bool(torch.cpu._is_amx_tile_supported())  # noqa: SLF001


@cache
def largest_weight() -> int:
    """Largest int8 weight that this processor's kernel multiplies without overflow.

    Without VNNI (before 2018, and on many AVX2 machines) pairs of products are summed in 16 bits
    and saturate [oneDNN, "Nuances of int8 computations"]; weights of 7 bits don't. Which it is is
    found by multiplying the largest.
    """
    ones = torch.full((32, 64), _INT8_MAX, dtype=torch.int8)
    product = Int8Linear(ones, torch.ones(32), None)(torch.full((1, 64), float(_INT8_MAX)))
    exact = bool((product == 64 * _INT8_MAX**2).all())
    return _INT8_MAX if exact else _INT7_MAX


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to 8 bits, symmetrically, with a scale for each output.

    Args:
        weight: [outputs, inputs] fp32.

    Returns:
        [outputs, inputs] int8, and [outputs] fp32: what 1 stands for.
    """
    scale = weight.abs().amax(1).clamp_(min=_SMALLEST) / largest_weight()
    return (weight / scale[:, None]).round_().to(torch.int8), scale


class Int8Linear:
    """int8 weights, activations rounded to int8 with a scale for each row, sums in int32.

    The scale is the row's own, and integers sum exactly in any order, so a row's product is the
    same alone and in any batch. A scale for the whole batch, which every library's dynamic
    quantisation has by default, would let one caller's loudness change another's words.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        """Lay the weights out for the kernel.

        Args:
            weight: [outputs, inputs] int8, of `quantise`.
            scale: [outputs] fp32.
            bias: [outputs] fp32.

        Raises:
            ConfigurationError: not on a CPU, or PyTorch's build has no oneDNN.
        """
        if weight.device.type != "cpu":
            raise ConfigurationError(
                "precision='int8' runs on CPUs; take precision='bf16' on a GPU"
            )
        try:
            self._weight = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            raise ConfigurationError(
                f"this build of PyTorch has no int8 kernels of oneDNN ({error}); take "
                "precision='fp32' or 'bf16'"
            ) from error
        self._scale = scale / _INT8_MAX  # of the weight and of the row's loudest
        self._zero = torch.zeros(scale.shape, dtype=torch.int64)
        self._largest = torch.tensor(float(_INT8_MAX))
        self._signed = has_amx() and len(scale) > _FEW_OUTPUTS
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: [..., inputs] fp32 -> [..., outputs] fp32."""
        # Few operations and in place: at one row they cost a third of what the product does.
        loudest = x.abs().amax(-1, keepdim=True).clamp_(min=_SMALLEST)
        # Half to even; never beyond 127, as the scale is the row's own.
        rounded = (x * torch.div(self._largest, loudest)).round_()
        if self._signed:
            product = self._multiply(rounded.to(torch.int8), 0)
        else:
            product = self._multiply(rounded.add_(_ZERO_POINT).to(torch.uint8), _ZERO_POINT)
        if self._bias is None:
            return product.mul_(loudest)
        return torch.addcmul(self._bias, product, loudest)

    def _multiply(self, rounded: Tensor, zero_point: int) -> Tensor:
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, zero_point, self._weight, self._scale, self._zero,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product
