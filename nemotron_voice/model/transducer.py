"""Prediction network, joint, and greedy decoding of many rows at once.

Everything here is fp32 at any precision: with bf16's 8 bits the best of 13,088 logits often ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.weights import Weights

# Frames that one call of the joint looks at. Most frames emit nothing, so looking ahead over a few
# saves calls: on a CPU each reads 33 MB of weights whether for 1 or 4 frames; on a GPU it is all
# launch time. Tokens don't depend on it.
_JOINT_BATCH_CPU: Final = 4
_JOINT_BATCH_GPU: Final = 512


@dataclass(frozen=True, slots=True)
class Emission:
    """A token that the decoder emitted."""

    token_id: int
    frame: int  # encoder frame since the stream began; 80 ms each
    confidence: float  # softmax probability, 0..1


class Transducer:
    """The decoder side of the network."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        def linear(name: str) -> tuple[Tensor, Tensor]:
            return weights[f"{name}.weight"], weights[f"{name}.bias"]

        self._blank = config.blank
        self._max_symbols = config.max_symbols
        self._layers, self._size = config.prediction_layers, config.prediction_size
        self._embedding = weights["decoder.embedding.weight"]
        # One matrix a layer, for input and hidden state side by side.
        self._gates = [
            (
                torch.cat(
                    [weights[f"decoder.lstm.weight_{part}_l{layer}"] for part in ("ih", "hh")], 1
                ),
                weights[f"decoder.lstm.bias_ih_l{layer}"]
                + weights[f"decoder.lstm.bias_hh_l{layer}"],
            )
            for layer in range(self._layers)
        ]
        self._project_prediction = linear("decoder.decoder_projector")
        self._project_frames = linear("encoder_projector")
        self._head = linear("joint.head")

    def start(self, state: StreamState) -> None:
        """Put the rows of a zeroed state at the beginning: the blank has been predicted from."""
        tokens = torch.full_like(state.frames, self._blank)
        state.prediction, state.hidden, state.cell = self._predict(tokens, state.hidden, state.cell)

    def __call__(
        self, frames: Tensor, state: StreamState
    ) -> tuple[list[list[Emission]], tuple[Tensor, Tensor, Tensor]]:
        """Decode a chunk greedily.

        A frame emits until its best is the blank, or until it has emitted `max_symbols` [NeMo
        3.0.0 greedy_batch, and Transformers the same]; then comes the next frame. The prediction
        network runs on emission only.

        Args:
            frames: [rows, c, d_model] fp32, encoder output after the prompt.
            state: before the chunk; left as it is.

        Returns:
            Emissions of each row, and the decoder's `hidden`, `cell` and `prediction` after the
            chunk.
        """
        rows, chunk, _ = frames.shape
        device = frames.device
        acoustic = F.linear(frames, *self._project_frames)
        hidden, cell, prediction = state.hidden, state.cell, state.prediction
        batch = _JOINT_BATCH_CPU if device.type == "cpu" else _JOINT_BATCH_GPU
        rows_of: list[np.ndarray] = []  # of every emission, in order, per pass
        frames_of: list[np.ndarray] = []
        tokens_of: list[np.ndarray] = []
        confidences: list[Tensor] = []
        time = np.zeros(rows, np.int64)
        symbols = np.zeros(rows, np.int64)  # emitted by the row's current frame
        active = np.arange(rows)
        while active.size:
            span = int(min(max(batch // active.size, 1), chunk - time[active].min()))
            ahead = time[active, None] + np.arange(span)
            picked_rows = torch.from_numpy(active).to(device)
            picked = torch.from_numpy(np.minimum(ahead, chunk - 1)).to(device)
            logits = self._joint(
                acoustic[picked_rows[:, None], picked], prediction[picked_rows, None]
            )  # [active, span, vocabulary]
            best = logits.argmax(-1).cpu().numpy()
            hits = (best != self._blank) & (ahead < chunk)
            emits = hits.any(1)
            skipped = np.where(emits, hits.argmax(1), span)
            symbols[active[skipped > 0]] = 0
            time[active] += skipped
            if emits.any():
                places = np.flatnonzero(emits)
                emitting, offsets = active[places], skipped[places]
                tokens = best[places, offsets]
                rows_of.append(emitting)
                frames_of.append(time[emitting])
                tokens_of.append(tokens)
                where = torch.from_numpy(np.stack([places, offsets])).to(device)
                ids = torch.from_numpy(tokens).to(device)
                chosen = logits[where[0], where[1]]
                confidences.append(torch.softmax(chosen, -1).gather(1, ids[:, None]).squeeze(1))
                index = torch.from_numpy(emitting).to(device)
                predicted = self._predict(ids, hidden[index], cell[index])
                prediction = prediction.index_copy(0, index, predicted[0])
                hidden = hidden.index_copy(0, index, predicted[1])
                cell = cell.index_copy(0, index, predicted[2])
                symbols[emitting] += 1
                spent = emitting[symbols[emitting] >= self._max_symbols]
                time[spent] += 1
                symbols[spent] = 0
            active = active[time[active] < chunk]
        emissions: list[list[Emission]] = [[] for _ in range(rows)]
        if confidences:
            # By now the device is idle, so these wait for nothing.
            starts = state.frames.tolist()
            for row, token_id, frame, confidence in zip(
                np.concatenate(rows_of).tolist(),
                np.concatenate(tokens_of).tolist(),
                np.concatenate(frames_of).tolist(),
                torch.cat(confidences).tolist(),
                strict=True,
            ):
                emissions[row].append(Emission(token_id, starts[row] + frame, confidence))
        return emissions, (hidden, cell, prediction)

    def _joint(self, acoustic: Tensor, prediction: Tensor) -> Tensor:
        """Logits of frames [..., joint_size] beside predictions that broadcast to them."""
        return F.linear(torch.relu_(acoustic + prediction), *self._head)

    def _predict(
        self, tokens: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the prediction network on one token a row.

        Args:
            tokens: [rows] int64.
            hidden: [rows, layers, prediction_size].
            cell: the same.

        Returns:
            prediction [rows, joint_size] as the joint takes it, hidden and cell after the token.
        """
        x = self._embedding[tokens]
        new_hidden, new_cell = [], []
        for layer, (weight, bias) in enumerate(self._gates):
            gates = F.linear(torch.cat([x, hidden[:, layer]], 1), weight, bias)
            write, forget, content, read = gates.chunk(4, 1)  # PyTorch's order: i, f, g, o
            kept = torch.sigmoid(forget) * cell[:, layer]
            state = kept + torch.sigmoid(write) * torch.tanh(content)
            x = torch.sigmoid(read) * torch.tanh(state)
            new_hidden.append(x)
            new_cell.append(state)
        return (
            F.linear(x, *self._project_prediction),
            torch.stack(new_hidden, 1),
            torch.stack(new_cell, 1),
        )
