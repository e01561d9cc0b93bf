"""Transformers 5.23 agrees: features, encoder frames, tokens, and its saved checkpoints load."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.config import LOOKAHEADS, ModelConfig
from nemotron_voice.model.features import MelFrontEnd
from nemotron_voice.model.network import Network
from tests.model.test_network import ENGLISH
from tests.model.tiny import (
    chunks_of,
    random_weights,
    stream,
    sweep,
    tiny_json,
    tokenizer_model,
)
from tests.reference import huggingface_model

pytest.importorskip("transformers", "5.23")
pytestmark = pytest.mark.reference

AUDIO = sweep(5.3)
DEMO = Path(str(files("nemotron_voice") / "demo"))
SIZES = {"multilingual": tiny_json(), "english": ENGLISH}


def agree(network: Network, model, lookahead: int, prompt: int) -> None:
    frames, emissions = stream(network, AUDIO, lookahead, prompt)
    count = chunks_of(AUDIO, lookahead) * (lookahead + 1)
    mel = huggingface_model.features(AUDIO, network.config.mel_bins)[:, : 8 * (count - 1) + 1]
    expected = huggingface_model.encode(model, mel, lookahead, prompt)
    projected = model.encoder_projector(frames)
    scale = expected.abs().max().clamp_min(1)
    torch.testing.assert_close(projected / scale, expected / scale, atol=1e-4, rtol=0)
    tokens = huggingface_model.stream(model, mel, lookahead, prompt)
    assert [(e.token_id, e.frame) for e in emissions] == tokens


@pytest.fixture(scope="module", params=list(SIZES))
def pair(request, tmp_path_factory):
    """Our network of a checkpoint saved by `save_pretrained`, and Transformers' model."""
    sizes = SIZES[request.param]
    weights = random_weights(ModelConfig.from_huggingface(sizes))
    model = huggingface_model.build(sizes, weights)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    if request.param == "english":
        tokenizer_json = {
            "model": {"type": "BPE", "vocab": {f"p{index}": index for index in range(96)}}
        }
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json))
    else:
        (folder / "tokenizer.model").write_bytes(tokenizer_model())
    checkpoint = load_checkpoint(folder)
    return Network(checkpoint.weights, checkpoint.config), model


@pytest.mark.parametrize("prompt", [9, 101])
@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_frames_and_tokens_are_those_of_transformers(pair, lookahead, prompt):
    network, model = pair
    if lookahead not in network.config.lookaheads:
        pytest.skip("no mode of the English model")
    agree(network, model, lookahead, prompt)


@pytest.mark.parametrize("bins", [80, 128])
def test_features_are_those_of_the_extractor(bins):
    ours = MelFrontEnd(bins, torch.device("cpu"))(torch.from_numpy(np.pad(AUDIO, (201, 0)))[None])
    theirs = huggingface_model.features(AUDIO, bins)[:, : ours.shape[1]]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="no bundled checkpoint")
@pytest.mark.parametrize("prompt", [2, 101])
@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_the_bundled_checkpoint_agrees_too(lookahead, prompt):
    checkpoint = load_checkpoint("demo")
    sizes = json.loads((DEMO / "config.json").read_text())
    sizes.pop("languages")
    model = huggingface_model.build(
        sizes, {name: tensor.float() for name, tensor in checkpoint.weights.items()}
    )
    agree(Network(checkpoint.weights, checkpoint.config), model, lookahead, prompt)
