"""Causal x8 subsampling: eight mel frames in, one encoder frame out, each computed once."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.fused_subsampling import FusedSubsampling
from nemotron_voice.model.int8_linear import RELU_FLOOR
from nemotron_voice.model.precision import Precision
from nemotron_voice.model.weights import Weights

# The mel frames, and outputs of stages 1 and 2, of a chunk that lie before the stream's beginning
# when it is the stream's first: encoder frame 0 needs mel frame 0 and zeros before it.
_BEFORE_START = (7, 3, 1)
_PAD_BEFORE, _PAD_AFTER = 2, 1  # in frequency


class Subsampling:
    """Three stages of stride 2 (kernel 3, padded 2 before and 1 after in frequency), and a linear.

    In time, output i of a stage reads inputs 2 i - 2 to 2 i, so encoder frame n is complete with
    mel frame 8 n: a chunk of c frames from n on takes mel frames 8 n - 7 to 8 (n + c - 1) and the
    one frame kept before them, at each stage. The fixed shape holds for the first chunk too: what
    lies before the stream is zeroed after each stage, which is what padding would have put there.

    The convolutions are fp32 at any precision: log-mel values down to -17 lose audible detail to
    bf16's 8 bits.
    """

    def __init__(self, weights: Weights, config: ModelConfig, precision: Precision) -> None:
        prefix = "encoder.subsampling"
        self._stem = _parameters(weights, f"{prefix}.conv_in")
        self._depthwise = [
            _parameters(weights, f"{prefix}.layers.{stage}.depthwise_conv") for stage in range(2)
        ]
        self._pointwise = [
            _parameters(weights, f"{prefix}.layers.{stage}.pointwise_conv") for stage in range(2)
        ]
        self._linear = precision.fp32_linear(
            f"{prefix}.linear", *_parameters(weights, f"{prefix}.linear"), floor=RELU_FLOOR
        )
        fused = FusedSubsampling.if_possible(
            config.mel_bins, self._stem, self._depthwise, self._pointwise
        )
        self._convolve = fused or self._in_pytorch
        self._channels = config.subsampling_channels
        self._scale = config.d_model**0.5 if config.scale_input else 1.0

    def __call__(
        self, mel: Tensor, last_mel: Tensor, last_maps: list[Tensor], first: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Subsample a chunk.

        Args:
            mel: [rows, 8 c, mel_bins], frames 8 n - 7 to 8 (n + c - 1).
            last_mel: [rows, 1, mel_bins], the frame before them.
            last_maps: two of [rows, channels, 1, bins], the last inputs of stages 2 and 3.
            first: [rows] bool, rows whose stream begins here.

        Returns:
            [rows, c, d_model], and the new `last_mel` and `last_maps`.
        """
        convolved, new_maps = self._convolve(mel, last_mel, last_maps, first)
        frames = self._linear(convolved)
        if self._scale != 1.0:
            frames = frames * self._scale
        return frames, mel[:, -1:], new_maps

    def _in_pytorch(
        self, mel: Tensor, last_mel: Tensor, last_maps: list[Tensor], first: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The three stages in PyTorch: [rows, c, channels * bins], and the new `last_maps`."""
        with _exact_convolutions(mel.device):
            seen = _padded(mel.unsqueeze(1), last_mel.unsqueeze(1), first, _BEFORE_START[0])
            maps = self._first_stage(seen)
            new_maps = []
            for stage in range(2):
                seen = _padded(maps.relu_(), last_maps[stage], first, _BEFORE_START[stage + 1])
                new_maps.append(seen[:, :, -1:, _PAD_BEFORE:-_PAD_AFTER])
                maps = F.conv2d(seen, *self._depthwise[stage], stride=2, groups=self._channels)
                maps = _mix(maps, *self._pointwise[stage])
        return maps.relu_().transpose(1, 2).flatten(2), new_maps

    def _first_stage(self, seen: Tensor) -> Tensor:
        """Convolve [rows, 1, time, bins], padded, into `channels` maps of half the size."""
        if seen.device.type != "cpu":
            # Without cuDNN, conv2d on a GPU takes the rows one by one, two kernels each.
            return _mix(_patches(seen), *self._stem)
        # Never one image alone, whose sums oneDNN makes in another order (without AVX-512).
        maps = seen if len(seen) > 1 else F.pad(seen, (0, 0, 0, 0, 0, 0, 0, 1))
        return F.conv2d(maps, *self._stem, stride=2)[: len(seen)]


def _parameters(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _padded(maps: Tensor, last: Tensor, first: Tensor, before: int) -> Tensor:
    """What a stage convolves: the frame before the chunk, the chunk, and padding in frequency.

    One copy: at many rows these maps are beyond the processor's caches.

    Args:
        maps: [rows, channels, time, bins].
        last: [rows, channels, 1, bins].
        first: [rows] bool, rows that begin here.
        before: so many frames of those are zero.

    Returns:
        [rows, channels, 1 + time, bins + 3].
    """
    rows, channels, time, bins = maps.shape
    seen = maps.new_empty(rows, channels, 1 + time, _PAD_BEFORE + bins + _PAD_AFTER)
    seen[..., :_PAD_BEFORE] = 0.0
    seen[..., -_PAD_AFTER:] = 0.0
    within = seen[..., _PAD_BEFORE:-_PAD_AFTER]
    within[:, :, :1] = last
    within[:, :, 1:] = maps
    within[:, :, 1 : 1 + before].masked_fill_(first[:, None, None, None], 0.0)
    return seen


def _mix(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve with a kernel of one tap: [rows, channels, time, bins] to as many rows, time, bins.

    A product for each row: as fast as conv2d, which sums in another order for another number of
    rows.
    """
    matrices = weight.flatten(1).expand(maps.shape[0], -1, -1)
    mixed = torch.baddbmm(bias[:, None], matrices, maps.flatten(2))
    return mixed.view(maps.shape[0], -1, *maps.shape[2:])


def _patches(maps: Tensor) -> Tensor:
    """What a kernel of 3 by 3 and stride 2 sees: [rows, 1, time, bins] to [rows, 9, ..., ...]."""
    seen = maps.squeeze(1).unfold(1, 3, 2).unfold(2, 3, 2)  # [rows, time, bins, 3, 3]
    return seen.permute(0, 3, 4, 1, 2).flatten(1, 2)


def _exact_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Keep cuDNN away: by default it computes fp32 convolutions in TF32, of 10 bits.

    PyTorch's own become matrix products, and obey its setting for those (fp32 by default).
    """
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=False, allow_tf32=False
    )
    return flags
