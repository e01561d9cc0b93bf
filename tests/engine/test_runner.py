"""Steps of fixed shapes and steps of any shape give each work the same, forks and failures too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nemotron_voice.engine.runner import Runner, Work
from nemotron_voice.errors import StepFailedError
from nemotron_voice.model.features import window_samples
from nemotron_voice.model.graphs import Capture, CudaGraphs, launch_each
from nemotron_voice.model.network import Network
from tests.random_checkpoint import tiny_checkpoint

STREAMS, MAX_BATCH = 7, 5


def make_runner(capture: Capture | None, device: str = "cpu") -> Runner:
    checkpoint = tiny_checkpoint()
    network = Network(checkpoint.weights, checkpoint.config, device=device)
    runner = Runner(network, STREAMS, MAX_BATCH, capture)
    runner.warm_up()
    return runner


def talk(runner: Runner, *, seed: int = 0, poisoned: bool = False) -> list[Any]:
    """Some 150 works, drawn at random: what each gave."""
    generator = np.random.default_rng(seed)
    begun = [False] * STREAMS
    forks: dict[int, Any] = {}  # of each row: where its fork has come to
    heard = []
    for step in range(50):
        lookahead = int(generator.choice([0, 3, 13]))
        works = []
        for row in generator.permutation(STREAMS)[: generator.integers(1, MAX_BATCH + 1)].tolist():
            loudness = generator.random()
            samples = loudness * generator.standard_normal(window_samples(lookahead))
            work = Work(samples.astype(np.float32), row, int(generator.integers(5)), lookahead)
            kind = generator.choice(["stream", "fork", "fresh fork", "long fork", "new stream"])
            work.fork = "fork" in kind
            work.more = kind == "long fork"
            work.state = forks.pop(row, None) if work.fork else None
            work.fresh = kind in {"fresh fork", "new stream"} or not begun[row]
            work.fresh &= work.state is None
            begun[row] |= not work.fork
            works.append(work)
        if poisoned and step % 5 == 0:
            works[0].samples[:] = np.nan
            works[0].fork, works[0].state = True, None  # its row goes on as if nothing had happened
        for work, outcome in zip(works, runner.run(works), strict=True):
            assert (outcome.state is not None) == (work.fork and work.more and not outcome.error)
            if outcome.state is not None:
                forks[work.row] = outcome.state
            if not np.isnan(work.samples[0]):
                assert outcome.error is None
                heard.append([(e.token_id, e.frame) for e in outcome.emissions])
            else:
                heard.append(type(outcome.error))
    assert sum(bool(one) for one in heard) > 50, "the random network said too little"
    return heard


@pytest.mark.parametrize("seed", range(3))
def test_streams_and_forks_hear_the_same_in_steps_of_fixed_shapes(seed):
    assert talk(make_runner(launch_each), seed=seed) == talk(make_runner(None), seed=seed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_streams_and_forks_hear_the_same_from_cuda_graphs():
    graphs = make_runner(CudaGraphs(torch.device("cuda")), "cuda")
    assert talk(graphs) == talk(make_runner(launch_each, "cuda")) == talk(make_runner(None))


@pytest.mark.parametrize("capture", [None, launch_each], ids=["any shape", "fixed shapes"])
def test_a_work_that_fails_ends_alone(capture, monkeypatch):
    runner = make_runner(capture)
    encode = runner._network.encode

    def failing(samples, *rest):
        if samples.isnan().any():
            raise RuntimeError("out of memory")
        return encode(samples, *rest)

    monkeypatch.setattr(runner._network, "encode", failing)
    poisoned = talk(runner, poisoned=True)
    assert poisoned.count(StepFailedError) == 10
    monkeypatch.setattr(runner._network, "encode", encode)
    assert runner.run([Work(np.zeros(window_samples(0), np.float32), 0, 0, 0)])[0].error is None


def test_warming_up_leaves_no_trace_in_any_stream():
    checkpoint = tiny_checkpoint()
    network = Network(checkpoint.weights, checkpoint.config)
    runner = Runner(network, STREAMS, MAX_BATCH, launch_each)
    runner.warm_up()
    for row in range(STREAMS):
        mine = runner._slab.take(torch.tensor([row]))
        fresh = network.initial_state(1)
        for (tensor, _), (new, _) in zip(mine._tensors(), fresh._tensors(), strict=True):
            assert torch.equal(tensor, new)
