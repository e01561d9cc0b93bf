"""The C library of CPUs, on tensors: each function of the sources that lie here.

product.c, fused.c and refine.c are for int8, subsampling.c for any precision. The library is built
with the package, on Linux on x86-64, where there is a C compiler (hatch_build.py). Where it isn't
there, the same is done by PyTorch (int8_linear.py, blocks.py, subsampling.py).
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

_LIBRARY: Final = Path(__file__).with_name("libkernels.so")
_LANES: Final = 8  # of fused.c
_PANEL: Final = 16  # of product.c
_GROUP: Final = 4
_KINDS: Final[dict[str, type[ctypes._SimpleCData[Any]]]] = {
    "p": ctypes.c_void_p,
    "n": ctypes.c_int64,
    "l": ctypes.c_int,
    "f": ctypes.c_float,
}

_log = logging.getLogger(__name__)

Norm = tuple[Tensor, Tensor]  # gain and bias, [size] fp32


class Layout(IntEnum):
    """How a product's kernel takes activations; fused.c has the same numbers."""

    SIGNED = 0  # int8, -127 to 127
    UNSIGNED = 1  # uint8, 128 stands for 0: 1 to 255
    ONE_SIDED = 2  # uint8, 0 stands for a floor: 0 to 255


class Rounding(NamedTuple):
    """How activations are rounded for a product."""

    layout: Layout
    floor: float = 0.0  # that no activation is below, if the layout is one-sided


class Rounded(NamedTuple):
    """Activations rounded for a product."""

    values: Tensor  # [..., inputs] in the product's layout
    scales: Tensor  # [..., 1] fp32: each row's largest magnitude, or largest above the floor


class Matrix(ctypes.Structure):
    """`struct matrix` of product.c; who makes it keeps what it points to."""

    _fields_ = (
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("weights", "order", "couples", "offsets", "scales")),
    )


class Panels(NamedTuple):
    """A matrix as product.c reads it."""

    matrix: Matrix
    sums: Tensor  # [outputs] int32, of each one's weights
    kept: tuple[Tensor, ...]  # what the matrix points to


class Product(NamedTuple):
    """What a product's kernel gives: `sums * scales + bias` was meant."""

    sums: Tensor  # [..., outputs] fp32
    scales: Tensor  # [..., 1] fp32
    bias: Tensor  # [outputs] fp32


class Attention(ctypes.Structure):
    """Sizes of an attention: `struct attention` of fused.c."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("chunk", "heads", "head_size", "ring", "left", "farthest")
    )


class SubsamplingStages(ctypes.Structure):
    """`struct subsampling` of subsampling.c; who makes it keeps what it points to."""

    _fields_ = (
        ("bins", ctypes.c_int64),  # of mel frames
        ("channels", ctypes.c_int64),
        ("parameters", ctypes.c_void_p * 10),  # two of the first stage, four of each other
    )


@cache
def kernels() -> Kernels | None:
    """The library, or None where it can't run: no AVX2, not built, or built from another source."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):  # 2 or 512
        return None
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        built_from = ctypes.CFUNCTYPE(ctypes.c_char_p)(("source", library))().decode()
    except (OSError, AttributeError) as error:
        _log.info("the model runs without its own kernels: %s", error)
        return None
    text = b"".join(source.read_bytes() for source in sources())
    if built_from != hashlib.sha256(text).hexdigest():
        _log.warning(
            "%s was built from other sources, so the model runs without it, slower; install again "
            "(pip install -e ., or python hatch_build.py)",
            _LIBRARY,
        )
        return None
    return Kernels(library)


def sources() -> list[Path]:
    """What the library is built from."""
    return sorted(_LIBRARY.parent.glob("*.c"))


class Kernels:
    """Functions of the C sources, on contiguous tensors on the CPU, fp32 but for int8."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Declare what the functions take.

        Args:
            library: loaded.
        """

        def declared(name: str, types: str) -> ctypes._NamedFuncPointer:
            function: ctypes._NamedFuncPointer = getattr(library, name)
            function.argtypes = [_KINDS[one] for one in types]
            function.restype = None
            return function

        self._lay_out = declared("lay_out", "plpp")
        self._multiply = declared("multiply", "pnppp")
        self._round = declared("round_rows", "pnnlfpp")
        self._rescale = declared("rescale_rows", "pppnn")
        self._add_norm = declared("add_norm_round", "ppppppppnnlpp")
        self._silu = declared("silu_round", "pppnnlfpp")
        self._attention = declared("attention_round", "pppppppppppnplpp")
        self._convolution = declared("convolution_round", "ppppppppnnnnplfpp")
        self._refine = declared("refine", "ppppnnn")
        self._subsample = declared("subsample", "ppppppnnppp")

    def lay_out(self, weight: Tensor, scale: Tensor, zero_point: int) -> Panels:
        """Lay a matrix out for `multiply`.

        Args:
            weight: [outputs, inputs] int8; of one sign, at most 128 in two neighbouring inputs.
            scale: [outputs] fp32, of a sum.
            zero_point: what 0 is in activations.
        """
        outputs, inputs = weight.shape
        panels, groups = _ceil_div(outputs, _PANEL), _ceil_div(inputs, _GROUP)
        weight = weight.contiguous()
        kept = (
            weight.new_empty(panels * groups * _PANEL * _GROUP),
            weight.new_empty(panels * groups, dtype=torch.int16),
            weight.new_empty(panels, dtype=torch.int16),
            weight.new_empty(panels * _PANEL, dtype=torch.int32),
            F.pad(scale, (0, panels * _PANEL - outputs)),
        )
        matrix = Matrix(outputs, inputs, *(one.data_ptr() for one in kept))
        sums = weight.new_empty(panels * _PANEL, dtype=torch.int32)
        self._lay_out(weight.data_ptr(), zero_point, ctypes.byref(matrix), sums.data_ptr())
        return Panels(matrix, sums[:outputs], kept)

    def multiply(self, rounded: Tensor, panels: Panels) -> Tensor:
        """Sums times their scales: [..., inputs] uint8 -> [..., outputs] fp32."""
        matrix = panels.matrix
        out = rounded.new_empty(*rounded.shape[:-1], matrix.outputs, dtype=torch.float32)
        rows, inputs = _rows(rounded)
        interleaved = rounded.new_empty(rows * _ceil_div(inputs, _GROUP) * _GROUP)
        self._multiply(
            rounded.data_ptr(),
            rows,
            ctypes.byref(matrix),
            interleaved.data_ptr(),
            out.data_ptr(),
        )
        return out

    def round_rows(self, x: Tensor, rounding: Rounding) -> Rounded:
        """Round [..., size]."""
        x = x.contiguous()
        rounded = _empty(x, x.shape[-1], rounding.layout)
        self._round(x.data_ptr(), *_rows(x), *rounding, *_pointers(rounded))
        return rounded

    def rescale_rows(self, product: Product) -> Tensor:
        """What a product meant, in its own place."""
        self._rescale(*_product(product), *_rows(product.sums))
        return product.sums

    def add_norm_round(
        self,
        x: Tensor,
        product: Product | None,
        norm: Norm,
        layout: Layout,
        last: Norm | None = None,
    ) -> Rounded:
        """Add a product to x in place, and round x's norm for the next one.

        Args:
            x: [..., size], the residual stream.
            product: what is added; None: nothing.
            norm: before the next product.
            layout: of the next product, not one-sided.
            last: norm of x itself, after the addition.
        """
        rounded = _empty(x, x.shape[-1], layout)
        self._add(x, product, last, norm, layout, rounded)
        return rounded

    def add_norm(self, x: Tensor, product: Product, last: Norm) -> None:
        """Add a product to x [..., size] in place, and then normalise x itself."""
        self._add(x, product, last, None, Layout.SIGNED, None)

    def _add(
        self,
        x: Tensor,
        product: Product | None,
        last: Norm | None,
        norm: Norm | None,
        layout: Layout,
        rounded: Rounded | None,
    ) -> None:
        self._add_norm(
            x.data_ptr(),
            *((None, None, None) if product is None else _product(product)),
            *_pointers(last),
            *_pointers(norm),
            *_rows(x),
            layout,
            *_pointers(rounded),
        )

    def silu_round(self, product: Product, rounding: Rounding) -> Rounded:
        """SiLU, rounded; the product is overwritten."""
        rounded = _empty(product.sums, product.sums.shape[-1], rounding.layout)
        self._silu(*_product(product), *_rows(product.sums), *rounding, *_pointers(rounded))
        return rounded

    def attention_round(
        self,
        sizes: Attention,
        product: Product,
        keys: Tensor,
        values: Tensor,
        slab_rows: Tensor,
        begun: Tensor,
        biases: tuple[Tensor, Tensor],
        relative: Tensor,
        layout: Layout,
    ) -> Rounded:
        """Write the chunk's keys and values into the rings, attend, round what is heard.

        Args:
            sizes: of the attention.
            product: queries, keys and values, [n, c, 3 heads head_size].
            keys: one block's, [slab, heads, ring, head_size].
            values: the same.
            slab_rows: [n] int64.
            begun: [n] int64, frames that each row has had.
            biases: of content and position, [heads, head_size].
            relative: [heads, left + 2 farthest + 1, head_size].
            layout: of the next product, not one-sided.
        """
        heard = product.sums.new_empty(*product.sums.shape[:-1], sizes.heads * sizes.head_size)
        rounded = _empty(heard, heard.shape[-1], layout)
        self._attention(
            ctypes.byref(sizes),
            *_product(product),
            keys.data_ptr(),
            values.data_ptr(),
            slab_rows.data_ptr(),
            begun.data_ptr(),
            *_pointers(biases),
            relative.data_ptr(),
            len(slab_rows),
            heard.data_ptr(),
            layout,
            *_pointers(rounded),
        )
        return rounded

    def convolution_round(
        self,
        product: Product,
        cache: Tensor,
        taps: Tensor,
        taps_bias: Tensor,
        norm: Norm,
        rounding: Rounding,
    ) -> Rounded:
        """GLU, depthwise convolution, norm, SiLU; the cache becomes that of the next chunk.

        Args:
            product: [n, c, 2 size].
            cache: [n, kernel - 1, size].
            taps: [kernel, size].
            taps_bias: [size].
            norm: after the convolution.
            rounding: for the next product.
        """
        rows, chunk, _ = product.sums.shape
        kernel, size = taps.shape
        gated = cache.new_empty(rows, kernel - 1 + chunk, size)
        rounded = _empty(product.sums, size, rounding.layout)
        self._convolution(
            *_product(product),
            cache.data_ptr(),
            taps.data_ptr(),
            taps_bias.data_ptr(),
            *_pointers(norm),
            rows,
            chunk,
            kernel,
            size,
            gated.data_ptr(),
            *rounding,
            *_pointers(rounded),
        )
        return rounded

    def refine(self, product: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Put a product's largest outputs right, in their place.

        Args:
            product: [..., outputs], about `x @ weight.T + bias`.
            x: [..., size].
            weight: [outputs, size].
            bias: [outputs].
        """
        x = x.contiguous()
        rows, outputs = _rows(product)
        self._refine(
            product.data_ptr(),
            x.data_ptr(),
            weight.data_ptr(),
            bias.data_ptr(),
            rows,
            outputs,
            x.shape[-1],
        )

    def subsample(
        self,
        stages: SubsamplingStages,
        mel: Tensor,
        last_mel: Tensor,
        last_maps: list[Tensor],
        begins: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """Convolve a chunk, in three stages of stride 2.

        Args:
            stages: of weights.
            mel: [n, 8 c, bins].
            last_mel: [n, 1, bins].
            last_maps: two of [n, channels, 1, bins].
            begins: [n] bool.

        Returns:
            [n, c, channels * bins of the last map], and the maps before the next chunk.
        """
        rows, frames, _ = mel.shape
        mel, last_mel, begins = mel.contiguous(), last_mel.contiguous(), begins.contiguous()
        last_maps = [one.contiguous() for one in last_maps]
        new_maps = [torch.empty_like(one) for one in last_maps]
        bins = last_maps[1].shape[-1] // 2 + 1  # as `ModelConfig.map_sizes`
        out = mel.new_empty(rows, frames // 8, stages.channels * bins)
        self._subsample(
            ctypes.byref(stages),
            mel.data_ptr(),
            last_mel.data_ptr(),
            *(one.data_ptr() for one in last_maps),
            begins.data_ptr(),
            rows,
            frames // 8,
            *(one.data_ptr() for one in new_maps),
            out.data_ptr(),
        )
        return out, new_maps


def takes(head_size: int) -> bool:
    """Whether `Kernels.attention_round` can have heads of this size."""
    return head_size % _LANES == 0


def _ceil_div(count: int, size: int) -> int:
    return -(-count // size)


def _empty(like: Tensor, size: int, layout: Layout) -> Rounded:
    """Room for rounded rows."""
    rows = like.shape[:-1]
    kind = torch.int8 if layout is Layout.SIGNED else torch.uint8
    return Rounded(like.new_empty(*rows, size, dtype=kind), like.new_empty(*rows, 1))


def _rows(x: Tensor) -> tuple[int, int]:
    size = x.shape[-1]
    return x.numel() // size, size


def _pointers(pair: tuple[Tensor, Tensor] | None) -> tuple[int | None, int | None]:
    return (None, None) if pair is None else (pair[0].data_ptr(), pair[1].data_ptr())


def _product(product: Product) -> tuple[int, int, int]:
    return product.sums.data_ptr(), product.scales.data_ptr(), product.bias.data_ptr()
