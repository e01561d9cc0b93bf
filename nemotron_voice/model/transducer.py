"""Prediction network, joint, and greedy decoding of many rows at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.int8_linear import RELU_FLOOR
from nemotron_voice.model.linear import Linear
from nemotron_voice.model.precision import Precision
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.weights import Weights

# Frames that one call of the joint looks at. Most frames emit nothing, so looking ahead over a few
# saves calls: on a CPU each reads 33 MB of weights whether for 1 or 4 frames. Tokens don't depend
# on it.
_JOINT_BATCH: Final = 4
# Without the host, about so many rows of the joint at once; and a pass ends after the iterations
# that a chunk without emissions takes and these more: each that nobody needs costs a joint, and one
# too few a wait for the host and a pass. Speech has 0.3 tokens a chunk of 80 ms, 4 of 1120 ms, but
# the row with most of them decides. Guesses, until somebody measures them on a GPU.
_JOINT_ROWS: Final = 512
_EMISSIONS: Final = 2


@dataclass(frozen=True, slots=True)
class Emission:
    """A token that the decoder emitted."""

    token_id: int
    frame: int  # encoder frame since the stream began; 80 ms each
    confidence: float  # softmax probability, 0..1


@dataclass(frozen=True, slots=True)
class Decoding:
    """A chunk half decoded on a device, in fixed shapes; `Transducer.advance` changes it in place.

    A record holds, for each row, a place for its progress (emissions, frames of the chunk that are
    done, frames of the stream before the chunk), one for each emission in order (token, frame of
    the chunk, bits of the fp32 confidence), and one to spare.
    """

    acoustic: Tensor  # [n, c, joint_size]
    begun: Tensor  # [n] int64, frames of the stream before the chunk
    time: Tensor  # [n] int64, the row's current frame of the chunk; c: done
    symbols: Tensor  # [n] int64, emitted by that frame
    emitted: Tensor  # [n] int64, by the chunk
    hidden: Tensor  # [n, prediction_layers, prediction_size]
    cell: Tensor  # the same
    prediction: Tensor  # [n, joint_size]
    record: Tensor  # [n, 1 + c * max_symbols + 1, 3] int32

    @property
    def decoder(self) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's `hidden`, `cell` and `prediction` after the chunk, once all is done."""
        return self.hidden, self.cell, self.prediction


def emissions_of(record: Tensor) -> list[list[Emission]]:
    """Each row's emissions.

    Args:
        record: [n, 1 + c * max_symbols + 1, 3] int32, on the host; of a chunk that is done.
    """
    progress, entries = record[:, 0].numpy(), record[:, 1:].numpy()
    # All at once, as most of hundreds of rows have said nothing.
    rows, places = np.nonzero(np.arange(entries.shape[1]) < progress[:, :1])
    tokens, frames, confidences = entries[rows, places].T
    emissions: list[list[Emission]] = [[] for _ in progress]
    for row, token_id, frame, confidence in zip(
        rows.tolist(),
        tokens.tolist(),
        (frames + progress[rows, 2]).tolist(),
        confidences.copy().view(np.float32).tolist(),
        strict=True,
    ):
        emissions[row].append(Emission(token_id, frame, confidence))
    return emissions


class Transducer:
    """The decoder side of the network."""

    def __init__(self, weights: Weights, config: ModelConfig, precision: Precision) -> None:
        def parameters(name: str) -> tuple[str, Tensor, Tensor]:
            return name, weights[f"{name}.weight"], weights[f"{name}.bias"]

        def gates(layer: int) -> Linear:
            """One matrix, for input and hidden state side by side."""
            name = "decoder.lstm.{}_{}_l" + str(layer)

            def joined() -> Tensor:
                return torch.cat([weights[name.format("weight", part)] for part in ("ih", "hh")], 1)

            bias = weights[name.format("bias", "ih")] + weights[name.format("bias", "hh")]
            return precision.fp32_linear(f"decoder.lstm.{layer}", joined, bias)

        self._blank = config.blank
        self._max_symbols = config.max_symbols
        self._embedding = weights["decoder.embedding.weight"]
        self._gates = [gates(layer) for layer in range(config.prediction_layers)]
        self._project_prediction = precision.fine_linear(*parameters("decoder.decoder_projector"))
        self._project_frames = precision.fine_linear(*parameters("encoder_projector"))
        self._head = precision.best_linear(*parameters("joint.head"), RELU_FLOOR)

    def start(self, state: StreamState) -> None:
        """Put the rows of a zeroed state at the beginning: the blank has been predicted from."""
        tokens = torch.full_like(state.frames, self._blank)
        state.prediction, state.hidden, state.cell = self._predict(tokens, state.hidden, state.cell)

    def __call__(
        self, frames: Tensor, state: StreamState, rows: Tensor
    ) -> tuple[list[list[Emission]], tuple[Tensor, Tensor, Tensor]]:
        """Decode a chunk greedily, led by the host: the fewest calls, each of which it waits for.

        A frame emits until its best is the blank, or until it has emitted `max_symbols` [NeMo
        3.0.0 greedy_batch, and Transformers the same]; then comes the next frame. The prediction
        network runs on emission only.

        Args:
            frames: [n, c, d_model] fp32, encoder output after the prompt.
            state: the slab, before the chunk; left as it is.
            rows: [n] int64, which rows of it.

        Returns:
            Emissions of each row, and the decoder's `hidden`, `cell` and `prediction` after the
            chunk.
        """
        count, chunk, _ = frames.shape
        device = frames.device
        acoustic = self._project_frames(frames)
        hidden, cell, prediction = (
            tensor.index_select(0, rows) for tensor in (state.hidden, state.cell, state.prediction)
        )
        rows_of: list[np.ndarray] = []  # of every emission, in order, per pass
        frames_of: list[np.ndarray] = []
        tokens_of: list[np.ndarray] = []
        confidences: list[Tensor] = []
        time = np.zeros(count, np.int64)
        symbols = np.zeros(count, np.int64)  # emitted by the row's current frame
        active = np.arange(count)
        while active.size:
            span = int(min(max(_JOINT_BATCH // active.size, 1), chunk - time[active].min()))
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
        emissions: list[list[Emission]] = [[] for _ in range(count)]
        if confidences:
            # By now the device is idle, so these wait for nothing.
            starts = state.frames.index_select(0, rows).tolist()
            for row, token_id, frame, confidence in zip(
                np.concatenate(rows_of).tolist(),
                np.concatenate(tokens_of).tolist(),
                np.concatenate(frames_of).tolist(),
                torch.cat(confidences).tolist(),
                strict=True,
            ):
                emissions[row].append(Emission(token_id, starts[row] + frame, confidence))
        return emissions, (hidden, cell, prediction)

    def record_shape(self, rows: int, chunk: int) -> tuple[int, int, int]:
        """Shape of a `Decoding`'s record."""
        return rows, 1 + chunk * self._max_symbols + 1, 3

    def begin(
        self, frames: Tensor, state: StreamState, rows: Tensor, idle: Tensor, record: Tensor
    ) -> Decoding:
        """Prepare to decode a chunk without the host; the state is left as it is.

        Args:
            frames: [n, c, d_model] fp32, encoder output after the prompt.
            state: the slab, before the chunk.
            rows: [n] int64, which rows of it.
            idle: [n] bool, rows with nothing to decode.
            record: of `record_shape`, int32; whatever it holds.
        """
        zeros = torch.zeros_like(rows)
        return Decoding(
            acoustic=self._project_frames(frames),
            begun=state.frames.index_select(0, rows),
            time=zeros.masked_fill(idle, frames.shape[1]),
            symbols=zeros.clone(),
            emitted=zeros,
            hidden=state.hidden.index_select(0, rows),
            cell=state.cell.index_select(0, rows),
            prediction=state.prediction.index_select(0, rows),
            record=record,
        )

    def advance(self, decoding: Decoding) -> None:
        """Decode for a bounded number of iterations, without a look from the host.

        The same tokens as `__call__`: of each row at once, the joint looks `span` frames ahead and
        the row goes on to the first of them that emits, or past them all. A row that is done stays
        as it is, so that further passes do no harm. Every iteration brings each other row on by an
        emission or by `span` frames, so passes come to an end.
        """
        count, chunk, _ = decoding.acoustic.shape
        span = min(max(_JOINT_ROWS // count, 1), chunk)
        for _ in range(math.ceil(chunk / span) + _EMISSIONS):
            self._iterate(decoding, span)
        decoding.record[:, 0] = torch.stack((decoding.emitted, decoding.time, decoding.begun), 1)

    def _iterate(self, decoding: Decoding, span: int) -> None:
        chunk, size = decoding.acoustic.shape[1:]
        ahead = decoding.time[:, None] + torch.arange(span, device=decoding.time.device)
        picked = ahead.clamp(max=chunk - 1)[..., None].expand(-1, -1, size)
        logits = self._joint(decoding.acoustic.gather(1, picked), decoding.prediction[:, None])
        best = logits.argmax(-1)  # [n, span]
        hits = (best != self._blank) & (ahead < chunk)
        emits = hits.any(1)
        skipped = hits.int().argmax(1).masked_fill_(~emits, span)
        first = skipped.clamp(max=span - 1)[:, None]  # [n, 1]
        tokens = best.gather(1, first)
        # A softmax writes logits again; the largest minus logsumexp would, too, in more kernels.
        confidence = torch.softmax(logits, -1).gather(2, best[..., None]).squeeze(2)

        decoding.time.add_(skipped).clamp_(max=chunk)
        decoding.symbols.masked_fill_(skipped > 0, 0)
        # What a row that doesn't emit writes here, the next emission overwrites, or nobody reads.
        place = (decoding.emitted + 1)[:, None, None].expand(-1, -1, 3)
        entry = (
            tokens.int(),
            decoding.time[:, None].int(),
            confidence.gather(1, first).view(torch.int32),
        )
        decoding.record.scatter_(1, place, torch.stack(entry, 2))

        predicted = self._predict(tokens.squeeze(1), decoding.hidden, decoding.cell)
        held = (decoding.prediction, decoding.hidden, decoding.cell)
        for mine, its in zip(held, predicted, strict=True):
            kept = emits.view(-1, *[1] * (mine.dim() - 1))
            torch.where(kept, its, mine, out=mine)
        decoding.emitted.add_(emits)
        decoding.symbols.add_(emits)
        spent = decoding.symbols >= self._max_symbols
        decoding.time.add_(spent)
        decoding.symbols.masked_fill_(spent, 0)

    def _joint(self, acoustic: Tensor, prediction: Tensor) -> Tensor:
        """Logits of frames [..., joint_size] beside predictions that broadcast to them."""
        return self._head(torch.relu_(acoustic + prediction))

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
        for layer, gate in enumerate(self._gates):
            gates = gate(torch.cat([x, hidden[:, layer]], 1))
            write, forget, content, read = gates.chunk(4, 1)  # PyTorch's order: i, f, g, o
            kept = torch.sigmoid(forget) * cell[:, layer]
            state = kept + torch.sigmoid(write) * torch.tanh(content)
            x = torch.sigmoid(read) * torch.tanh(state)
            new_hidden.append(x)
            new_cell.append(state)
        return (
            self._project_prediction(x),
            torch.stack(new_hidden, 1),
            torch.stack(new_cell, 1),
        )
