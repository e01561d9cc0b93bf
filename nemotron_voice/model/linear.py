"""Matrix products in the precisions that the network runs in: fp32, bf16, int8.

Which kernels, and what they were measured against, is in docs/performance.md; `python -m
benchmarks.kernels` measures them again.
"""

from __future__ import annotations

import warnings
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
_EXTREMES: Final = (-128.0, 127.0)


def dense(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Linear:
    """Prepare `x @ weight.T + bias` in floating point.

    Args:
        weight: [outputs, inputs] fp32, on the device where it will run.
        bias: [outputs] fp32.
        dtype: float32 or bfloat16; of what it takes and gives, too.
    """
    weight, bias = weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype)
    if dtype == torch.bfloat16 and weight.device.type == "cpu" and has_bf16():
        return _PackedLinear(weight, bias)
    return lambda x: F.linear(x, weight, bias)


@cache
def has_bf16() -> bool:
    """Whether oneDNN has bf16 kernels for this processor; AVX2 alone is not enough.

    Without them PyTorch multiplies in its own loops: right, and slower than fp32.
    """
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


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
def has_vnni() -> bool:
    """Whether this processor sums products of 8 bits in 32.

    Without VNNI (before 2018, and many AVX2 machines since, AMD's before Zen 4 among them) pairs of
    products are summed in 16 bits and saturate [oneDNN, "Nuances of int8 computations"]. Which it
    is is found by multiplying the largest.
    """
    ones = torch.full((32, 64), _INT8_MAX, dtype=torch.int8)
    product = _OneDnnProduct(ones, torch.ones(32))(torch.full((1, 64), float(_INT8_MAX)), 1.0)
    return bool((product == 64 * _INT8_MAX**2).all())


def largest_weight() -> int:
    """Largest int8 weight that this processor's kernel multiplies without overflow."""
    return _INT8_MAX if has_vnni() else _INT7_MAX


@cache
def has_fbgemm() -> bool:
    """Whether FBGEMM's kernels are there and exact: on x86, and until PyTorch drops them."""
    most = torch.full((32, 64), _INT7_MAX, dtype=torch.int8)
    try:
        product = _FbgemmProduct(most, torch.ones(32))(torch.full((1, 64), float(_INT8_MAX)), 1.0)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return bool((product == 64 * _INT7_MAX * _INT8_MAX).all())


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to 8 bits, symmetrically, with a scale for each output.

    Args:
        weight: [outputs, inputs] fp32.

    Returns:
        [outputs, inputs] int8, and [outputs] fp32: what 1 stands for.
    """
    scale = weight.abs().amax(1).clamp_(min=_SMALLEST) / largest_weight()
    return (weight / scale[:, None]).round_().to(torch.int8), scale


class _OneDnnProduct:
    """oneDNN's kernels: the best of PyTorch's own with VNNI or AMX."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self._weight = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
        self._scale = scale
        self._zero = torch.zeros(scale.shape, dtype=torch.int64)
        self._signed = has_amx() and len(scale) > _FEW_OUTPUTS

    def __call__(self, x: Tensor, factor: Tensor | float) -> Tensor:
        # Half to even; never beyond 127, as the factor is the row's own.
        rounded = (x * factor).round_()
        if self._signed:
            return self._multiply(rounded.to(torch.int8), 0)
        return self._multiply(rounded.add_(_ZERO_POINT).to(torch.uint8), _ZERO_POINT)

    def _multiply(self, rounded: Tensor, zero_point: int) -> Tensor:
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, zero_point, self._weight, self._scale, self._zero,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product


class _FbgemmProduct:
    """FBGEMM's kernels, 1.6 to 4 times as fast as oneDNN's without VNNI, up to 32 rows.

    They round activations themselves, with one scale for all rows, from the smallest to the
    largest. Two more columns, whose weights are 0, hold -128 and 127: so that scale is always 1,
    and what is rounded already stays as it is.
    """

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        widened = F.pad(weight, (0, len(_EXTREMES)))
        zeros = torch.zeros(scale.shape, dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deprecated")  # said at each load, else
            quantised = torch._make_per_channel_quantized_tensor(  # noqa: SLF001
                widened, scale.double(), zeros, 0
            )
            self._weight = torch.ops.quantized.linear_prepack(quantised, None)

    def __call__(self, x: Tensor, factor: Tensor | float) -> Tensor:
        inputs = x.shape[-1]
        rounded = x.new_empty(*x.shape[:-1], inputs + len(_EXTREMES))
        # Of a NaN the scale of all rows would be one, too.
        torch.mul(x, factor, out=rounded[..., :inputs]).round_().nan_to_num_()
        for column, extreme in enumerate(_EXTREMES, inputs):
            rounded[..., column] = extreme
        product: Tensor = torch.ops.quantized.linear_dynamic(rounded, self._weight, False)  # noqa: FBT003
        return product


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
        scale = scale / _INT8_MAX  # of the weight and of the row's loudest
        try:
            fbgemm = not has_vnni() and has_fbgemm()
            self._product = (_FbgemmProduct if fbgemm else _OneDnnProduct)(weight, scale)
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            raise ConfigurationError(
                f"this build of PyTorch has no int8 kernels of oneDNN ({error}); take "
                "precision='fp32' or 'bf16'"
            ) from error
        self._largest = torch.tensor(float(_INT8_MAX))
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: [..., inputs] fp32 -> [..., outputs] fp32."""
        # Few operations and in place: at one row they cost a third of what the product does.
        loudest = x.abs().amax(-1, keepdim=True).clamp_(min=_SMALLEST)
        product = self._product(x, torch.div(self._largest, loudest))
        if self._bias is None:
            return product.mul_(loudest)
        return torch.addcmul(self._bias, product, loudest)
