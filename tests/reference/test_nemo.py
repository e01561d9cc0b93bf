"""NeMo 3.0.0 agrees: features, encoder frames, tokens, and its saved checkpoints load."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.config import LOOKAHEADS, ModelConfig
from nemotron_voice.model.features import MelFrontEnd
from nemotron_voice.model.network import Network
from tests.model.tiny import random_weights, stream, sweep, tiny_json
from tests.reference import nemo_model

os.environ.setdefault("NUMBA_DISABLE_CUDA", "1")
pytest.importorskip("nemo", "3.0.0")
pytestmark = pytest.mark.reference

AUDIO = sweep(5.3)
DEMO = Path(str(files("nemotron_voice") / "demo"))
PROMPTS = {"de-DE": 9, "auto": 101}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Our network of a checkpoint saved by `save_to`, and NeMo's model."""
    folder = tmp_path_factory.mktemp("nemo")
    weights = random_weights(ModelConfig.from_huggingface(tiny_json()))
    model = nemo_model.build(folder / "tokenizer", weights)
    model.save_to(str(folder / "tiny.nemo"))
    checkpoint = load_checkpoint(folder / "tiny.nemo")
    return Network(checkpoint.weights, checkpoint.config), model


def agree(network: Network, model, lookahead: int, language: str, prompt: int) -> None:
    frames, emissions = stream(network, AUDIO, lookahead, prompt)
    tokens = [(e.token_id, e.frame) for e in emissions]
    whole = nemo_model.whole(model, AUDIO, lookahead, language)
    streamed = nemo_model.stream(model, AUDIO, lookahead, language)
    count = len(frames)
    # The end of the signal, which isn't a whole chunk, is ours only when more audio comes.
    torch.testing.assert_close(frames, whole.frames[:count], atol=1e-4, rtol=0)
    assert tokens == [token for token in whole.tokens if token[1] < count]
    if lookahead:
        # At 80 ms NeMo's second chunk pads the 8 frames of mel before the signal with zeros where
        # its own whole pass pads the convolutions' maps, so it strays (by 0.02 here) from it.
        torch.testing.assert_close(frames, streamed.frames[:count], atol=1e-4, rtol=0)
        assert tokens == [token for token in streamed.tokens if token[1] < count]


@pytest.mark.parametrize("language", PROMPTS)
@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_frames_and_tokens_are_those_of_nemo(pair, lookahead, language):
    network, model = pair
    agree(network, model, lookahead, language, PROMPTS[language])


def test_features_are_those_of_the_preprocessor(pair):
    _, model = pair
    length = torch.tensor([AUDIO.size])
    model.preprocessor.featurizer.dither = 0.0
    theirs, _ = model.preprocessor(input_signal=torch.from_numpy(AUDIO)[None], length=length)
    ours = MelFrontEnd(128, torch.device("cpu"))(torch.from_numpy(np.pad(AUDIO, (201, 0)))[None])
    torch.testing.assert_close(
        ours.transpose(1, 2), theirs[:, :, : ours.shape[1]], atol=1e-5, rtol=0
    )


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="no bundled checkpoint")
def test_the_bundled_checkpoint_agrees_too(tmp_path):
    checkpoint = load_checkpoint("demo")
    sizes = json.loads((DEMO / "config.json").read_text())
    weights = {name: tensor.float() for name, tensor in checkpoint.weights.items()}
    tokenizer = (DEMO / "tokenizer.model").read_bytes()
    model = nemo_model.build(tmp_path, weights, sizes, tokenizer)
    network = Network(checkpoint.weights, checkpoint.config)
    for lookahead in LOOKAHEADS:
        for language, prompt in (("es-ES", 2), ("auto", 101)):
            agree(network, model, lookahead, language, prompt)
