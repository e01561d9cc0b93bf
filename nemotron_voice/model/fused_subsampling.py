"""The subsampling's convolutions on a CPU: subsampling.c, in fp32 at any precision."""

from __future__ import annotations

import ctypes

from torch import Tensor

from nemotron_voice.model.kernels import Kernels, SubsamplingStages, kernels

Parameters = tuple[Tensor, Tensor]  # weight and bias, fp32

_PANEL = 16  # outputs side by side, of subsampling.c


class FusedSubsampling:
    """Three stages; the same numbers as PyTorch's convolutions, but for the last bits of sums."""

    def __init__(
        self,
        library: Kernels,
        bins: int,
        first: Parameters,
        depthwise: list[Parameters],
        pointwise: list[Parameters],
    ) -> None:
        """Lay the weights out.

        Args:
            library: loaded.
            bins: of mel frames.
            first: [channels, 1, 3, 3] and [channels].
            depthwise: of the two stages after it, the same.
            pointwise: of these, [channels, channels, 1, 1] and [channels].
        """
        self._library = library
        tensors = [_taps(first[0]), first[1]]
        for own, mixed in zip(depthwise, pointwise, strict=True):
            tensors += [_taps(own[0]), own[1], _panels(mixed[0]), mixed[1]]
        self._tensors = [tensor.contiguous() for tensor in tensors]  # `_stages` points into them
        channels = len(first[1])
        self._stages = SubsamplingStages(
            bins, channels, (ctypes.c_void_p * 10)(*(one.data_ptr() for one in self._tensors))
        )

    @classmethod
    def if_possible(
        cls,
        bins: int,
        first: Parameters,
        depthwise: list[Parameters],
        pointwise: list[Parameters],
    ) -> FusedSubsampling | None:
        """The stages, where they run: on a CPU, where the library is there; see `__init__`."""
        library = kernels()
        weight, bias = first
        if library is None or weight.device.type != "cpu" or len(bias) % _PANEL:
            return None
        return cls(library, bins, first, depthwise, pointwise)

    def __call__(
        self, mel: Tensor, last_mel: Tensor, last_maps: list[Tensor], begins: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Convolve a chunk; see `Subsampling.__call__`.

        Returns:
            [rows, c, channels * bins of the last map], and the maps before the next chunk.
        """
        return self._library.subsample(self._stages, mel, last_mel, last_maps, begins)


def _taps(kernel: Tensor) -> Tensor:
    """[channels, 1, 3, 3] -> [3, 3, channels]."""
    return kernel.squeeze(1).permute(1, 2, 0)


def _panels(kernel: Tensor) -> Tensor:
    """[outputs, channels, 1, 1] -> [outputs / 16, channels, 16]."""
    matrix = kernel.flatten(1)
    return matrix.reshape(-1, _PANEL, matrix.shape[1]).transpose(1, 2)
