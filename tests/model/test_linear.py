"""Products in int8, bf16 and fp32: against float64, alone and among neighbours."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model import int8_linear
from nemotron_voice.model.int8_linear import (
    SILU_FLOOR,
    FineInt8Linear,
    Int8Linear,
    OneDnnProduct,
    PairsProduct,
    RefinedInt8Linear,
    WeightLimit,
    quantise,
    round_rows,
)
from nemotron_voice.model.kernels import Rounding, kernels
from nemotron_voice.model.linear import dense


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("bias", [None, random(96, seed=3)])
def test_an_int8_product_is_that_of_the_rounded_numbers(bias):
    weight, x = random(96, 320), 5 * random(7, 320, seed=1)
    matrix, scale = quantise(weight)
    per_row = x.abs().amax(1, keepdim=True) / 127
    rounded = (x.double() / per_row).round()
    expected = (rounded @ matrix.T.double()) * per_row * scale
    if bias is not None:
        expected += bias
    torch.testing.assert_close(
        Int8Linear(matrix, scale, bias)(x).double(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("floor", [0.0, SILU_FLOOR])
@pytest.mark.parametrize("bias", [None, random(96, seed=3)])
def test_what_has_a_floor_is_rounded_from_there_up(bias, floor):
    weight, x = random(96, 320), floor + 5 * random(7, 320, seed=1).abs()
    matrix, scale = quantise(weight)
    per_row = (x - floor).amax(1, keepdim=True).double() / 255
    rounded = ((x.double() - floor) / per_row).round() * per_row + floor
    expected = (rounded @ matrix.T.double()) * scale
    if bias is not None:
        expected += bias
    torch.testing.assert_close(
        Int8Linear(matrix, scale, bias, floor)(x).double(), expected, rtol=1e-4, atol=1e-4
    )


def error_of(product, weight: torch.Tensor, x: torch.Tensor) -> float:
    exact = x.double() @ weight.T.double()
    return float((product(x) - exact).norm() / exact.norm())


def fine(weight: torch.Tensor, bias: torch.Tensor | None = None) -> FineInt8Linear:
    matrix, scale = quantise(weight)
    return FineInt8Linear((matrix, scale), quantise(weight - matrix * scale[:, None]), bias)


def test_rounding_loses_little():
    weight, x = random(256, 512), random(32, 512, seed=1)
    assert error_of(Int8Linear(*quantise(weight), None), weight, x) < 0.02


@pytest.mark.usefixtures("kernel")
def test_parts_and_floors_lose_less():
    weight, x = random(256, 512), random(32, 512, seed=1)
    assert error_of(fine(weight), weight, x) < 3e-4
    positive = x.relu()
    errors = [
        error_of(Int8Linear(*quantise(weight), None, floor), weight, positive)
        for floor in (None, 0.0)
    ]
    assert errors[1] < errors[0]


@pytest.mark.usefixtures("kernel")
def test_a_fine_product_adds_its_bias_once():
    weight, bias, x = random(96, 320), 100 * random(96, seed=3), random(7, 320, seed=1)
    torch.testing.assert_close(fine(weight, bias)(x), x @ weight.T + bias, rtol=1e-3, atol=1e-2)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("built", [True, False])
def test_which_output_is_the_largest_is_said_in_fp32(built, monkeypatch):
    if built and kernels() is None:
        pytest.skip("refine.c isn't built here")
    weight, bias = random(2000, 64), random(2000, seed=2)
    x = random(1000, 64, seed=1).relu()
    exact = x.double() @ weight.T.double() + bias
    rough = Int8Linear(*quantise(weight), bias, 0.0)
    product = RefinedInt8Linear(rough, weight, bias)
    if not built:
        monkeypatch.setattr(int8_linear, "kernels", lambda: None)
    refined = product(x)
    wrong = rough(x).argmax(1) != exact.argmax(1)
    assert wrong.sum() > 5, "too easy"
    assert torch.equal(refined.argmax(1), exact.argmax(1))
    torch.testing.assert_close(refined.amax(1).double(), exact.amax(1), rtol=1e-6, atol=1e-6)
    for rows in (1, 2, 40):
        assert torch.equal(product(x[:rows]), refined[:rows]), "a row is the same alone"


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("kind", ["symmetric", "one-sided", "fine"])
@pytest.mark.parametrize("shape", [(1024, 256), (256, 1024), (640, 2000)])
def test_a_row_is_the_same_alone_and_next_to_any_neighbour_bit_for_bit(shape, kind):
    inputs, outputs = shape
    weight, bias = random(outputs, inputs), random(outputs, seed=9)
    floor = 0.0 if kind == "one-sided" else None
    product = fine(weight, bias) if kind == "fine" else Int8Linear(*quantise(weight), bias, floor)
    change = torch.relu if kind == "one-sided" else torch.clone
    mine = change(random(3, inputs, seed=1))
    alone = product(mine)
    for count in (1, 2, 5, 13, 29, 61, 250):
        loud = change(1000 * random(count, inputs, seed=count))
        assert torch.equal(product(torch.cat([loud, mine]))[count:], alone)
        assert torch.equal(product(torch.cat([mine, loud]))[:3], alone)


KERNELS = [OneDnnProduct, PairsProduct]


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch):
    """Each kernel that this processor may be given, also where it would get the other."""
    limit = WeightLimit.PAIRS
    if request.param is OneDnnProduct:
        limit = WeightLimit.EACH if int8_linear.has_vnni() else WeightLimit.SEVEN_BITS
    elif kernels() is None:
        pytest.skip("product.c isn't built here")
    monkeypatch.setattr(int8_linear, "weight_limit", lambda: limit)
    return request.param


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_row_of_no_numbers_leaves_its_neighbours_alone(broken):
    product = Int8Linear(*quantise(random(64, 128)), None)
    mine = random(2, 128, seed=1)
    neighbour = random(1, 128, seed=2)
    neighbour[0, 5] = broken
    assert torch.equal(product(torch.cat([mine, neighbour]))[:2], product(mine))


@pytest.mark.skipif(kernels() is None, reason="product.c isn't built here")
@pytest.mark.parametrize("inputs", [4, 301, 1024])
@pytest.mark.parametrize("rows", [1, 3, 6, 7, 40, 200])
def test_both_kernels_make_the_same_bits(rows, inputs):
    weight = torch.randint(-63, 64, (203, inputs), generator=torch.Generator().manual_seed(0))
    scale = random(203, seed=3).abs()
    x = 200 * random(rows, inputs, seed=1)
    for one_sided in (False, True):
        if one_sided:
            x = x.abs()
        products = [kind(weight.to(torch.int8), scale, one_sided=one_sided) for kind in KERNELS]
        one, other = (
            product(round_rows(x, Rounding(product.layout)).values) for product in products
        )
        assert torch.equal(one, other)


@pytest.mark.usefixtures("kernel")
def test_silence_stays_silence():
    nothing = torch.zeros(2, 64)
    assert torch.equal(Int8Linear(*quantise(random(64, 128)), None)(torch.zeros(2, 128)), nothing)
    assert torch.equal(Int8Linear(*quantise(torch.zeros(64, 128)), None)(random(2, 128)), nothing)


def test_leading_dimensions_are_kept():
    product = Int8Linear(*quantise(random(64, 128)), None)
    x = random(2, 5, 128)
    assert product(x).shape == (2, 5, 64)
    assert torch.equal(product(x)[1, 3], product(x[1, 3:4])[0])


EXTREMES = """
import torch
from nemotron_voice.model.int8_linear import Int8Linear, quantise, weight_limit
weight = torch.ones(48, 512)
weight[1::2] *= -1
weight[:8, ::2] = 0.01
matrix, _ = quantise(weight)
product = Int8Linear(matrix, torch.ones(48), None)(torch.full((5, 512), 127.0))
exact = matrix.sum(1, dtype=torch.float32) * 127
assert torch.equal(product, exact.expand(5, -1)), (product, exact)
print(weight_limit())
"""


@pytest.mark.parametrize("processor", ["SSE41", "AVX2", "AVX512_CORE_VNNI"])
def test_a_processor_whose_kernel_overflows_gets_smaller_weights(processor):
    done = subprocess.run(
        [sys.executable, "-c", EXTREMES],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": processor},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if processor != "AVX512_CORE_VNNI":
        assert WeightLimit(done.stdout.strip()) is not WeightLimit.EACH


@pytest.mark.parametrize("kernel", [PairsProduct], indirect=True)
@pytest.mark.parametrize("inputs", [64, 301, 1000])
@pytest.mark.parametrize("rows", [1, 5, 40, 200])
def test_pairs_of_weights_never_overflow(kernel, rows, inputs):
    matrix, scale = quantise(random(200, inputs))
    pairs = torch.nn.functional.pad(matrix, (0, inputs % 2)).int().unflatten(1, (-1, 2))
    assert 120 < pairs.clamp(min=0).sum(2).max() <= 128
    assert -128 <= pairs.clamp(max=0).sum(2).min() < -120
    assert scale.mean() < 0.8 * (random(200, inputs).abs().amax(1) / 63).mean(), "finer than 7 bits"
    signs = (random(rows, inputs, seed=1) > 0).float() * 2 - 1  # all as large as they can be
    signs[0] = 1.0
    product = kernel(matrix, torch.ones(200))
    rounded = round_rows(signs, Rounding(product.layout))
    exact = (127 * signs.long()) @ matrix.long().T
    assert torch.equal(product(rounded.values).long(), exact)
    product = kernel(matrix, torch.ones(200), one_sided=True)
    switched = signs.clamp(min=0.0)
    rounded = round_rows(switched, Rounding(product.layout))
    assert torch.equal(product(rounded.values).long(), (255 * switched.long()) @ matrix.long().T)


@pytest.mark.parametrize("kernel", [PairsProduct], indirect=True)
@pytest.mark.parametrize("inputs", [4, 250, 1024])
@pytest.mark.parametrize("sign", [1, -1])
def test_weights_that_share_a_sum_of_16_bits_never_overflow_it(kernel, inputs, sign):
    # Each row is as large as it can be where one output's weights have a sign, and 0 elsewhere.
    matrix, _ = quantise(random(300, inputs))
    product = kernel(matrix, torch.ones(len(matrix)), one_sided=True)
    loudest = torch.where(sign * matrix > 0, 255, 0).to(torch.uint8)
    exact = loudest.double() @ matrix.double().T
    assert torch.equal(product(loudest).double(), exact)
    for begin in range(0, len(matrix), 50):
        for rows in (1, 6):  # other ways through the kernel
            some = slice(begin, begin + rows)
            assert torch.equal(product(loudest[some]).double(), exact[some])


def test_int8_is_refused_off_the_cpu():
    weight = torch.empty(4, 4, dtype=torch.int8, device="meta")
    with pytest.raises(ConfigurationError, match="runs on CPUs; take precision='bf16'"):
        Int8Linear(weight, torch.ones(4), None)


@pytest.mark.parametrize("rows", [1, 16, 100])
def test_bf16_is_that_of_pytorch(rows):
    weight, bias = random(64, 128), random(64, seed=4)
    x = random(rows, 128, seed=1).bfloat16()
    expected = x.double() @ weight.bfloat16().double().T + bias.bfloat16().double()
    product = dense(weight, bias, torch.bfloat16)(x)
    assert product.dtype == torch.bfloat16
    torch.testing.assert_close(product.double(), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shape", [(1,), (7,), (40,), (3, 14)])
@pytest.mark.parametrize("sizes", [(1024, 640), (64, 48)])  # laid out for oneDNN, and as it is
def test_fp32_is_exact_to_its_last_bits(sizes, shape, biased):
    outputs, inputs = sizes
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(inputs, outputs, generator=generator).T  # with strides, as a .nemo's may
    bias = torch.randn(outputs, generator=generator) if biased else None
    x = torch.randn(*shape, inputs, generator=generator)
    with torch.inference_mode():
        product = dense(weight, bias, torch.float32)(x)
    assert product.shape == (*shape, outputs)
    assert product.dtype == torch.float32
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert (product - exact).abs().max() < 2e-5 * inputs**0.5
