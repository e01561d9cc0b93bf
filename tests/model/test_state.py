"""A state is data: rows are copied, moved and reset without touching others."""

from __future__ import annotations

from dataclasses import fields

import torch

from nemotron_voice.model.state import StreamState
from tests.model.tiny import tiny_network


def rows_of(state):
    for field in fields(state):
        value = getattr(state, field.name)
        yield from value if isinstance(value, list) else [value]


def test_every_tensor_has_its_rows_first():
    assert all(tensor.shape[0] == 3 for tensor in rows_of(tiny_network().initial_state(3)))


def test_gathered_rows_are_copies():
    state = tiny_network().initial_state(3)
    copy = state.gather(torch.tensor([2, 0]))
    assert copy.rows == 2
    with torch.inference_mode():
        for tensor in rows_of(copy):
            tensor.fill_(7)
    assert not any((tensor == 7).all() for tensor in rows_of(state))


def test_scattered_rows_go_where_they_are_sent_and_nowhere_else():
    network = tiny_network()
    slab = StreamState.allocate(network.config, 4, network.device, network.dtype)
    slab.scatter_(torch.tensor([2]), network.initial_state(1))
    assert slab.prediction[2].abs().sum() > 0
    assert slab.prediction[[0, 1, 3]].abs().sum() == 0
    slab.scatter_(torch.tensor([0, 3]), slab.gather(torch.tensor([2, 1])))
    assert torch.equal(slab.prediction[0], slab.prediction[2])
    assert slab.prediction[3].abs().sum() == 0


def test_memory_is_what_the_tensors_take():
    network = tiny_network()
    one, four = (network.initial_state(rows).nbytes for rows in (1, 4))
    assert four == 4 * one
    # K and V of 2 layers x 56 frames x 64 channels, convolutions 2 x 8 x 64, and the small ones
    assert 4 * (2 * 2 * 56 * 64 + 2 * 8 * 64) < one < 4 * (2 * 2 * 56 * 64 + 2 * 8 * 64) + 10_000
