"""The cost rule: operations per second of audio hardly depend on the chunk."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.network import Network, window_samples
from nemotron_voice.model.weights import expected_shapes
from tests.model.test_network import full_size
from tests.model.tiny import chunks_of, random_weights, sweep, tiny_json, window


def encoder_flops(lookahead: int) -> float:
    """Operations a second of audio, features to prompt, of the released model's sizes."""
    config = full_size()
    meta = torch.device("meta")
    weights = {
        name: torch.empty(shape, device=meta) for name, shape in expected_shapes(config).items()
    }
    network = Network(weights, config, device=meta)
    state, row = network.initial_state(1), torch.zeros(1, dtype=torch.int64, device=meta)
    samples = torch.empty(1, window_samples(lookahead), device=meta)
    prompt = torch.zeros(1, dtype=torch.int64, device=meta)
    with FlopCounterMode(display=False) as counter:
        network.encode(samples, state, row, prompt, lookahead)
    return counter.get_total_flops() / (0.08 * (lookahead + 1))


def test_the_released_encoder_costs_the_same_at_80_and_1120_ms():
    costs = {lookahead: encoder_flops(lookahead) for lookahead in (0, 1, 3, 6, 13)}
    assert max(costs.values()) < 1.1 * min(costs.values())
    # A frame passes each weight matrix once: 2 operations a weight, 12.5 frames a second, and
    # attention beside it. Encoding 9 mel frames or 56 keys anew would show here.
    assert 14e9 < costs[0] < 17e9


@pytest.mark.parametrize("seconds", [6])
def test_a_step_with_decoding_costs_the_same_at_80_and_1120_ms(seconds):
    sizes = tiny_json(
        decoder_hidden_size=64,
        encoder={"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 3},
    )
    config = ModelConfig.from_huggingface(sizes)
    network = Network(random_weights(config), config)
    audio = sweep(seconds)
    costs = {}
    for lookahead in (0, 13):
        state, row, prompt = network.initial_state(1), torch.tensor([0]), torch.tensor([9])
        with FlopCounterMode(display=False) as counter:
            for chunk in range(chunks_of(audio, lookahead)):
                samples = window(audio, chunk * (lookahead + 1), lookahead)[None]
                network.step(samples, state, row, prompt, lookahead)
        costs[lookahead] = counter.get_total_flops() / int(state.frames)
    assert max(costs.values()) < 1.1 * min(costs.values())
