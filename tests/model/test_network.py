"""The network streams exactly what the whole utterance gives, and rows don't notice each other."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.config import LOOKAHEADS, ModelConfig
from nemotron_voice.model.int8_linear import RefinedInt8Linear, WeightLimit, weight_limit
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

FIRST = torch.tensor([0])
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
    state, row, prompt = network.initial_state(1), torch.tensor([0]), torch.tensor([9])
    start, frames = 0, []
    for lookahead in (3, 3, 0, 13, 1):
        samples = window(AUDIO, start, lookahead)[None]
        frames.append(network.encode(samples, state, row, prompt, lookahead)[0][0])
        network.step(samples, state, row, prompt, lookahead)
        start += lookahead + 1
    assert int(state.frames) == start
    torch.testing.assert_close(torch.cat(frames[:2]), stream(network, AUDIO, 3, 9)[0][:8])


@pytest.mark.parametrize("lookahead", [0, 13])
def test_a_step_that_fails_has_changed_no_row(network, lookahead, monkeypatch):
    """Rings are written to in place: only where nothing valid lies."""
    rows, prompts = torch.tensor([1, 0]), torch.tensor([0, 101])

    def run() -> list:
        state, heard = network.initial_state(2), []
        for chunk in range(chunks_of(AUDIO, lookahead)):
            samples = torch.stack([window(AUDIO, chunk * (lookahead + 1), lookahead)] * 2)
            with monkeypatch.context() as broken:
                broken.setattr(network, "_transducer", None)
                with pytest.raises(TypeError):
                    network.step(samples.flip(1), state, rows, prompts, lookahead)
            heard.append(network.step(samples, state, rows, prompts, lookahead))
        return heard

    disturbed = run()
    for place, prompt in enumerate((0, 101)):
        heard = [e for chunk in disturbed for e in chunk[place]]
        alone = stream(network, AUDIO, lookahead, prompt)[1]
        assert [(e.token_id, e.frame) for e in heard] == [(e.token_id, e.frame) for e in alone]


def test_a_step_leaves_other_rows_alone(network):
    state = network.initial_state(3)
    before = copy.deepcopy(state)
    samples = torch.stack([window(AUDIO, 0, 3)] * 2)
    network.step(samples, state, torch.tensor([2, 0]), torch.tensor([0, 101]), 3)
    untouched = torch.tensor([1])
    for mine, its in zip(
        _tensors(before.take(untouched)), _tensors(state.take(untouched)), strict=True
    ):
        assert torch.equal(mine, its)
    assert state.frames.tolist() == [4, 0, 4]


def _tensors(state):
    return [tensor for tensor, _ in state._tensors()]


@pytest.mark.parametrize("arithmetic", ["fp32", "int8"])
@pytest.mark.parametrize("lookahead", [0, 3])
def test_rows_at_different_offsets_and_languages_equal_their_solo_runs(lookahead, arithmetic):
    """16 streams that begin at different times, each with its own audio and language."""
    network = tiny_network(arithmetic=arithmetic)
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
        emitted = network.step(samples, slab, index, torch.from_numpy(prompts[rows]), lookahead)
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


# How much coarser weights are than those of 8 bits.
COARSER = {WeightLimit.EACH: 1.0, WeightLimit.PAIRS: 1.4, WeightLimit.SEVEN_BITS: 2.0}


@pytest.mark.parametrize("arithmetic", ["bf16", "int8"])
def test_other_precisions_keep_the_language_prompt_and_stay_near_fp32(network, arithmetic):
    coarse = tiny_network(arithmetic=arithmetic)
    for prompt in (9, 101):
        exact, near = stream(network, AUDIO, 3, prompt)[0], stream(coarse, AUDIO, 3, prompt)[0]
        assert near.dtype == torch.float32
        bound = 0.02 * (COARSER[weight_limit()] if arithmetic == "int8" else 1)
        assert (near - exact).abs().mean() < bound * exact.abs().mean()
    caches = {"bf16": torch.bfloat16, "int8": torch.float32}
    assert coarse.initial_state(1).keys.dtype == caches[arithmetic]


def test_a_look_ahead_that_does_not_tile_the_left_context_is_refused():
    network = tiny_network(config=ENGLISH)
    assert network.config.lookaheads == (0, 1, 6, 13)
    with pytest.raises(ConfigurationError, match=r"lookahead=3 .*\(0, 1, 6, 13\)"):
        network.step(torch.zeros(1, 5361), network.initial_state(1), FIRST, FIRST, 3)


def test_a_window_of_the_wrong_length_is_refused(network):
    with pytest.raises(ValueError, match="5361 samples, not 5120"):
        network.step(torch.zeros(1, 5120), network.initial_state(1), FIRST, FIRST, 3)


def test_the_seed_of_the_tiny_network_is_a_useful_one(network):
    emissions = stream(network, AUDIO, 3, 101)[1]
    assert len({e.token_id for e in emissions}) > 10, f"seed {SEED} says too little"


@pytest.mark.parametrize(("large", "in_int8"), [(0, True), (10**9, False)])
def test_auto_is_int8_for_large_models_on_a_cpu(large, in_int8, monkeypatch):
    monkeypatch.setattr("nemotron_voice.model.precision._LARGE", large)
    network = Network.from_checkpoint(load_checkpoint("demo"), device="cpu")
    assert isinstance(network.transducer._head, RefinedInt8Linear) == in_int8


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_int8_frames_of_the_bundled_checkpoint_are_the_same_bits_alone_and_in_any_batch(lookahead):
    """Rounding makes words of differences in the last bit, so there may be none."""
    checkpoint = load_checkpoint("demo")
    network = Network(checkpoint.weights, checkpoint.config, arithmetic="int8")
    count, chunks = 20, 5
    generator = torch.Generator().manual_seed(lookahead)
    loudness = torch.rand(count, 1, generator=generator)
    samples = loudness * torch.randn(count, window_samples(lookahead), generator=generator)
    prompts = torch.arange(count) % 5

    def frames(rows: list[int]) -> torch.Tensor:
        state, index = network.initial_state(count), torch.tensor(rows)
        made = []
        for chunk in range(chunks):
            work = samples[rows] / (chunk + 1), state, index, prompts[rows], lookahead
            made.append(network.encode(*work)[0])
            network.step(*work)
        return torch.cat(made, 1)

    together = frames(list(range(count)))
    for rows in ([0], [7], [3, 4], [19, 1, 6], [2, 7, 8, 9, 10, 11, 12, 13, 14]):
        assert torch.equal(frames(rows), together[rows]), rows
