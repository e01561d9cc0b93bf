"""Matrix products in int8, on CPUs: weights of 8 bits, activations rounded row by row.

Which kernels, and what they were measured against, is in docs/performance.md; `python -m
benchmarks.kernels` measures them again.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.kernels import Layout, Product, Rounded, Rounding, kernels

RELU_FLOOR: Final = 0.0
SILU_FLOOR: Final = -0.2784646  # the least of x * sigmoid(x) is -0.27846454

_INT8_MAX: Final = 127
_INT7_MAX: Final = 63
_UINT8_MAX: Final = 255
_SMALLEST: Final = 1e-12  # scale of a row of zeros
_ZERO_POINT: Final = 128  # what 0 is in activations from 1 to 255
_FEW_OUTPUTS: Final = 256
_CANDIDATES: Final = 4  # as in refine.c


class Int8Linear:
    """int8 weights, activations rounded to int8 with a scale for each row, sums in int32.

    The scale is the row's own, and integers sum exactly in any order, so a row's product is the
    same alone and in any batch. A scale for the whole batch, which every library's dynamic
    quantisation has by default, would let one caller's loudness change another's words.
    """

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor | None, floor: float | None = None
    ) -> None:
        """Lay the weights out for the kernel.

        Args:
            weight: [outputs, inputs] int8, of `quantise`.
            scale: [outputs] fp32.
            bias: [outputs] fp32.
            floor: no activation is below it, as after a ReLU: they are rounded twice as finely
                then, from there up. None: they may be anything.

        Raises:
            ConfigurationError: not on a CPU.
        """
        if weight.device.type != "cpu":
            raise ConfigurationError(
                "precision='int8' runs on CPUs; take precision='bf16' on a GPU"
            )
        steps = _INT8_MAX if floor is None else _UINT8_MAX
        pairs = weight_limit() is WeightLimit.PAIRS
        self._product = (PairsProduct if pairs else OneDnnProduct)(
            weight, scale / steps, one_sided=floor is not None
        )
        self._bias = torch.zeros_like(scale) if bias is None else bias
        if floor:  # what lies at the floor adds up to the same for every row
            self._bias = self._bias + floor * (self._product.weight_sums * scale)
        self.rounding = Rounding(self._product.layout, floor or 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: [..., inputs] fp32 -> [..., outputs] fp32."""
        return rescale_rows(self.multiply(round_rows(x, self.rounding)))

    def multiply(self, rounded: Rounded) -> Product:
        """The product alone, without what lies before and after.

        Args:
            rounded: as `rounding` says.
        """
        return Product(self._product(rounded.values), rounded.scales, self._bias)


class FineInt8Linear:
    """Weights and activations of 16 bits, in parts of 8: what rounding left is rounded, too.

    Three products instead of one. For the few small matrices whose errors nothing averages out.
    """

    def __init__(
        self, weight: tuple[Tensor, Tensor], rest: tuple[Tensor, Tensor], bias: Tensor | None
    ) -> None:
        """Lay the weights out.

        Args:
            weight: of `quantise`.
            rest: of `quantise`, of what the first left.
            bias: [outputs] fp32.
        """
        self._main = Int8Linear(*weight, bias)
        self._rest = Int8Linear(*rest, None)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: [..., inputs] fp32 -> [..., outputs] fp32."""
        rounded = round_rows(x, self._main.rounding)
        left = round_rows(x - _meant(rounded), self._main.rounding)
        product = rescale_rows(self._main.multiply(rounded))
        # What is left of both is beyond 16 bits.
        for part in (self._rest.multiply(rounded), self._main.multiply(left)):
            product.addcmul_(part.sums, part.scales)
        return product


class RefinedInt8Linear:
    """A product whose largest outputs are computed in fp32, so that fp32 says which is largest."""

    def __init__(self, product: Int8Linear, weight: Tensor, bias: Tensor) -> None:
        """Keep the exact weights beside the rounded.

        Args:
            product: of both.
            weight: [outputs, inputs] fp32; a few rows of it are read.
            bias: [outputs] fp32, contiguous.
        """
        self._product = product
        # A copy: in a checkpoint's memory map, a row might have to come from the disk.
        self._weight, self._bias = weight.clone(memory_format=torch.contiguous_format), bias

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply: [..., inputs] fp32 -> [..., outputs] fp32."""
        product = self._product(x)
        library = kernels()
        if library is not None:
            library.refine(product, x, self._weight, self._bias)
            return product
        where = product.topk(_CANDIDATES).indices
        exact = (x.unsqueeze(-2) * self._weight[where]).sum(-1) + self._bias[where]
        return product.scatter_(-1, where, exact)


class WeightLimit(StrEnum):
    """How large int8 weights may be before this processor's kernel overflows."""

    EACH = "127"  # with VNNI, products are summed in 32 bits
    PAIRS = "pairs"  # product.c without: 128 in two that are neighbours, of either sign
    SEVEN_BITS = "63"  # oneDNN without: each


def quantise(weight: Tensor, limit: WeightLimit | None = None) -> tuple[Tensor, Tensor]:
    """Round a matrix to 8 bits, symmetrically, with a scale for each output.

    Without VNNI a processor multiplies activations from 0 to 255 and adds two products in 16 bits,
    which hold 255 * 128. Any two weights are safe at 7 bits each; but most large ones have a small
    neighbour, so an output's scale is that of its largest pair: on the bundled checkpoint's
    matrices 1.4 to 1.8 times as fine as 7 bits.

    Args:
        weight: [outputs, inputs] fp32.
        limit: of the kernel that multiplies; None: this processor's.

    Returns:
        [outputs, inputs] int8, and [outputs] fp32: what 1 stands for.
    """
    limit = limit or weight_limit()
    if limit is WeightLimit.PAIRS:
        padded = F.pad(weight, (0, weight.shape[1] % 2))
        pairs = padded.reshape(len(padded), -1, 2)
        largest = torch.maximum(
            pairs.clamp(min=0.0).sum(2).amax(1), pairs.clamp(max=0.0).sum(2).amin(1).neg()
        )
    else:
        largest = weight.abs().amax(1)
    # Rounding adds up to a half to each of a pair: 127 and 1.
    steps = _INT7_MAX if limit is WeightLimit.SEVEN_BITS else _INT8_MAX
    scale = largest.clamp_(min=_SMALLEST) / steps
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def round_rows(x: Tensor, rounding: Rounding) -> Rounded:
    """Round activations, half to even, each row by its loudest.

    A row with a NaN or an infinity has a scale that is none either, so it stays broken.

    Args:
        x: [..., inputs] fp32.
        rounding: of the product.
    """
    fused = kernels()
    if fused is not None:
        return fused.round_rows(x, rounding)
    one_sided = rounding.layout is Layout.ONE_SIDED
    if one_sided:
        x = x - rounding.floor
    scales = x.abs().amax(-1, keepdim=True).clamp_(min=_SMALLEST)
    factor = (_UINT8_MAX if one_sided else _INT8_MAX) / scales
    rounded = (x * factor).round_().nan_to_num_(posinf=0.0, neginf=0.0)
    if rounding.layout is Layout.SIGNED:
        return Rounded(rounded.to(torch.int8), scales)
    return Rounded(rounded.add_(_zero_point(rounding.layout)).to(torch.uint8), scales)


def _meant(rounded: Rounded) -> Tensor:
    """What symmetrically rounded activations stand for: [..., inputs] fp32."""
    zero_point = 0 if rounded.values.dtype == torch.int8 else _ZERO_POINT
    return (rounded.values.float() - zero_point) * (rounded.scales / _INT8_MAX)


def _zero_point(layout: Layout) -> int:
    return _ZERO_POINT if layout is Layout.UNSIGNED else 0


def rescale_rows(product: Product) -> Tensor:
    """What a product meant; it may be overwritten."""
    fused = kernels()
    if fused is not None:
        return fused.rescale_rows(product)
    return torch.addcmul(product.bias, product.sums, product.scales)


class OneDnnProduct:
    """oneDNN's kernels: the best of PyTorch's own with VNNI or AMX.

    Unsigned activations where AMX doesn't run: oneDNN has signed ones in a loop that is there for
    completeness. Measured, 60 ms instead of 0.1 for 1024 x 4096; and with AMX, for up to 256
    outputs, 3.6 ms instead of 0.03 for 768 x 192. Sums are the same.

    `weight_sums` ([outputs]) are those of each output's weights, if activations have a floor.
    """

    def __init__(self, weight: Tensor, scale: Tensor, *, one_sided: bool = False) -> None:
        """Lay the weights out.

        Args:
            weight: [outputs, inputs] int8.
            scale: [outputs] fp32, of a sum.
            one_sided: activations have a floor.

        Raises:
            ConfigurationError: PyTorch's build has no oneDNN.
        """
        try:
            self._weight = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            raise ConfigurationError(
                f"this build of PyTorch has no int8 kernels of oneDNN ({error}); take "
                "precision='fp32' or 'bf16'"
            ) from error
        self._scale = scale
        self._zero = torch.zeros(scale.shape, dtype=torch.int64)
        signed = has_amx() and len(scale) > _FEW_OUTPUTS
        symmetric = Layout.SIGNED if signed else Layout.UNSIGNED
        self.layout = Layout.ONE_SIDED if one_sided else symmetric
        self.weight_sums = weight.sum(1, dtype=torch.int32) if one_sided else self._zero

    def __call__(self, rounded: Tensor) -> Tensor:
        """Sums times their scales: [..., inputs] in the layout -> [..., outputs] fp32."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, _zero_point(self.layout), self._weight, self._scale, self._zero,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product


class PairsProduct:
    """product.c: the same sums as oneDNN's, at few rows up to six times as fast without VNNI."""

    def __init__(self, weight: Tensor, scale: Tensor, *, one_sided: bool = False) -> None:
        """Lay the weights out.

        Args:
            weight: [outputs, inputs] int8, within `WeightLimit.PAIRS`.
            scale: [outputs] fp32, of a sum.
            one_sided: activations have a floor.

        Raises:
            RuntimeError: the library isn't there.
        """
        library = kernels()
        if library is None:
            raise RuntimeError("product.c isn't built")
        self.layout = Layout.ONE_SIDED if one_sided else Layout.UNSIGNED
        self._library = library
        self._panels = library.lay_out(weight, scale, _zero_point(self.layout))
        self.weight_sums = self._panels.sums

    def __call__(self, rounded: Tensor) -> Tensor:
        """Sums times their scales: [..., inputs] in the layout -> [..., outputs] fp32."""
        return self._library.multiply(rounded, self._panels)


@cache
def has_amx() -> bool:
    """Whether oneDNN multiplies in AMX's tiles."""
    return bool(torch.cpu._is_amx_tile_supported())  # noqa: SLF001


def weight_limit() -> WeightLimit:
    """What this processor's kernel multiplies without overflow."""
    if has_vnni():
        return WeightLimit.EACH
    return WeightLimit.SEVEN_BITS if kernels() is None else WeightLimit.PAIRS


@cache
def has_vnni() -> bool:
    """Whether this processor sums products of 8 bits in 32.

    Without VNNI (before 2018, and many AVX2 machines since, AMD's before Zen 4 among them) pairs of
    products are summed in 16 bits and saturate [oneDNN, "Nuances of int8 computations"]. Which it
    is is found by multiplying the largest.
    """
    weight = torch.full((32, 64), _INT8_MAX)
    weight = torch.cat([weight, -weight])
    product = OneDnnProduct(weight.to(torch.int8), torch.ones(len(weight)))
    loudest = round_rows(torch.ones(1, weight.shape[1]), Rounding(product.layout))
    return torch.equal(product(loudest.values)[0], (weight.sum(1) * _INT8_MAX).float())
