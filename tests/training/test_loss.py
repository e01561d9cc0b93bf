"""The vectorised transducer loss against the sum over all paths, written out."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

pytest.importorskip("soundfile")

from training.loss import transducer_loss


def over_all_paths(logits: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """-log of the sum over every way to place the tokens among the frames' blanks."""
    log_probs = logits.log_softmax(-1)
    frames, blank = logits.shape[0], logits.shape[2] - 1
    steps = frames + len(tokens)
    paths = []
    for places in combinations(range(steps - 1), len(tokens)):  # the last step is a blank
        frame = written = 0
        score = torch.zeros(())
        for step in range(steps):
            if step in places:
                score = score + log_probs[frame, written, tokens[written]]
                written += 1
            else:
                score = score + log_probs[frame, written, blank]
                frame += 1
        paths.append(score)
    return -torch.logsumexp(torch.stack(paths), 0)


def test_rows_of_any_length_equal_the_sum_over_all_paths():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 4, 6, requires_grad=True)
    tokens = torch.tensor([[1, 2, 3], [4, 1, 0], [2, 0, 0]])
    counts, frames = torch.tensor([3, 2, 1]), torch.tensor([5, 4, 2])
    losses = transducer_loss(logits, tokens, counts, frames)
    expected = torch.stack(
        [over_all_paths(logits[n, : frames[n]], tokens[n, : counts[n]].tolist()) for n in range(3)]
    )
    torch.testing.assert_close(losses, expected, atol=1e-4, rtol=1e-4)
    ours = torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0]
    theirs = torch.autograd.grad(expected.sum(), logits)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert ours[2, 2:].abs().max() == 0  # behind a row's end nothing is learnt


def test_all_frames_count_by_default():
    torch.manual_seed(1)
    logits = torch.randn(2, 4, 3, 5)
    tokens, counts = torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1])
    whole = transducer_loss(logits, tokens, counts)
    torch.testing.assert_close(whole, transducer_loss(logits, tokens, counts, torch.tensor([4, 4])))
