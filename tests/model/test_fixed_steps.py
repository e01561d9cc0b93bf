"""Steps of fixed shapes say what steps of any shape say, and never ask the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nemotron_voice.model import blocks, fused_subsampling
from nemotron_voice.model.config import LOOKAHEADS, ModelConfig
from nemotron_voice.model.features import window_samples
from nemotron_voice.model.fixed_steps import FixedSteps, sizes_up_to
from nemotron_voice.model.graphs import Capture, CudaGraphs, capture_for, launch_each
from nemotron_voice.model.network import Network
from nemotron_voice.model.subsampling import _mix, _patches
from nemotron_voice.model.weights import expected_shapes
from tests.model.recorded_graphs import record
from tests.model.tiny import chunks_of, sweep, tiny_json, tiny_network, window

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
WAYS = [
    pytest.param(("cpu", "each"), id="one by one"),
    pytest.param(("cpu", "recorded"), id="recorded"),
    pytest.param(("cuda", "each"), id="one by one on CUDA", marks=needs_cuda),
    pytest.param(("cuda", "graphs"), id="CUDA graphs", marks=needs_cuda),
]
ROWS, LARGEST = 20, 17
IDLE = 150  # more than there are prompts


@pytest.fixture(scope="module")
def cpu() -> Network:
    return tiny_network()


@pytest.fixture
def make(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], FixedSteps]:
    """Steps over a new slab of which ROWS rows are used, and the idle one."""
    device, way = request.param
    captures: dict[str, Callable[[], Capture]] = {
        "each": lambda: launch_each,
        "recorded": lambda: record,
        "graphs": lambda: CudaGraphs(torch.device(device)),
    }
    if way == "recorded":  # as on a GPU
        # On a CPU, rows in a row are read as a slice: a look at their numbers.
        monkeypatch.setattr(blocks, "_consecutive", lambda rows: rows)
        monkeypatch.setattr(fused_subsampling, "kernels", lambda: None)
    network = tiny_network(device=device)

    def build() -> FixedSteps:
        state = network.initial_state(IDLE + 1)
        steps = FixedSteps(network, state, IDLE, LARGEST, captures[way]())
        steps.build()
        return steps

    return build


def said(emissions: list) -> list:
    return [[(e.token_id, e.frame) for e in row] for row in emissions]


@pytest.mark.parametrize("make", WAYS, indirect=True)
def test_tokens_are_those_of_the_network_for_any_number_of_rows(make, cpu):
    """Rows come and go, begin at any time, in any mode and language."""
    steps, slab = make(), cpu.initial_state(ROWS)
    generator = np.random.default_rng(3)
    audios = [sweep(12.0, seed) for seed in range(ROWS)]
    prompts = generator.choice([0, 9, 101], ROWS)
    frame = np.zeros(ROWS, int)
    spoken = 0
    for _ in range(25):
        lookahead = int(generator.choice(LOOKAHEADS))
        rows = generator.permutation(ROWS)[: generator.integers(1, LARGEST + 1)].tolist()
        samples = [window(audios[row], int(frame[row]), lookahead) for row in rows]
        numbers = torch.tensor(rows), torch.from_numpy(prompts[rows])
        expected = cpu.step(torch.stack(samples), slab, *numbers, lookahead)
        found = steps([one.numpy() for one in samples], rows, prompts[rows].tolist(), lookahead)
        assert said(found) == said(expected)
        for mine, its in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                [e.confidence for e in mine], [e.confidence for e in its], atol=1e-3
            )
        frame[rows] += lookahead + 1
        spoken += sum(map(len, expected))
    assert spoken > 100, "the random network said too little; the test proves too little"
    assert steps._state.frames[:ROWS].tolist() == frame.tolist()


@pytest.mark.parametrize("make", WAYS, indirect=True)
def test_a_row_hears_the_same_whatever_the_padding_was(make):
    audio = sweep(2.0)

    def alone(neighbours: int) -> list:
        steps, heard = make(), []
        for chunk in range(chunks_of(audio, 3)):
            samples = [window(audio, chunk * 4, 3).numpy()]
            samples += [sweep(1.0, seed)[: samples[0].size] for seed in range(neighbours)]
            rows = list(range(neighbours + 1))
            heard += said(steps(samples, rows, [101] * len(rows), 3)[:1])
        return heard

    assert any(alone(0))
    assert alone(0) == alone(1) == alone(4) == alone(LARGEST - 1)


@pytest.mark.parametrize("make", WAYS[:2], indirect=True)
def test_a_step_that_fails_has_changed_no_row(make, cpu):
    audio, slab, steps = sweep(3.0), cpu.initial_state(2), make()
    rows, prompts = torch.tensor([1, 0]), torch.tensor([9, 101])

    def fail() -> None:
        raise RuntimeError("out of memory")

    for chunk in range(chunks_of(audio, 3)):
        samples = [window(audio, chunk * 4, 3).numpy()] * 2
        whole = steps._steps[3, 2]
        steps._steps[3, 2] = replace(whole, decode=fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            steps([one[::-1] for one in samples], [1, 0], [9, 101], 3)
        steps._steps[3, 2] = whole
        expected = cpu.step(torch.from_numpy(np.stack(samples)), slab, rows, prompts, 3)
        assert said(steps(samples, [1, 0], [9, 101], 3)) == said(expected)


@pytest.mark.parametrize("make", WAYS[:2], indirect=True)
def test_nothing_of_a_caller_stays_in_what_pads_the_next_step(make):
    steps = make()
    loud = np.ones(window_samples(0), np.float32)
    steps([loud] * 4, [0, 1, 2, 3], [0] * 4, 0)
    steps([loud] * 3, [0, 1, 2], [0] * 3, 0)
    step = steps._steps[0, 4]
    assert step.samples.device[3].abs().sum() == 0
    assert step.places.device[:, 3].tolist() == [IDLE, 0]


class OneDevice(TorchDispatchMode):
    """Refuses operations that copy between devices, which wait for the device."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        with self:  # what is made of other operations is judged by them
            result = function.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        result = function(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        assert devices <= {"meta"}, f"{function} is of {devices}"
        return result


def test_no_part_of_a_step_asks_the_device_or_brings_it_anything():
    """Tensors without memory have no numbers to tell."""
    config = ModelConfig.from_huggingface(tiny_json())
    meta = torch.device("meta")
    weights = {
        name: torch.empty(shape, device=meta) for name, shape in expected_shapes(config).items()
    }
    network = Network(weights, config, device=meta)
    ran = []

    def run(bodies):
        for body in bodies:
            with OneDevice():
                body()
        ran.append(len(bodies))
        return list(bodies)

    FixedSteps(network, network.initial_state(IDLE + 1), IDLE, LARGEST, run).build()
    assert ran == [3] * len(LOOKAHEADS) * len(sizes_up_to(LARGEST))


def test_a_model_without_prompts_pads_too():
    english = tiny_json(model_type="nemotron_asr_streaming", encoder={"sliding_window": 71})
    network = tiny_network(config=english)
    slab = network.initial_state(3)
    steps = FixedSteps(network, network.initial_state(4), 3, 4, launch_each)
    steps.build()
    audio = sweep(2.0)
    for chunk in range(chunks_of(audio, 6)):
        samples = [window(audio, chunk * 7, 6)] * 3
        index = torch.arange(3)
        expected = network.step(torch.stack(samples), slab, index, torch.full((3,), -1), 6)
        found = steps([one.numpy() for one in samples], [0, 1, 2], [-1] * 3, 6)
        assert said(found) == said(expected)


@pytest.mark.parametrize("largest", [1, 2, 3, 5, 16, 17, 32, 100, 256, 512, 1000])
def test_no_more_than_half_of_a_small_step_is_padding_and_a_third_of_a_large_one(largest):
    sizes = sizes_up_to(largest)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, largest)
    for rows in range(1, largest + 1):
        size = next(size for size in sizes if size >= rows)
        assert size - rows < max(size / 2 if size <= 16 else size / 3, 1)
    assert len(sizes) <= 2 * largest.bit_length()


def test_a_cpu_takes_steps_of_any_shape():
    assert capture_for(torch.device("cpu"), graphs=True) is None


def test_the_first_stage_on_a_gpu_is_the_convolution_that_it_is_on_a_cpu():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 1, 17, 131, generator=generator)
    weight, bias = torch.randn(8, 1, 3, 3, generator=generator), torch.randn(8, generator=generator)
    expected = torch.nn.functional.conv2d(maps, weight, bias, stride=2)
    torch.testing.assert_close(_mix(_patches(maps), weight, bias), expected, atol=1e-5, rtol=1e-5)
