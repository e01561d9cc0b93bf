"""Device and precision of a network: of which type its parts are, how its products are made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.int8_linear import FineInt8Linear, Int8Linear, RefinedInt8Linear
from nemotron_voice.model.int8_store import Int8Store
from nemotron_voice.model.linear import Linear, dense
from nemotron_voice.model.weights import Weights

Arithmetic = Literal["fp32", "bf16", "int8"]
Matrix = Tensor | Callable[[], Tensor]

_LARGE: Final = 100_000_000  # weights; a smaller model has time enough for fp32


def device_of(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigurationError: there is no such GPU here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise ConfigurationError(
            f"device={name!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices here; use "
            f"device='cpu' or 'auto', or install a CUDA build of PyTorch"
        )
    return device


def arithmetic_of(precision: str, device: str, weights: Weights) -> Arithmetic:
    """What a precision stands for.

    Args:
        precision: "fp32", "bf16", "int8", or "auto": bf16 on a GPU; on a CPU int8 for a model of
            more than 100 M weights, else fp32.
        device: its type, "cpu" or "cuda".
        weights: of the model.

    Raises:
        ConfigurationError: it is none of them.
    """
    if precision == "auto":
        large = sum(weight.numel() for weight in weights.values()) > _LARGE
        precision = "bf16" if device == "cuda" else "int8" if large else "fp32"
    known: tuple[Arithmetic, ...] = get_args(Arithmetic)
    for arithmetic in known:
        if precision == arithmetic:
            return arithmetic
    raise ConfigurationError(
        f"precision={precision!r} is not one of 'auto', 'fp32', 'bf16', 'int8'"
    )


class Precision:
    """fp32 everywhere; or bf16 or int8 where it is safe.

    bf16: the encoder blocks' products, keys and values. Not the decoder: with bf16's 8 bits the
    best of 13,088 logits often ties; nor what would lose a quiet voice or the language prompt.
    int8: every product with a weight matrix; all that passes between them is fp32. Of the small
    matrices after the encoder, 16 bits, and of logits the largest in fp32: half of int8's errors
    were theirs. Norms, softmax, convolutions and the residual stream are fp32 in any case.
    """

    def __init__(self, arithmetic: Arithmetic, identity: str | None = None) -> None:
        """Begin a network.

        Args:
            arithmetic: "fp32", "bf16" or "int8" (CPUs only).
            identity: of the checkpoint (`int8_store.fingerprint`); None: no int8 copy is kept.
        """
        self._int8 = Int8Store(identity) if arithmetic == "int8" else None
        self.rows_apart = arithmetic == "int8"  # no row's numbers may depend on how many there are
        self.dtype = torch.bfloat16 if arithmetic == "bf16" else torch.float32

    def block_linear(
        self, name: str, weight: Matrix, bias: Tensor | None = None, floor: float | None = None
    ) -> Linear:
        """A product of an encoder block, which takes and gives `dtype`.

        Args:
            name: of the matrix in the network, for the int8 copy.
            weight: [outputs, inputs] fp32, or what makes it: not called if there is an int8 copy.
            bias: [outputs] fp32.
            floor: no activation is below it; None: they may be anything.
        """
        return self._linear(name, weight, bias, floor, self.dtype)

    def fp32_linear(
        self, name: str, weight: Matrix, bias: Tensor | None = None, floor: float | None = None
    ) -> Linear:
        """A product that takes and gives fp32, and is never bf16; see `block_linear`."""
        return self._linear(name, weight, bias, floor, torch.float32)

    def fine_linear(self, name: str, weight: Matrix, bias: Tensor | None = None) -> Linear:
        """One that int8 must round to 16 bits; see `fp32_linear`."""
        if self._int8 is None:
            return self.fp32_linear(name, weight, bias)
        rounded = self._int8.get(name, partial(_matrix, weight))

        def rest() -> Tensor:
            values, scale = rounded
            return _matrix(weight) - values * scale[:, None]

        return FineInt8Linear(rounded, self._int8.get(f"{name}.rest", rest), bias)

    def best_linear(self, name: str, weight: Tensor, bias: Tensor, floor: float | None) -> Linear:
        """One of which the largest output matters; see `fp32_linear`."""
        product = self.fp32_linear(name, weight, bias, floor)
        if isinstance(product, Int8Linear):
            return RefinedInt8Linear(product, weight, bias)
        return product

    def _linear(
        self,
        name: str,
        weight: Matrix,
        bias: Tensor | None,
        floor: float | None,
        dtype: torch.dtype,
    ) -> Linear:
        if self._int8 is not None:
            return Int8Linear(*self._int8.get(name, partial(_matrix, weight)), bias, floor)
        return dense(_matrix(weight), bias, dtype)

    def built(self) -> None:
        """The network is complete: keep what was made for the next start."""
        if self._int8 is not None:
            self._int8.save()


def _matrix(weight: Matrix) -> Tensor:
    return weight if isinstance(weight, Tensor) else weight()
