"""Random weights: of the real size, speaking as often as people do, and loadable."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import torch

from nemotron_voice.bench import random_folder, random_model
from nemotron_voice.bench.random_model import REAL_SIZE, TOKENS_PER_S, random_checkpoint
from nemotron_voice.bench.speech import recordings
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.network import Network
from nemotron_voice.model.weights import check_weights, expected_shapes
from tests.model.test_network import full_size
from tests.model.tiny import chunks_of, window

SMALL = replace(
    REAL_SIZE,
    subsampling_channels=16,
    d_model=64,
    layers=2,
    feed_forward=128,
    vocabulary=513,
    blank=512,
    prediction_size=48,
    joint_size=48,
    prompt_hidden=64,
)


def test_the_size_is_the_released_models():
    assert full_size() == REAL_SIZE
    assert sum(prod(shape) for shape in expected_shapes(REAL_SIZE).values()) == 637_997_088


def test_tokens_come_as_often_as_calibrated_when_the_network_itself_decodes():
    checkpoint = random_checkpoint(config=SMALL)
    check_weights(checkpoint.weights, checkpoint.config, checkpoint.name)
    network = Network(checkpoint.weights, checkpoint.config)
    state, row = network.initial_state(1), torch.tensor([0])
    audio = np.tile(recordings()[5].samples, 4)[: 40 * 16_000]  # the calibration hasn't heard it
    emitted = [
        network.step(window(audio, 14 * n, 13)[None], state, row, torch.tensor([101]), 13)[0]
        for n in range(chunks_of(audio, 13))
    ]
    rate = sum(map(len, emitted)) / 40.0
    assert 0.4 * TOKENS_PER_S < rate < 2.5 * TOKENS_PER_S
    assert len({token.token_id for chunk in emitted for token in chunk}) > 5


def test_the_folder_loads_as_what_was_written(tmp_path):
    checkpoint = random_checkpoint(config=SMALL)
    loaded = load_checkpoint(random_folder.write_folder(checkpoint, tmp_path / "random"))
    assert loaded.config == checkpoint.config
    assert loaded.tokenizer.size == 512
    assert loaded.tokenizer.tag(1) == loaded.languages[0]
    for name, tensor in checkpoint.weights.items():
        assert torch.equal(loaded.weights[name], tensor)


def test_pieces_are_all_different_words():
    pieces = random_folder.tokenizer_json(13_087)
    assert len(set(pieces.split('["')[1:])) == 13_087


def test_random_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMOTRON_VOICE_CACHE", str(tmp_path))
    made = []

    def small() -> object:
        made.append(1)
        return random_checkpoint(config=SMALL)

    monkeypatch.setattr(random_model, "random_checkpoint", small)
    assert not random_folder.is_written()
    first = random_folder.resolve("random")
    assert random_folder.resolve("random") == first
    assert made == [1]
    assert [path.name for path in tmp_path.iterdir()] == [random_folder.cached_folder().name]
    assert random_folder.resolve("demo") == "demo"
