"""Decoding without the host gives the tokens that decoding led by the host gives."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from nemotron_voice.model import transducer as module
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.network import Network
from nemotron_voice.model.transducer import Decoding, Emission, emissions_of
from tests.model.tiny import random_weights, tiny_json


@cache
def speaking_network(seed: int, *, blank_bias: float, max_symbols: int) -> Network:
    config = ModelConfig.from_huggingface(tiny_json(max_symbols_per_step=max_symbols))
    return Network(random_weights(config, seed, blank_bias), config)


def without_the_host(
    network: Network, frames: torch.Tensor, idle: torch.Tensor
) -> tuple[list[list[Emission]], Decoding, int]:
    """Decode a first chunk: emissions, where it ends, passes."""
    transducer, count = network.transducer, len(frames)
    record = torch.full(
        transducer.record_shape(count, frames.shape[1]), 2**31 - 1, dtype=torch.int32
    )
    state, rows = network.initial_state(count + 2), torch.arange(count) + 1
    decoding = transducer.begin(frames, state, rows, idle, record)
    passes = 0
    while not passes or int(record[:, 0, 1].min()) < frames.shape[1]:
        transducer.advance(decoding)
        passes += 1
    return emissions_of(record), decoding, passes


@torch.inference_mode()
@pytest.mark.parametrize("joint_rows", [1, 16, 512])
@pytest.mark.parametrize("max_symbols", [1, 3, 10])
@pytest.mark.parametrize("blank_bias", [-20.0, 3.0, 6.0])
@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
def test_both_loops_emit_the_same_tokens_and_end_in_the_same_state(
    chunk, blank_bias, max_symbols, joint_rows, monkeypatch
):
    monkeypatch.setattr(module, "_JOINT_ROWS", joint_rows)
    most = total = 0
    for seed in range(3):
        network = speaking_network(seed, blank_bias=blank_bias, max_symbols=max_symbols)
        for count in (1, 6):
            generator = torch.Generator().manual_seed(100 * seed + count)
            frames = 2 * torch.randn(count, chunk, network.config.d_model, generator=generator)
            state, rows = network.initial_state(count + 2), torch.arange(count) + 1
            expected, decoder = network.transducer(frames, state, rows)
            found, decoding, _ = without_the_host(network, frames, torch.zeros(count).bool())
            for mine, its in zip(found, expected, strict=True):
                assert [(e.token_id, e.frame) for e in mine] == [(e.token_id, e.frame) for e in its]
                np.testing.assert_allclose(
                    [e.confidence for e in mine], [e.confidence for e in its], rtol=1e-4
                )
                most = max(most, *np.bincount([0, *[e.frame for e in its]]))
                total += len(its)
            for mine, its in zip(decoding.decoder, decoder, strict=True):
                torch.testing.assert_close(mine, its, atol=1e-4, rtol=1e-4)
    if blank_bias < 0:
        assert total == 3 * 7 * chunk * max_symbols, "every frame should emit the maximum"
    assert total, "the random networks said nothing; the test proves nothing"
    assert most >= min(max_symbols, 2)


@torch.inference_mode()
def test_rows_that_are_idle_or_done_stay_as_they_are():
    network = speaking_network(1, blank_bias=3.0, max_symbols=10)
    frames = 2 * torch.randn(4, 7, 64, generator=torch.Generator().manual_seed(0))
    idle = torch.tensor([False, True, False, True])
    emissions, decoding, _ = without_the_host(network, frames, idle)
    assert [bool(e) for e in emissions] == [True, False, True, False]
    beginning = network.initial_state(1)
    assert torch.equal(decoding.hidden[idle], beginning.hidden.expand(2, -1, -1))
    before = [tensor.clone() for tensor in decoding.decoder]
    network.transducer.advance(decoding)
    assert emissions_of(decoding.record) == emissions
    for mine, its in zip(decoding.decoder, before, strict=True):
        assert torch.equal(mine, its)


@torch.inference_mode()
def test_what_is_usual_takes_one_pass_and_more_takes_more():
    frames = torch.randn(3, 14, 64, generator=torch.Generator().manual_seed(0))
    nobody = torch.zeros(3).bool()
    silent = speaking_network(1, blank_bias=1e4, max_symbols=10)
    assert without_the_host(silent, frames, nobody)[2] == 1
    talkative = speaking_network(1, blank_bias=-1e4, max_symbols=10)
    assert without_the_host(talkative, frames, nobody)[2] > 2
