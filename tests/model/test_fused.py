"""fused.c beside the same arithmetic in PyTorch and in float64, alone and among neighbours."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nemotron_voice.model import fused_blocks, fused_subsampling, int8_linear
from nemotron_voice.model import kernels as kernels_module
from nemotron_voice.model.blocks import Blocks
from nemotron_voice.model.fused_blocks import FusedBlocks
from nemotron_voice.model.int8_linear import SILU_FLOOR, WeightLimit, round_rows
from nemotron_voice.model.kernels import (
    Attention,
    Kernels,
    Layout,
    Product,
    Rounded,
    Rounding,
    kernels,
)
from tests.model.test_network import AUDIO, ENGLISH
from tests.model.tiny import stream, tiny_json, tiny_network

ROOT = Path(__file__).parents[2]
BUILDABLE = (
    sys.platform == "linux"
    and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    and shutil.which("gcc") is not None
)
SYMMETRIC = [Layout.SIGNED, Layout.UNSIGNED]
ROUNDINGS = [*map(Rounding, SYMMETRIC), Rounding(Layout.ONE_SIDED, SILU_FLOOR)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def library() -> Kernels:
    found = kernels()
    if found is None:
        pytest.skip("fused.c isn't built here")
    return found


@pytest.fixture
def no_library(monkeypatch):
    for module in (int8_linear, fused_blocks, fused_subsampling):
        monkeypatch.setattr(module, "kernels", lambda: None)


def product(*shape: int, seed: int = 0) -> Product:
    scales = 0.5 + random(*shape[:-1], 1, seed=seed + 1).abs()
    return Product(random(*shape, seed=seed), scales, random(shape[-1], seed=seed + 2))


def copy(one: Product) -> Product:
    return Product(one.sums.clone(), one.scales, one.bias)


def meant(one: Product) -> Tensor:
    return one.sums.double() * one.scales.double() + one.bias.double()


def norm(size: int, seed: int) -> tuple[Tensor, Tensor]:
    return 1 + 0.3 * random(size, seed=seed), random(size, seed=seed + 1)


def normed(x: Tensor, parameters: tuple[Tensor, Tensor]) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], *(one.double() for one in parameters), 1e-5)


def assert_rounds(rounded: Rounded, exact: Tensor, rounding: Rounding) -> None:
    """It is `exact` to within half a step and what fp32 loses."""
    layout, floor = rounding
    steps, zero = (255, 0) if layout is Layout.ONE_SIDED else (127, 128)
    if layout is Layout.SIGNED:
        zero = 0
    exact = exact - floor
    scales = exact.abs().amax(-1, keepdim=True)
    torch.testing.assert_close(rounded.scales.double(), scales, rtol=1e-4, atol=1e-6)
    off = rounded.values.double() - zero - exact * steps / scales
    assert off.abs().max() < 0.5 + 0.02 * steps / 127, off.abs().max()


@pytest.mark.skipif(not BUILDABLE, reason="no compiler, or not a processor that it is for")
def test_the_library_is_built_where_it_can_be():
    assert kernels() is not None


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("size", [3, 64, 129, 1024])
def test_rounding_is_that_of_pytorch_to_the_bit(library, rounding, size, monkeypatch):
    x = 3 * random(2, 9, size)
    if rounding.layout is Layout.ONE_SIDED:
        x = F.silu(x)
    x[0, 4] = 0.0
    x[1, 2, 1] = math.nan
    x[1, 3, 0] = math.inf if rounding.layout is Layout.ONE_SIDED else -math.inf
    one = library.round_rows(x, rounding)
    monkeypatch.setattr(int8_linear, "kernels", lambda: None)
    other = round_rows(x, rounding)
    sound = torch.ones(2, 9, dtype=torch.bool)
    sound[1, 2:4] = False
    assert torch.equal(one.values[sound], other.values[sound])
    assert torch.equal(one.scales[sound], other.scales[sound])
    for rounded in (one, other):
        assert not rounded.scales[~sound].isfinite().any()
        assert rounded.values.double().isfinite().all()


def test_rescaling(library):
    one = product(3, 5, 77)
    torch.testing.assert_close(library.rescale_rows(copy(one)).double(), meant(one))


@pytest.mark.parametrize("layout", SYMMETRIC)
@pytest.mark.parametrize("last", [None, norm(96, 5)])
def test_adding_and_norms(library, layout, last):
    x, one, before = random(2, 7, 96), product(2, 7, 96, seed=3), norm(96, 9)
    exact = x.double() + meant(one)
    if last is not None:
        exact = normed(exact, last)
    rounded = library.add_norm_round(x, one, before, layout, last=last)
    torch.testing.assert_close(x.double(), exact, rtol=1e-4, atol=1e-5)
    assert_rounds(rounded, normed(exact, before), Rounding(layout))
    rounded = library.add_norm_round(x, None, before, layout)
    assert_rounds(rounded, normed(x.double(), before), Rounding(layout))
    library.add_norm(x, one, before)
    torch.testing.assert_close(x.double(), normed(exact + meant(one), before), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_silu(library, rounding):
    one = product(4, 3, 200)
    one.sums[0, 0] = torch.linspace(-200, 200, 200)
    assert_rounds(library.silu_round(copy(one), rounding), F.silu(meant(one)), rounding)


def test_no_silu_is_below_the_floor(library):
    everywhere = torch.linspace(-1.3, -1.25, 100_000)
    one = Product(everywhere[None].clone(), torch.ones(1, 1), torch.zeros(100_000))
    found = library.silu_round(one, ROUNDINGS[-1]).values
    least = F.silu(everywhere.double()).min().item()
    assert SILU_FLOOR < least < SILU_FLOOR + 1e-6
    assert found.max() == 255, "a step is a thousandth of a thousandth here"
    assert found[0, F.silu(everywhere).argmin()] < 20


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("chunk", [1, 4, 14])
def test_convolution(library, rounding, chunk):
    rows, size, kernel = 3, 40, 9
    one, cache = product(rows, chunk, 2 * size), random(rows, kernel - 1, size, seed=5)
    taps, bias, after = random(kernel, size, seed=6), random(size, seed=7), norm(size, 8)
    inputs = torch.cat([cache.double(), F.glu(meant(one), -1)], 1)
    mixed = F.conv1d(
        inputs.transpose(1, 2), taps.T[:, None].double(), bias.double(), groups=size
    ).transpose(1, 2)
    rounded = library.convolution_round(one, cache, taps, bias, after, rounding)
    assert_rounds(rounded, F.silu(normed(mixed, after)), rounding)
    torch.testing.assert_close(cache.double(), inputs[:, chunk:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", [2, 5, 64, 560, 13_088])
def test_the_largest_outputs_are_refined(library, outputs):
    x, weight, bias = random(2, 3, 40), random(outputs, 40, seed=1), random(outputs, seed=2)
    exact = x.double() @ weight.T.double() + bias
    rough = (exact + 0.3 * random(2, 3, outputs, seed=3)).float()
    refined = rough.clone()
    library.refine(refined, x, weight, bias)
    where = torch.zeros_like(rough, dtype=torch.bool)
    where.scatter_(-1, rough.topk(min(4, outputs)).indices, value=True)
    torch.testing.assert_close(refined[where].double(), exact[where], rtol=1e-4, atol=1e-4)
    assert torch.equal(refined[~where], rough[~where])


LEFT, FARTHEST, HEADS = 56, 13, 2


def attention(chunk: int, head_size: int) -> Attention:
    return Attention(chunk, HEADS, head_size, LEFT + FARTHEST + 1, LEFT, FARTHEST)


def heard(one: Product, past: Tensor, biases: tuple[Tensor, Tensor], relative: Tensor) -> Tensor:
    """Attention of one row in float64: `past` [2, heads, frames, head_size] are keys and values."""
    chunk, head_size = len(one.sums), past.shape[-1]
    projected = meant(one).view(chunk, 3, HEADS, head_size).permute(1, 2, 0, 3)
    keys, values = torch.cat([past.double(), projected[1:]], 2)[:, :, -(LEFT + chunk) :]
    seen = keys.shape[1]
    query = torch.arange(chunk)[:, None] + seen - chunk
    index = LEFT + FARTHEST - (query - torch.arange(seen))  # row 0 is LEFT + FARTHEST before
    by_content = torch.einsum("hqd,hkd->hqk", projected[0] + biases[0][:, None], keys)
    asked = projected[0] + biases[1][:, None]
    by_position = torch.einsum("hqd,hqkd->hqk", asked, relative.double()[:, index])
    weights = torch.softmax((by_content + by_position) / math.sqrt(head_size), -1)
    return (weights @ values).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("head_size", [8, 24, 64, 128])
@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
def test_attention_from_the_first_frame_until_the_ring_has_gone_round(library, chunk, head_size):
    sizes = attention(chunk, head_size)
    shape = (4, HEADS, sizes.ring, head_size)
    rings = [torch.full(shape, math.nan), torch.full(shape, math.nan)]  # what isn't seen isn't read
    biases = random(HEADS, head_size, seed=1), random(HEADS, head_size, seed=2)
    relative = random(HEADS, LEFT + 2 * FARTHEST + 1, head_size, seed=3)
    slab_rows = torch.tensor([3, 0])
    pasts = [torch.empty(2, HEADS, 0, head_size) for _ in slab_rows]
    begun = torch.zeros(2, dtype=torch.int64)
    for step in range(170 // chunk):
        one = product(2, chunk, 3 * HEADS * head_size, seed=100 + step)
        rounded = library.attention_round(
            sizes, one, *rings, slab_rows, begun, biases, relative, Layout.SIGNED
        )
        for row in range(2):
            own = Product(one.sums[row], one.scales[row], one.bias)
            exact = heard(own, pasts[row], biases, relative)
            assert_rounds(Rounded(*(part[row] for part in rounded)), exact, Rounding(Layout.SIGNED))
            new = meant(own).view(chunk, 3, HEADS, head_size).permute(1, 2, 0, 3)[1:]
            pasts[row] = torch.cat([pasts[row], new], 2)
        begun += chunk
    assert rings[0][1:3].isnan().all(), "a row that isn't of the batch is left alone"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_is_the_same_alone_and_among_neighbours_bit_for_bit(library, threads):
    rows, chunk, size = 12, 5, 128
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = everything(library, list(range(rows)), chunk, size)
        for some in ([0], [11], [3, 4, 7]):
            for one, other in zip(everything(library, some, chunk, size), together, strict=True):
                assert torch.equal(one, other[some])
    finally:
        torch.set_num_threads(before)


def everything(library: Kernels, rows: list[int], chunk: int, size: int) -> list[Tensor]:
    """All that the library makes of some of twelve rows."""

    def of(width: int, seed: int) -> Product:
        one = product(12, chunk, width, seed=seed)
        return Product(one.sums[rows].clone(), one.scales[rows].contiguous(), one.bias)

    layout, x = Layout.UNSIGNED, random(12, chunk, size, seed=1)[rows]
    rounding = Rounding(Layout.ONE_SIDED, SILU_FLOOR)
    sizes = attention(chunk, size // HEADS)
    rings = [random(12, HEADS, sizes.ring, size // HEADS, seed=seed) for seed in (2, 3)]
    cache = random(12, 8, size, seed=4)[rows]
    made = [
        library.round_rows(x, Rounding(layout)),
        library.add_norm_round(x, of(size, 5), norm(size, 6), layout, last=norm(size, 7)),
        library.silu_round(of(size, 8), rounding),
        library.convolution_round(
            of(2 * size, 9), cache, random(9, size, seed=10), random(size), norm(size, 11), rounding
        ),
        library.attention_round(
            sizes, of(3 * size, 12), *rings, torch.tensor(rows), 50 + torch.tensor(rows),
            (random(HEADS, size // HEADS), random(HEADS, size // HEADS, seed=13)),
            random(HEADS, LEFT + 2 * FARTHEST + 1, size // HEADS, seed=14), layout,
        ),
    ]  # fmt: skip
    rings = [ring[rows] for ring in rings]
    return [part for one in made for part in one] + [x, cache, *rings]


@pytest.mark.parametrize("products", ["taken here", "oneDNN's"])
@pytest.mark.parametrize("config", [tiny_json(), ENGLISH])
def test_fused_blocks_are_as_near_to_fp32_as_those_of_pytorch(
    library, config, products, monkeypatch
):
    if products == "oneDNN's":
        limit = WeightLimit.EACH if int8_linear.has_vnni() else WeightLimit.SEVEN_BITS
        monkeypatch.setattr(int8_linear, "weight_limit", lambda: limit)
    exact = stream(tiny_network(config=config), AUDIO, 6, 9)[0]
    networks = [tiny_network(config=config, arithmetic="int8")]
    monkeypatch.setattr(fused_blocks, "kernels", lambda: None)
    networks.append(tiny_network(config=config, arithmetic="int8"))
    kinds = [type(network._encoder._blocks) for network in networks]
    assert kinds == [FusedBlocks, Blocks]
    errors = []
    for network in networks:
        frames = stream(network, AUDIO, 6, 9)[0]
        errors.append(float((frames - exact).norm() / exact.norm()))
    assert errors[0] == pytest.approx(errors[1], rel=0.25)


@pytest.mark.usefixtures("no_library")
def test_without_the_library_rows_are_the_same_alone_too():
    network = tiny_network(arithmetic="int8")
    samples = random(5, 5361)

    def frames(rows: list[int]) -> Tensor:
        state = network.initial_state(5)
        prompts = torch.zeros(len(rows), dtype=torch.int64)
        return network.encode(samples[rows], state, torch.tensor(rows), prompts, 3)[0]

    together = frames([0, 1, 2, 3, 4])
    for rows in ([1], [4, 0]):
        assert torch.equal(frames(rows), together[rows])


def test_heads_of_other_sizes_run_in_pytorch():
    odd = tiny_json(encoder={"hidden_size": 48, "num_attention_heads": 4})
    network = tiny_network(config=odd, arithmetic="int8")
    assert not kernels_module.takes(network.config.head_size)
    assert isinstance(network._encoder._blocks, Blocks)
    assert stream(network, AUDIO[:20_000], 3, 9)[0].isfinite().all()


def test_a_library_of_another_source_is_not_used(library, tmp_path, monkeypatch, caplog):
    for file in (kernels_module._LIBRARY, *kernels_module._LIBRARY.parent.glob("*.c")):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(kernels_module, "_LIBRARY", tmp_path / "libkernels.so")
    load = kernels.__wrapped__
    assert load() is not None
    with (tmp_path / "fused.c").open("a") as source:
        source.write("/* changed */")
    with caplog.at_level(logging.WARNING):
        assert load() is None
    assert "install again" in caplog.text
    (tmp_path / "libkernels.so").unlink()
    assert load() is None


def test_without_avx2_it_is_not_used():
    done = subprocess.run(
        [sys.executable, "-c", "from nemotron_voice.model.kernels import *; print(kernels())"],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not BUILDABLE, reason="no compiler, or not a processor that it is for")
def test_the_build_says_what_it_was_made_of(hook, tmp_path):
    for source in (ROOT / "nemotron_voice/model").glob("*.c"):
        shutil.copy(source, tmp_path)
    hook.build(tmp_path / "libkernels.so")
    ctypes.CDLL(str(tmp_path / "libkernels.so"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fused.c",
        "libkernels.so",
        "product.c",
        "refine.c",
        "subsampling.c",
    ]


@pytest.mark.skipif(not BUILDABLE, reason="no compiler, or not a processor that it is for")
def test_a_build_that_fails_leaves_nothing(hook, tmp_path, monkeypatch):
    """Objects that it left would be in the wheel."""
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase "$1" in -shared) exit 1;; esac\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    sources = tmp_path / "model"
    sources.mkdir()
    shutil.copy(ROOT / "nemotron_voice/model/refine.c", sources)
    with pytest.raises(subprocess.CalledProcessError):
        hook.build(sources / "libkernels.so")
    assert [path.name for path in sources.iterdir()] == ["refine.c"]


def test_without_a_compiler_the_build_says_what_is_missing(hook, tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(hook.sys, "platform", "linux")
    monkeypatch.setattr(hook.platform, "machine", lambda: "x86_64")
    with pytest.raises(RuntimeError, match="apt install gcc"):
        hook.build(tmp_path / "libkernels.so")
    monkeypatch.setattr(hook.platform, "machine", lambda: "aarch64")
    with pytest.raises(RuntimeError, match="x86-64"):
        hook.build(tmp_path / "libkernels.so")
