"""The whole network: a chunk of samples in, tokens and the next state out, nothing kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.encoder import Encoder
from nemotron_voice.model.features import MelFrontEnd, chunk_samples, window_samples
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.transducer import Emission, Transducer
from nemotron_voice.model.weights import Weights

if TYPE_CHECKING:
    from nemotron_voice.model.checkpoint import Checkpoint

__all__ = ["Emission", "Network", "chunk_samples", "window_samples"]

Precision = Literal["auto", "fp32", "bf16"]

_DTYPES: Final[dict[str, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Network:
    """Weights, and pure functions of them: no method changes its arguments or the network."""

    def __init__(
        self,
        weights: Weights,
        config: ModelConfig,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Prepare a network.

        Args:
            weights: as `weights.check_weights` has passed them.
            config: sizes.
            device: where it will run.
            dtype: of the encoder blocks' products and caches.
        """
        self.config = config
        self.device = torch.device(device)
        self.dtype = dtype
        # Whatever precision they were stored in, what is prepared from them is computed in fp32.
        weights = {name: tensor.to(self.device, torch.float32) for name, tensor in weights.items()}
        self._front_end = MelFrontEnd(config.mel_bins, self.device)
        self._encoder = Encoder(weights, config, dtype)
        self._prompt = _Prompt(weights, config) if config.prompts else None
        self._transducer = Transducer(weights, config)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, device: str = "auto", precision: Precision = "auto"
    ) -> Network:
        """Put a checkpoint on a device.

        Args:
            checkpoint: loaded.
            device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
            precision: "fp32", "bf16", or "auto": bf16 on a GPU, fp32 on a CPU.

        Raises:
            ConfigurationError: there is no such device or precision here.
        """
        target = _device(device)
        if precision == "auto":
            precision = "bf16" if target.type == "cuda" else "fp32"
        if precision not in _DTYPES:
            raise ConfigurationError(
                f"precision={precision!r} is not one of 'auto', 'fp32', 'bf16'"
            )
        return cls(checkpoint.weights, checkpoint.config, device=target, dtype=_DTYPES[precision])

    @torch.inference_mode()
    def initial_state(self, rows: int) -> StreamState:
        """State of `rows` streams that have heard nothing yet."""
        state = StreamState.allocate(self.config, rows, self.device, self.dtype)
        self._transducer.start(state)
        return state

    @torch.inference_mode()
    def step(
        self, samples: Tensor, state: StreamState, prompt: Tensor, lookahead: int
    ) -> tuple[StreamState, list[list[Emission]]]:
        """Run one chunk of each row, from samples to tokens.

        Args:
            samples: [rows, window_samples(lookahead)] fp32 at 16 kHz in -1..1: those that the
                chunk of frames n to n + lookahead needs, [1280 n - 1321, 1280 (n + lookahead + 1)
                - 1080), zeros before the stream's first. n = state.frames may differ from row to
                row.
            state: of the same rows; left as it is.
            prompt: [rows] int64, prompt slots; a model without prompts takes no notice.
            lookahead: one of `config.lookaheads`.

        Returns:
            The state after the chunk, and each row's emissions.
        """
        after, frames = self.encode_step(samples, state, prompt, lookahead)
        emissions, (hidden, cell, prediction) = self._transducer(frames, state)
        return replace(after, hidden=hidden, cell=cell, prediction=prediction), emissions

    @torch.inference_mode()
    def encode_step(
        self, samples: Tensor, state: StreamState, prompt: Tensor, lookahead: int
    ) -> tuple[StreamState, Tensor]:
        """Run one chunk of each row up to the prompt: the first half of `step`.

        Returns:
            The state with everything but the decoder's part advanced, and the encoder's frames
            [rows, lookahead + 1, d_model] fp32 after the prompt.
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
        frames, after = self._encoder(mel, state)
        if self._prompt is not None:
            frames = self._prompt(frames, prompt)
        return after, frames


class _Prompt:
    """Language prompt: a one-hot vector beside each encoder frame, mixed in by two layers.

    In bf16 the one unit-size feature beside 1,024 larger ones falls below the mantissa and the
    language is silently ignored [NeMo main, `_setup_prompt_projection`], so this is fp32; and its
    product is a column of the matrix, so no one-hot vector is ever made.
    """

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        first = weights["prompt_projector.linear_1.weight"]
        self._frames = first[:, : config.d_model].contiguous()
        # [prompts, prompt_hidden], the bias added
        self._slots = first[:, config.d_model :].T + weights["prompt_projector.linear_1.bias"]
        self._second = (
            weights["prompt_projector.linear_2.weight"],
            weights["prompt_projector.linear_2.bias"],
        )

    def __call__(self, frames: Tensor, prompt: Tensor) -> Tensor:
        """Mix the language in.

        Args:
            frames: [rows, c, d_model] fp32.
            prompt: [rows] int64.

        Returns:
            [rows, c, d_model] fp32.
        """
        hidden = F.linear(frames, self._frames) + self._slots[prompt][:, None]
        return F.linear(torch.relu_(hidden), *self._second)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise ConfigurationError(
            f"device={name!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices here; use "
            f"device='cpu' or 'auto', or install a CUDA build of PyTorch"
        )
    return device
