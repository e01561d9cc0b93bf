"""A state is data: rows are copied, moved and reset without touching others."""

from __future__ import annotations

import torch

from nemotron_voice.model.state import StreamState
from tests.model.tiny import tiny_network


def tensors(state):
    return [tensor for tensor, _ in state._tensors()]


def test_taken_rows_are_copies():
    state = tiny_network().initial_state(3)
    copy = state.take(torch.tensor([2, 0]))
    assert copy.rows == 2
    with torch.inference_mode():
        for tensor in tensors(copy):
            tensor.fill_(7)
    assert not any((tensor == 7).any() for tensor in tensors(state))


def test_copied_rows_go_where_they_are_sent_and_nowhere_else():
    network = tiny_network()
    slab = StreamState.allocate(network.config, 4, network.device, torch.float32)
    slab.copy_(torch.tensor([2]), network.initial_state(1), torch.tensor([0]))
    assert slab.prediction[2].abs().sum() > 0
    assert slab.prediction[[0, 1, 3]].abs().sum() == 0
    slab.copy_(torch.tensor([0, 3]), slab, torch.tensor([2, 1]))
    assert torch.equal(slab.prediction[0], slab.prediction[2])
    assert slab.prediction[3].abs().sum() == 0


def test_a_restarted_row_is_a_new_stream_whatever_it_was():
    network = tiny_network()
    slab = network.initial_state(3)
    with torch.inference_mode():
        for tensor in tensors(slab):
            tensor.fill_(3)
    network.restart(slab, torch.tensor([1]))
    for mine, new in zip(
        tensors(slab.take(torch.tensor([1]))), tensors(network.initial_state(1)), strict=True
    ):
        assert torch.equal(mine, new)
    assert all((tensor == 3).all() for tensor in tensors(slab.take(torch.tensor([0, 2]))))


def test_memory_is_what_the_tensors_take():
    network = tiny_network()
    one, four = (network.initial_state(rows).nbytes for rows in (1, 4))
    assert four == 4 * one
    # K and V of 2 layers x 70 frames x 64 channels, convolutions 2 x 8 x 64, and the small ones
    assert 4 * (2 * 2 * 70 * 64 + 2 * 8 * 64) < one < 4 * (2 * 2 * 70 * 64 + 2 * 8 * 64) + 10_000
