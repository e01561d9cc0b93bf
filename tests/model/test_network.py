"""The network streams exactly what the whole utterance gives, and rows don't notice each other."""

from __future__ import annotations

import copy
import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.config import LOOKAHEADS, ModelConfig
from nemotron_voice.model.network import Network, chunk_samples, window_samples
from nemotron_voice.model.weights import expected_shapes
from tests.model.tiny import (
    SEED,
    chunks_of,
    random_weights,
    stream,
    sweep,
    tiny_json,
    tiny_network,
    window,
)
from tests.model.whole_utterance import WholeUtterance

AUDIO = sweep(5.3)  # longer than the left context of 4.48 s
# The English sibling's settings at tiny sizes.
ENGLISH = tiny_json(
    model_type="nemotron_asr_streaming",
    encoder={
        "sliding_window": 71,
        "attention_bias": True,
        "convolution_bias": True,
        "scale_input": True,
        "num_mel_bins": 80,
    },
)


@pytest.fixture(scope="module")
def network() -> Network:
    return tiny_network()


def whole(network: Network, lookahead: int, prompt: int) -> tuple[torch.Tensor, list]:
    reference = WholeUtterance(random_weights(network.config), network.config)
    frames = chunks_of(AUDIO, lookahead) * (lookahead + 1)
    encoded = reference.encode(AUDIO, lookahead, prompt, frames)
    return encoded, reference.decode(encoded)


@pytest.mark.parametrize("prompt", [9, 101])
@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_a_stream_equals_the_whole_utterance(network, lookahead, prompt):
    frames, emissions = stream(network, AUDIO, lookahead, prompt)
    expected, tokens = whole(network, lookahead, prompt)
    torch.testing.assert_close(frames.double(), expected, atol=1e-4, rtol=0)
    assert tokens
    assert [(e.token_id, e.frame) for e in emissions] == [token[:2] for token in tokens]
    np.testing.assert_allclose(
        [e.confidence for e in emissions], [token[2] for token in tokens], atol=0.01
    )


@pytest.mark.parametrize("lookahead", [0, 1, 6, 13])
def test_the_english_sibling_with_biases_and_scaling_and_no_prompt_equals_it_too(lookahead):
    network = tiny_network(config=ENGLISH)
    frames, emissions = stream(network, AUDIO, lookahead, -1)
    expected, tokens = whole(network, lookahead, -1)
    torch.testing.assert_close(frames.double(), expected, atol=1e-4, rtol=0)
    assert [(e.token_id, e.frame) for e in emissions] == [token[:2] for token in tokens]


def test_a_prompt_changes_what_is_heard(network):
    assert stream(network, AUDIO, 3, 9)[1] != stream(network, AUDIO, 3, 101)[1]


def test_a_chunk_size_may_change_within_a_stream(network):
    """Frames before the change are those of the old mode, and the first ones after see the past."""
    state, prompt = network.initial_state(1), torch.tensor([9])
    start, frames = 0, []
    for lookahead in (3, 3, 0, 13, 1):
        samples = window(AUDIO, start, lookahead)[None]
        state, encoded = network.encode_step(samples, state, prompt, lookahead)
        frames.append(encoded[0])
        start += lookahead + 1
    assert int(state.frames) == start
    torch.testing.assert_close(torch.cat(frames[:2]), stream(network, AUDIO, 3, 9)[0][:8])


def test_a_step_changes_neither_its_state_nor_the_network(network):
    state = network.initial_state(2)
    samples = torch.stack([window(AUDIO, 0, 3)] * 2)
    state, _ = network.step(samples, state, torch.tensor([0, 101]), 3)
    before = copy.deepcopy(state)
    later = torch.stack([window(AUDIO, 4, 3)] * 2)
    first = network.step(later, state, torch.tensor([0, 101]), 3)
    for field in fields(state):
        for mine, its in zip(
            _tensors(getattr(before, field.name)), _tensors(getattr(state, field.name)), strict=True
        ):
            assert torch.equal(mine, its), field.name
    second = network.step(later, state, torch.tensor([0, 101]), 3)
    assert first[1] == second[1]


def _tensors(value):
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("lookahead", [0, 3])
def test_rows_at_different_offsets_and_languages_equal_their_solo_runs(network, lookahead):
    """16 streams that begin at different times, each with its own audio and language."""
    generator = np.random.default_rng(5)
    count = 16
    audios = [sweep(2.0, seed) for seed in range(count)]
    prompts = generator.choice([0, 9, 12, 101], count)
    delays = generator.integers(0, 12, count)
    alone = [stream(network, audios[row], lookahead, int(prompts[row]))[1] for row in range(count)]
    slab = network.initial_state(count + 1)
    together: list[list] = [[] for _ in range(count)]
    chunks = chunks_of(audios[0], lookahead)
    for tick in range(chunks + 12):
        rows = [row for row in range(count) if 0 <= tick - delays[row] < chunks]
        if not rows:
            continue
        index = torch.tensor(rows)
        samples = torch.stack(
            [
                window(audios[row], int(tick - delays[row]) * (lookahead + 1), lookahead)
                for row in rows
            ]
        )
        after, emitted = network.step(
            samples, slab.gather(index), torch.from_numpy(prompts[rows]), lookahead
        )
        slab.scatter_(index, after)
        for row, emissions in zip(rows, emitted, strict=True):
            together[row] += emissions
    for row in range(count):
        assert [(e.token_id, e.frame) for e in together[row]] == [
            (e.token_id, e.frame) for e in alone[row]
        ]
    assert sum(map(len, together)) > 50


def test_a_frame_emits_at_most_max_symbols():
    weights = random_weights(ModelConfig.from_huggingface(tiny_json()))
    config = ModelConfig.from_huggingface(tiny_json(max_symbols_per_step=3))
    weights["joint.head.bias"][config.blank] = -1e4
    emissions = stream(Network(weights, config), AUDIO[:32_000], 3, 0)[1]
    assert np.bincount([e.frame for e in emissions]).tolist() == [3] * 24


def test_the_released_model_has_637_997_088_parameters():
    assert sum(math.prod(shape) for shape in expected_shapes(full_size()).values()) == 637_997_088


def full_size() -> ModelConfig:
    encoder = {
        "num_mel_bins": 128,
        "sliding_window": 57,
        "attention_bias": False,
        "convolution_bias": False,
        "scale_input": False,
    }
    return ModelConfig.from_huggingface(
        {"model_type": "nemotron3_5_asr", "encoder_config": encoder}
    )


def test_the_window_is_241_samples_longer_than_the_chunk():
    assert [window_samples(right) - chunk_samples(right) for right in LOOKAHEADS] == [241] * 5
    assert chunk_samples(3) == 5120


def test_bf16_keeps_the_language_prompt_and_stays_near_fp32(network):
    coarse = tiny_network(dtype=torch.bfloat16)
    for prompt in (9, 101):
        exact, near = stream(network, AUDIO, 3, prompt)[0], stream(coarse, AUDIO, 3, prompt)[0]
        assert near.dtype == torch.float32
        assert (near - exact).abs().mean() < 0.02 * exact.abs().mean()
    assert coarse.initial_state(1).keys.dtype == torch.bfloat16


def test_a_look_ahead_that_does_not_tile_the_left_context_is_refused():
    network = tiny_network(config=ENGLISH)
    assert network.config.lookaheads == (0, 1, 6, 13)
    with pytest.raises(ConfigurationError, match=r"lookahead=3 .*\(0, 1, 6, 13\)"):
        network.step(torch.zeros(1, 5361), network.initial_state(1), torch.tensor([0]), 3)


def test_a_window_of_the_wrong_length_is_refused(network):
    with pytest.raises(ValueError, match="5361 samples, not 5120"):
        network.step(torch.zeros(1, 5120), network.initial_state(1), torch.tensor([0]), 3)


def test_the_seed_of_the_tiny_network_is_a_useful_one(network):
    emissions = stream(network, AUDIO, 3, 101)[1]
    assert len({e.token_id for e in emissions}) > 10, f"seed {SEED} says too little"
