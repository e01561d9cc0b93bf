"""An independent reference: the whole utterance at once, in float64, written to be read.

Nothing of the package is used but the weights' names: padding instead of caches, a mask instead of
a window, one sine table for every pair of frames, one symbol at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nemotron_voice.model.config import ModelConfig


def log_mel(audio: np.ndarray, bins: int) -> Tensor:
    """Whole-signal features [frames, bins]; only frames with a full analysis window at the end."""
    signal = audio.astype(np.float64)
    signal = np.concatenate([signal[:1], signal[1:] - 0.97 * signal[:-1]])
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    count = (signal.size - 200) // 160 + 1
    padded = np.pad(signal, 256)
    frames = np.stack([padded[160 * k : 160 * k + 512] * window for k in range(count)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    return torch.from_numpy(np.log(power @ _slaney(bins).T + 2.0**-24))


def _slaney(bins: int) -> np.ndarray:
    """Triangles between points equally spaced in mels, each of area 1 (in bins of 1 Hz)."""

    def hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))

    top = 15 + 27 * np.log(8) / np.log(6.4)
    points = hertz(np.linspace(0, top, bins + 2))
    rate = np.arange(257) * 31.25
    return np.stack(
        [
            np.interp(rate, points[k : k + 3], [0, 2 / (points[k + 2] - points[k]), 0])
            for k in range(bins)
        ]
    )


class WholeUtterance:
    """The network as the papers draw it."""

    def __init__(self, weights: Mapping[str, Tensor], config: ModelConfig) -> None:
        self.weights = {name: tensor.double() for name, tensor in weights.items()}
        self.config = config

    def _linear(self, x: Tensor, name: str) -> Tensor:
        bias = self.weights.get(f"{name}.bias")
        return F.linear(x, self.weights[f"{name}.weight"].flatten(1), bias)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def encode(self, audio: np.ndarray, lookahead: int, prompt: int, frames: int) -> Tensor:
        """Encoder output after the prompt: [frames, d_model]."""
        config = self.config
        mel = log_mel(audio, config.mel_bins)[: 8 * (frames - 1) + 1]
        x = mel[None, None]
        for stage in range(3):
            name = "encoder.subsampling." + ("conv_in" if not stage else f"layers.{stage - 1}.")
            depthwise = name + ("depthwise_conv" if stage else "")
            weight, bias = (self.weights[f"{depthwise}.{part}"] for part in ("weight", "bias"))
            groups = x.shape[1] if stage else 1
            x = F.conv2d(F.pad(x, (2, 1, 2, 1)), weight, bias, stride=2, groups=groups)
            if stage:
                pointwise = f"{name}pointwise_conv"
                x = self._linear(x.permute(0, 2, 3, 1), pointwise).permute(0, 3, 1, 2)
            x = torch.relu(x)
        x = self._linear(x[0].permute(1, 0, 2).flatten(1)[:frames], "encoder.subsampling.linear")
        if config.scale_input:
            x = x * config.d_model**0.5
        chunk = torch.arange(frames) // (lookahead + 1)
        back = chunk[:, None] - chunk
        seen = (back >= 0) & (back <= config.left_context // (lookahead + 1))
        for layer in range(config.layers):
            x = self._block(x, f"encoder.layers.{layer}", seen)
        if not config.prompts:
            return x
        one_hot = F.one_hot(torch.tensor(prompt), config.prompts).double().expand(frames, -1)
        hidden = torch.relu(self._linear(torch.cat([x, one_hot], 1), "prompt_projector.linear_1"))
        return self._linear(hidden, "prompt_projector.linear_2")

    def _block(self, x: Tensor, name: str, seen: Tensor) -> Tensor:
        x = x + 0.5 * self._feed_forward(x, name, "feed_forward1")
        x = x + self._attention(self._norm(x, f"{name}.norm_self_att"), f"{name}.self_attn", seen)
        x = x + self._convolution(self._norm(x, f"{name}.norm_conv"), f"{name}.conv")
        x = x + 0.5 * self._feed_forward(x, name, "feed_forward2")
        return self._norm(x, f"{name}.norm_out")

    def _feed_forward(self, x: Tensor, block: str, name: str) -> Tensor:
        inner = F.silu(
            self._linear(self._norm(x, f"{block}.norm_{name}"), f"{block}.{name}.linear1")
        )
        return self._linear(inner, f"{block}.{name}.linear2")

    def _attention(self, x: Tensor, name: str, seen: Tensor) -> Tensor:
        config = self.config
        query, key, value = (
            self._linear(x, f"{name}.{part}_proj").unflatten(1, (config.heads, -1))
            for part in "qkv"
        )
        position = torch.arange(len(x))
        distance = (position[:, None] - position).double()
        channel = torch.arange(0, config.d_model, 2).double()
        angle = distance[..., None] * 10_000.0 ** -(channel / config.d_model)
        encoding = torch.stack([angle.sin(), angle.cos()], -1).flatten(2)
        relative = self._linear(encoding, f"{name}.relative_k_proj")
        relative = relative.unflatten(2, (config.heads, -1))  # [query, key, head, channel]
        content = torch.einsum("qhc,khc->hqk", query + self.weights[f"{name}.bias_u"], key)
        place = torch.einsum("qhc,qkhc->hqk", query + self.weights[f"{name}.bias_v"], relative)
        scores = (content + place) / config.head_size**0.5
        attention = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
        return self._linear(
            torch.einsum("hqk,khc->qhc", attention, value).flatten(1), f"{name}.o_proj"
        )

    def _convolution(self, x: Tensor, name: str) -> Tensor:
        a, b = self._linear(x, f"{name}.pointwise_conv1").chunk(2, -1)
        gated = F.pad((a * torch.sigmoid(b)).T[None], (self.config.conv_kernel - 1, 0))
        mixed = F.conv1d(
            gated,
            self.weights[f"{name}.depthwise_conv.weight"],
            self.weights.get(f"{name}.depthwise_conv.bias"),
            groups=x.shape[1],
        )[0].T
        return self._linear(F.silu(self._norm(mixed, f"{name}.norm")), f"{name}.pointwise_conv2")

    def decode(self, frames: Tensor) -> list[tuple[int, int, float]]:
        """Greedy decoding, one symbol at a time: (token, frame, probability)."""
        config = self.config
        lstm = torch.nn.LSTM(
            config.prediction_size, config.prediction_size, config.prediction_layers
        ).double()
        lstm.load_state_dict(
            {
                name.removeprefix("decoder.lstm."): tensor
                for name, tensor in self.weights.items()
                if name.startswith("decoder.lstm.")
            }
        )
        lstm.requires_grad_(requires_grad=False)

        def predict(token: int, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, object]:
            output, state = lstm(self.weights["decoder.embedding.weight"][token][None], state)
            return self._linear(output, "decoder.decoder_projector")[0], state

        prediction, state = predict(config.blank, None)
        emitted = []
        for index, acoustic in enumerate(self._linear(frames.double(), "encoder_projector")):
            for _ in range(config.max_symbols):
                logits = self._linear(torch.relu(acoustic + prediction), "joint.head")
                token = int(logits.argmax())
                if token == config.blank:
                    break
                emitted.append((token, index, float(torch.softmax(logits, 0)[token])))
                prediction, state = predict(token, state)
        return emitted
