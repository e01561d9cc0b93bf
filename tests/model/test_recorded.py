"""The network still gives what NeMo 3.0.0 and Transformers 5.23 gave when they were asked.

tests/reference/record.py asks them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nemotron_voice.model.config import LOOKAHEADS
from nemotron_voice.model.features import MelFrontEnd
from tests.model.tiny import stream, sweep, tiny_network

DATA = Path(__file__).parents[1] / "data"
AUDIO = sweep(5.3)
TENSORS = load_file(DATA / "reference.safetensors")
TOKENS = json.loads((DATA / "reference.json").read_text())["tokens"]


@pytest.mark.parametrize("prompt", [9, 101])
@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_frames_and_tokens_are_those_recorded(lookahead, prompt):
    frames, emissions = stream(tiny_network(), AUDIO, lookahead, prompt)
    key = f"{lookahead}/{prompt}"
    torch.testing.assert_close(frames, TENSORS[key], atol=1e-4, rtol=0)
    assert [[e.token_id, e.frame] for e in emissions] == TOKENS[key]


def test_features_are_those_recorded():
    samples = torch.from_numpy(np.pad(AUDIO[:16_040], (201, 0)))[None]
    mel = MelFrontEnd(128, torch.device("cpu"))(samples)[0]
    torch.testing.assert_close(mel[:100], TENSORS["features"], atol=1e-4, rtol=0)
