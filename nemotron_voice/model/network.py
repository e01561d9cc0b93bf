"""The whole network: a chunk of samples in, tokens out, the state advanced, nothing else kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.encoder import Advance, Encoder, advance
from nemotron_voice.model.features import MelFrontEnd, chunk_samples, window_samples
from nemotron_voice.model.precision import Arithmetic, Precision, arithmetic_of, device_of
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.transducer import Emission, Transducer
from nemotron_voice.model.weights import Weights

if TYPE_CHECKING:
    from nemotron_voice.model.checkpoint import Checkpoint

__all__ = ["Emission", "Network", "chunk_samples", "window_samples"]


class Network:
    """Weights, and functions of them and of a slab of states; nothing of a stream is kept here."""

    def __init__(
        self,
        weights: Weights,
        config: ModelConfig,
        *,
        device: torch.device | str = "cpu",
        arithmetic: Arithmetic = "fp32",
        identity: str | None = None,
    ) -> None:
        """Prepare a network.

        Args:
            weights: as `weights.check_weights` has passed them.
            config: sizes.
            device: where it will run.
            arithmetic: of the matrix products; int8 on CPUs only.
            identity: of the checkpoint; with it an int8 copy is kept on disk.
        """
        self.config = config
        self.device = torch.device(device)
        precision = Precision(arithmetic, identity)
        self.dtype = precision.dtype
        # Whatever precision they were stored in, what is prepared from them is computed in fp32.
        weights = _InFp32(weights, self.device)
        self._front_end = MelFrontEnd(config.mel_bins, self.device)
        self._encoder = Encoder(weights, config, precision)
        self._prompt = _Prompt(weights, config, precision) if config.prompts else None
        self._transducer = Transducer(weights, config, precision)
        precision.built()
        self._beginning = self._first_state()

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, device: str = "auto", precision: str = "auto"
    ) -> Network:
        """Put a checkpoint on a device.

        Args:
            checkpoint: loaded.
            device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
            precision: "fp32", "bf16", "int8", or "auto": bf16 on a GPU; on a CPU int8 for a model
                of more than 100 M weights, else fp32.

        Raises:
            ConfigurationError: there is no such device or precision here.
        """
        target = device_of(device)
        return cls(
            checkpoint.weights,
            checkpoint.config,
            device=target,
            arithmetic=arithmetic_of(precision, target.type, checkpoint.weights),
            identity=checkpoint.identity,
        )

    @torch.inference_mode()
    def initial_state(self, rows: int) -> StreamState:
        """A slab of `rows` streams that have heard nothing yet."""
        state = StreamState.allocate(self.config, rows, self.device, self.dtype)
        # All but the decoder begins at zero, as it was allocated: the caches aren't written again.
        for mine, first in (
            (state.hidden, self._beginning.hidden),
            (state.cell, self._beginning.cell),
            (state.prediction, self._beginning.prediction),
        ):
            mine.copy_(first.expand_as(mine))
        return state

    @torch.inference_mode()
    def restart(self, state: StreamState, rows: Tensor) -> None:
        """Put rows [n] of a slab at the beginning of a stream."""
        state.copy_(rows, self._beginning, torch.zeros_like(rows))

    @torch.inference_mode()
    def step(
        self, samples: Tensor, state: StreamState, rows: Tensor, prompt: Tensor, lookahead: int
    ) -> list[list[Emission]]:
        """Run one chunk of each row, from samples to tokens, and put what comes after in `state`.

        If anything raises, the rows are what they were.

        Args:
            samples: [n, window_samples(lookahead)] fp32 at 16 kHz in -1..1: those that the
                chunk of frames k to k + lookahead needs, [1280 k - 1321, 1280 (k + lookahead + 1)
                - 1080), zeros before the stream's first. k = state.frames may differ from row to
                row.
            state: a slab.
            rows: [n] int64, which rows of it; no row twice.
            prompt: [n] int64, prompt slots; a model without prompts takes no notice.
            lookahead: one of `config.lookaheads`.

        Returns:
            Each row's emissions.
        """
        frames, after = self.encode(samples, state, rows, prompt, lookahead)
        emissions, decoder = self._transducer(frames, state, rows)
        commit(state, rows, after, decoder)
        return emissions

    @torch.inference_mode()
    def encode(
        self, samples: Tensor, state: StreamState, rows: Tensor, prompt: Tensor, lookahead: int
    ) -> tuple[Tensor, Advance]:
        """Run one chunk of each row up to the prompt: the first half of `step`.

        Returns:
            The encoder's frames [n, lookahead + 1, d_model] fp32 after the prompt, and what
            `encoder.advance` puts into the state; until then the rows are what they were.
        """
        if lookahead not in self.config.lookaheads:
            raise ConfigurationError(
                f"lookahead={lookahead} is not one of {self.config.lookaheads} (frames of 80 ms)"
            )
        if samples.shape[1] != window_samples(lookahead):
            raise ValueError(
                f"a chunk with lookahead {lookahead} takes {window_samples(lookahead)} samples, "
                f"not {samples.shape[1]}"
            )
        mel = self._front_end(samples)
        frames, after = self._encoder(mel, state, rows)
        if self._prompt is not None:
            frames = self._prompt(frames, prompt)
        return frames, after

    @torch.inference_mode()
    def _first_state(self) -> StreamState:
        """One row, so that all streams begin with the same bits."""
        state = StreamState.allocate(self.config, 1, self.device, self.dtype)
        self._transducer.start(state)
        return state

    @property
    def transducer(self) -> Transducer:
        """The second half of `step`."""
        return self._transducer


def commit(
    state: StreamState, rows: Tensor, after: Advance, decoder: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Make a chunk that is encoded and decoded part of the rows' state.

    Args:
        state: the slab.
        rows: [n] int64, which rows of it.
        after: of the encoder.
        decoder: `hidden`, `cell` and `prediction` of the transducer.
    """
    advance(state, rows, after)
    for mine, its in zip((state.hidden, state.cell, state.prediction), decoder, strict=True):
        mine.index_copy_(0, rows, its)


class _InFp32(Mapping[str, Tensor]):
    """Weights on a device in fp32, each made when it is asked for: an int8 copy spares most.

    Contiguous, as C reads them; what a .nemo holds may have any strides.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self._weights = weights
        self._device = device

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[name].to(self._device, torch.float32).contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class _Prompt:
    """Language prompt: a one-hot vector beside each encoder frame, mixed in by two layers.

    In bf16 the one unit-size feature beside 1,024 larger ones falls below the mantissa and the
    language is silently ignored [NeMo main, `_setup_prompt_projection`], so this is never bf16;
    and its product is a column of the matrix, added in fp32, so no one-hot vector is ever made.
    """

    def __init__(self, weights: Weights, config: ModelConfig, precision: Precision) -> None:
        name = "prompt_projector.linear_{}"
        first, second = (weights[name.format(layer) + ".weight"] for layer in (1, 2))
        self._frames = precision.fine_linear(name.format(1), first[:, : config.d_model])
        # [prompts, prompt_hidden], the bias added
        self._slots = first[:, config.d_model :].T + weights[name.format(1) + ".bias"]
        self._second = precision.fine_linear(
            name.format(2), second, weights[name.format(2) + ".bias"]
        )

    def __call__(self, frames: Tensor, prompt: Tensor) -> Tensor:
        """Mix the language in.

        Args:
            frames: [rows, c, d_model] fp32.
            prompt: [rows] int64.

        Returns:
            [rows, c, d_model] fp32.
        """
        hidden = self._frames(frames) + self._slots[prompt][:, None]
        return self._second(torch.relu_(hidden))
