"""subsampling.c beside convolutions over the whole utterance in float64."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nemotron_voice.model.fused_subsampling import FusedSubsampling

BINS, FRAMES = 24, 14
MAPS = {24: (13, 7, 4), 26: (14, 8, 5)}  # bins after each stage


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights(channels: int):
    """Of the first stage, and of the two depthwise and the two pointwise convolutions after it."""
    kernels = [(random(channels, 1, 3, 3, seed=n), random(channels, seed=n + 3)) for n in range(3)]
    pointwise = [
        (
            random(channels, channels, 1, 1, seed=n + 6) / channels**0.5,
            random(channels, seed=n + 8),
        )
        for n in range(2)
    ]
    return kernels[0], kernels[1:], pointwise


def fused(channels: int, bins: int = BINS) -> FusedSubsampling:
    made = FusedSubsampling.if_possible(bins, *weights(channels))
    if made is None:
        pytest.skip("subsampling.c isn't built here")
    return made


def whole(mel: Tensor, channels: int) -> Tensor:
    """[rows, 8 n - 7, bins] -> [rows, n, channels * bins of the last map], in float64."""
    first, depthwise, pointwise = weights(channels)
    maps = mel.double().unsqueeze(1)
    for stage in range(3):
        padded = F.pad(maps, (2, 1, 2, 0))
        own = first if stage == 0 else depthwise[stage - 1]
        maps = F.conv2d(
            padded, *(one.double() for one in own), stride=2, groups=channels if stage else 1
        )
        if stage:
            maps = F.conv2d(maps, *(one.double() for one in pointwise[stage - 1]))
        maps = maps.relu()
    return maps.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("bins", MAPS)
@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
@pytest.mark.parametrize("channels", [16, 48])
def test_chunks_are_what_the_whole_utterance_is(chunk, channels, bins):
    convolve, rows = fused(channels, bins), 3
    # Before frame 7 of the first chunk lies nothing, whatever is there.
    mel = random(rows, 8 * FRAMES, bins, seed=20)
    last_mel = torch.zeros(rows, 1, bins)
    maps = [torch.zeros(rows, channels, 1, size) for size in MAPS[bins][:2]]
    made = []
    for begin in range(0, FRAMES, chunk):
        frames = mel[:, 8 * begin : 8 * (begin + chunk)]
        begins = torch.full((rows,), begin == 0)
        out, maps = convolve(frames, last_mel, maps, begins)
        last_mel = frames[:, -1:]
        made.append(out)
    expected = whole(mel[:, 7:], channels)
    torch.testing.assert_close(torch.cat(made, 1).double(), expected, rtol=1e-4, atol=1e-4)


def test_a_row_is_the_same_alone_and_among_neighbours_bit_for_bit():
    convolve, rows, chunk = fused(32), 9, 4
    mel, last_mel = random(rows, 8 * chunk, BINS, seed=1), random(rows, 1, BINS, seed=2)
    maps = [random(rows, 32, 1, bins, seed=3).relu() for bins in MAPS[BINS][:2]]
    begins = torch.arange(rows) % 3 == 0
    together, new_maps = convolve(mel, last_mel, maps, begins)
    for some in ([0], [8, 3], [1, 2, 5]):
        alone, own = convolve(mel[some], last_mel[some], [one[some] for one in maps], begins[some])
        assert torch.equal(alone, together[some])
        for one, all_rows in zip(own, new_maps, strict=True):
            assert torch.equal(one, all_rows[some])


def test_other_numbers_of_channels_run_in_pytorch():
    assert FusedSubsampling.if_possible(BINS, *weights(24)) is None


SMALL_STACK = """
import threading

import torch

from tests.model.test_subsampling import fused

def convolve():
    maps = [torch.zeros(1, 256, 1, bins) for bins in (65, 33)]
    fused(256, 128)(torch.zeros(1, 112, 128), torch.zeros(1, 1, 128), maps, torch.tensor([True]))
    print("done")

threading.stack_size(256 << 10)
thread = threading.Thread(target=convolve)
thread.start()
thread.join()
"""


def test_the_real_size_runs_on_a_thread_with_a_small_stack():
    fused(16)  # skips where it isn't built
    done = subprocess.run(
        [sys.executable, "-c", SMALL_STACK], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
