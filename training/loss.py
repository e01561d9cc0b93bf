"""Two losses over the joint network: along one known path, and the full sum over all paths."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from training.dataset import Batch

IMPOSSIBLE = -1e30


def predictions(
    model: Any, batch: Batch, *, noise: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """The prediction network after each number of tokens written: [rows, longest + 1, hidden].

    `noise` is the share of tokens it is shown wrong, so that it can't lean on them.
    """
    shown = batch.tokens
    if noise > 0.0:
        other = torch.randint_like(shown, 1, model.joint.num_classes_with_blank - 1)
        wrong = torch.rand(shown.shape, generator=generator, device=shown.device) < noise
        shown = torch.where(wrong, other, shown)
    written, _, _ = model.decoder(targets=shown, target_length=batch.token_counts)
    out: torch.Tensor = written.transpose(1, 2)
    return out


def path_loss(
    model: Any,
    encoded: torch.Tensor,
    written: torch.Tensor,
    batch: Batch,
    *,
    token_weight: float,
    deaf: float,
) -> tuple[torch.Tensor, float]:
    """Cross-entropy of each step of the path, and the share of tokens' steps guessed right.

    `encoded`, `written`, `deaf`: as for `path_logits`.
    """
    rows, frames, _ = encoded.shape
    blank = model.joint.num_classes_with_blank - 1
    logits = path_logits(model, encoded, written, batch, deaf=deaf)
    losses = functional.cross_entropy(logits, batch.node_step, reduction="none")
    token = batch.node_step != blank
    weight = batch.node_weight * torch.where(token, token_weight, 1.0)
    right = (logits.argmax(-1) == batch.node_step)[token].float().mean()
    # Per frame, not per token: clips of one word would outweigh sentences. Speech has about 0.4
    # tokens a frame, so the figure reads as a loss per token.
    return (losses * weight).sum() / (0.4 * rows * frames), right.item()


def path_logits(
    model: Any, encoded: torch.Tensor, written: torch.Tensor, batch: Batch, *, deaf: float
) -> torch.Tensor:
    """The joint's scores at each node of the path: [nodes, pieces + 1].

    `encoded` [rows, frames, d_model]; `written` from `predictions`; `deaf` is the share of nodes at
    which the prediction network's output is dropped whole, so that the audio has to do.
    """
    frames = encoded.shape[1]
    heard = model.joint.enc(encoded).flatten(0, 1)
    said = model.joint.pred(written)
    if deaf > 0.0:
        keep = torch.rand(said.shape[:2], device=said.device) >= deaf
        said = said * keep[..., None]
    said = said.flatten(0, 1)
    at_frame = heard[batch.node_row * frames + batch.node_frame]
    at_token = said[batch.node_row * (batch.tokens.shape[1] + 1) + batch.node_written]
    logits: torch.Tensor = model.joint.joint_net(at_frame + at_token).float()
    return logits


def transducer_loss(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    token_counts: torch.Tensor,
    frame_counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """-log p(tokens | audio) of each row, blank last.

    `logits` [rows, frames, longest + 1, pieces + 1]; `frame_counts` [rows], all frames by default.
    The forward variable runs along anti-diagonals n = frame + tokens written, vectorised over rows
    and tokens; what a row has behind its end is never read.
    """
    rows, frames, width, _ = logits.shape
    if frame_counts is None:
        frame_counts = torch.full_like(token_counts, frames)
    norm = logits.logsumexp(-1)
    blank = logits[..., -1] - norm
    index = functional.pad(tokens, (0, 1))[:, None, :, None].expand(rows, frames, width, 1)
    emit = logits.gather(-1, index).squeeze(-1) - norm
    written = torch.arange(width, device=logits.device)[None, :]
    frame = torch.arange(frames + width - 1, device=logits.device)[:, None] - written
    outside = (frame < 0) | (frame >= frames)
    place = frame.clamp(0, frames - 1)
    column = written.expand_as(place)
    blank_on = blank[:, place, column].masked_fill(outside, IMPOSSIBLE)
    emit_on = emit[:, place, column].masked_fill(outside, IMPOSSIBLE)
    emit_on = emit_on.masked_fill((written >= token_counts[:, None])[:, None, :], IMPOSSIBLE)
    alpha = torch.full((rows, width), IMPOSSIBLE, device=logits.device)
    alpha[:, 0] = 0.0
    alphas = [alpha]
    for n in range(1, frames + width - 1):
        stay = alpha + blank_on[:, n - 1]
        step = functional.pad((alpha + emit_on[:, n - 1])[:, :-1], (1, 0), value=IMPOSSIBLE)
        alpha = torch.logaddexp(stay, step).clamp(min=IMPOSSIBLE)
        alphas.append(alpha)
    row = torch.arange(rows, device=logits.device)
    end = frame_counts - 1
    alpha_end = torch.stack(alphas, 1)[row, end + token_counts, token_counts]
    return -(alpha_end + blank[row, end, token_counts])
