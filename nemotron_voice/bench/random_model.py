"""The released model's sizes with random weights: as fast as the real one, and hears nothing.

    python -m nemotron_voice.bench.random_model FOLDER

Speed depends on how many tokens come: each runs the prediction network and the joint once more. So
the blank's bias is set by a measured run such that tokens come as often as people's speech needs
them. On what weights say it depends in product.c alone (docs/performance.md).
"""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from nemotron_voice.bench.random_folder import NAME, tokenizer_json, write_folder
from nemotron_voice.bench.speech import recordings
from nemotron_voice.languages import AUTO_PROMPT_INDEX, LOCALES
from nemotron_voice.model.checkpoint import Checkpoint
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.encoder import advance
from nemotron_voice.model.features import chunk_samples, window_samples
from nemotron_voice.model.network import Network
from nemotron_voice.model.precision import Precision
from nemotron_voice.model.state import StreamState
from nemotron_voice.model.tokenizer import Tokenizer
from nemotron_voice.model.transducer import Transducer
from nemotron_voice.model.weights import expected_shapes

_log = logging.getLogger(__name__)

TOKENS_PER_S: Final = 3.0  # of speech with its pauses, by a tokenizer of 13,087 pieces

# The calibration: as many voices, each so many chunks of the longest mode. The first ones fill the
# left context and aren't counted.
_VOICES: Final = 6
_CHUNKS: Final = 10
_WARM_CHUNKS: Final = 4
_CLOSE: Final = 0.05  # share by which the rate may be off
_SPREAD: Final = 2.0  # standard deviation of what the joint hears, from frame to frame
_BRANCH_GAIN: Final = 0.1
_BRANCHES: Final = ("o_proj.weight", "d1.linear2.weight", "d2.linear2.weight", "conv2.weight")
_AFTER_RELU: Final = (
    "0.pointwise_conv.weight",
    "1.pointwise_conv.weight",
    "subsampling.linear.weight",
    "prompt_projector.linear_2.weight",
)
_SHUT: Final = 20.0  # what a unit that is shut is short of
_TURN_GAIN: Final = 6.0  # how strongly such a unit speaks for its tokens

# As config.json of the released checkpoint says [model card; Transformers 5.23].
REAL_SIZE: Final = ModelConfig(
    mel_bins=128,
    subsampling_channels=256,
    d_model=1_024,
    layers=24,
    heads=8,
    feed_forward=4_096,
    conv_kernel=9,
    linear_bias=False,
    conv_bias=False,
    scale_input=False,
    left_context=56,
    vocabulary=13_088,
    blank=13_087,
    prediction_size=640,
    prediction_layers=2,
    joint_size=640,
    max_symbols=10,
    prompts=128,
    prompt_hidden=2_048,
    languages=tuple(locale.code for locale in LOCALES),
)


def random_checkpoint(seed: int = 0, config: ModelConfig = REAL_SIZE) -> Checkpoint:
    """A checkpoint of the released model's sizes (637,997,088 parameters, fp32) that hears nothing.

    Args:
        seed: of the weights.
        config: other sizes, for a smaller network.
    """
    weights = _draw(config, seed)
    rate = calibrate(weights, config)
    _log.info("random weights: %.1f tokens a second of speech", rate)
    tokenizer = Tokenizer.from_huggingface(tokenizer_json(config.blank), config.blank)
    return Checkpoint(config, weights, tokenizer, NAME, config.languages)


def _draw(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Normal weights that keep the size of what they multiply.

    A random network is nearly deaf: what doesn't change from frame to frame drowns the audio. So
    log-mel features (around -10) are centred in the first convolution; matrices behind a ReLU sum
    to zero, which takes its mean away; blocks add a tenth to what they are given, as 24 averages
    over the last 57 frames would leave nothing else; `calibrate` centres what reaches the joint.
    Measured: within a call the joint then hears three times the difference between two voices, and
    without all this an eighth of it.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, shape in expected_shapes(config).items():
        if "norm" in name:
            weights[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        elif name.endswith("bias") or "bias_" in name:
            weights[name] = torch.zeros(shape)
        else:
            scale = 1 / math.sqrt(math.prod(shape[1:]))
            if name.endswith(_BRANCHES):
                scale *= _BRANCH_GAIN
            weight = torch.randn(shape, generator=generator).mul_(scale)
            if name.endswith(_AFTER_RELU):
                weight -= weight.flatten(1).mean(1).view(-1, *[1] * (weight.dim() - 1))
            weights[name] = weight
    stem = "encoder.subsampling.conv_in"
    weights[f"{stem}.bias"] = 10 * weights[f"{stem}.weight"].sum((1, 2, 3))
    _take_turns(weights, config)
    return weights


def calibrate(weights: dict[str, Tensor], config: ModelConfig) -> float:
    """Set the projection of the encoder and the blank's bias such that TOKENS_PER_S are emitted.

    Args:
        weights: changed in place.
        config: sizes.

    Returns:
        Tokens a second of audio that the weights now emit, as measured here.
    """
    frames = _encode(weights, config)
    projection = weights["encoder_projector.weight"]
    heard = frames @ projection.T  # [voices, frames, joint_size]
    scale = _SPREAD / heard.std(1).mean(0)
    weights["encoder_projector.weight"] = projection * scale[:, None]
    weights["encoder_projector.bias"] = -heard.mean((0, 1)) * scale
    for part in ("weight", "bias"):  # the two units of _take_turns hear the same, opposite
        tensor = weights[f"encoder_projector.{part}"]
        tensor[1] = -tensor[0]
    bias = weights["joint.head.bias"]
    low, high, rate = -10.0, 30.0, 0.0
    for _ in range(9):
        bias[config.blank] = (low + high) / 2
        rate = _token_rate(weights, config, frames)
        if abs(rate - TOKENS_PER_S) < _CLOSE * TOKENS_PER_S:
            break
        low, high = (low, (low + high) / 2) if rate < TOKENS_PER_S else ((low + high) / 2, high)
    return rate


def _take_turns(weights: dict[str, Tensor], config: ModelConfig) -> None:
    """Make tokens come one at a time, as they do in speech; random decoders emit ten or none.

    Tokens are of two kinds, even and odd. After an even one the joint's unit 0 is open, which lets
    a frame emit an odd one where what it hears is large; after an odd one unit 1, which lets a
    frame emit an even one where the same is small. So a frame that has emitted doesn't again.
    """
    blank, size = config.blank, config.prediction_size
    even = torch.arange(config.vocabulary) % 2 == 0
    even[blank] = True  # a stream begins with it
    weights["decoder.embedding.weight"][:, 0] = torch.where(even, 1.0, -1.0)
    for layer in range(config.prediction_layers):
        for part in ("ih", "hh"):
            weights[f"decoder.lstm.weight_{part}_l{layer}"][::size] = 0.0
        bias = weights[f"decoder.lstm.bias_ih_l{layer}"]
        write, forget, content, read = range(0, 4 * size, size)
        bias[write] = bias[read] = 10.0  # open
        bias[forget] = -10.0  # only the last token counts
        weights[f"decoder.lstm.weight_ih_l{layer}"][content, 0] = 5.0
    said = math.tanh(math.tanh(5.0))
    projector, offset = (
        weights[f"decoder.decoder_projector.{part}"] for part in ("weight", "bias")
    )
    head = weights["joint.head.weight"]
    # The blank grows with what the joint hears as the best of the others does, so that a loud voice
    # doesn't make every frame speak. (Of a rectified normal number, the root of the mean square
    # over the mean is sqrt(pi).)
    head[blank] = _best_of(config.vocabulary) * math.sqrt(math.pi) / config.joint_size
    for unit, sign in ((0, 1.0), (1, -1.0)):
        projector[unit] = 0.0
        projector[unit, 0] = sign * _SHUT / said
        offset[unit] = -_SHUT
        head[:, unit] = torch.where(even if unit else ~even, _TURN_GAIN, 0.0)
        head[blank, unit] = 0.0


def _best_of(count: int) -> float:
    """About the largest of so many normal numbers of unit size."""
    return math.sqrt(2 * math.log(count))


@torch.inference_mode()
def _encode(weights: dict[str, Tensor], config: ModelConfig) -> Tensor:
    """What the encoder makes of callers once it is warm: [voices, frames, d_model]."""
    network = Network(weights, config)
    lookahead = max(config.lookaheads)
    chunk, window = chunk_samples(lookahead), window_samples(lookahead)
    heard = recordings()
    places = np.arange(_CHUNKS * chunk + window)
    voices = torch.from_numpy(
        np.stack(
            [
                np.take(heard[voice % len(heard)].samples, places, mode="wrap")
                for voice in range(_VOICES)
            ]
        )
    )
    state = network.initial_state(_VOICES)
    rows = torch.arange(_VOICES)
    prompt = torch.full((_VOICES,), min(AUTO_PROMPT_INDEX, max(config.prompts - 1, 0)))
    made = []
    for number in range(_CHUNKS):
        samples = voices[:, number * chunk : number * chunk + window]
        frames, after = network.encode(samples, state, rows, prompt, lookahead)
        advance(state, rows, after)
        made.append(frames)
    return torch.cat(made[_WARM_CHUNKS:], 1)


@torch.inference_mode()
def _token_rate(weights: dict[str, Tensor], config: ModelConfig, frames: Tensor) -> float:
    """Tokens a second that the decoder emits on [voices, frames, d_model]."""
    decoder = Transducer(weights, config, Precision("fp32"))
    voices, count, _ = frames.shape
    state = StreamState.allocate(config, voices, frames.device, frames.dtype)
    decoder.start(state)
    emissions, _ = decoder(frames, state, torch.arange(voices))
    return sum(map(len, emissions)) / (voices * count * 0.08)


def main(arguments: list[str]) -> None:
    """Write the folder that the command line names."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise SystemExit("usage: python -m nemotron_voice.bench.random_model FOLDER")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_folder(random_checkpoint(), Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
