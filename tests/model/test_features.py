"""Features of a window are those of the whole signal, and of the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemotron_voice.model.features import MelFrontEnd, mel_filters
from tests.model.tiny import sweep, window
from tests.model.whole_utterance import log_mel

AUDIO = sweep(3)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("lookahead", [0, 3, 13])
def test_windows_give_the_features_of_the_whole_signal(bins, lookahead):
    front_end = MelFrontEnd(bins, torch.device("cpu"))
    expected = log_mel(AUDIO, bins)
    chunk = lookahead + 1
    for frame in range(chunk, 28, chunk):
        mel = front_end(window(AUDIO, frame, lookahead)[None])[0]
        assert mel.shape == (8 * chunk, bins)
        first = 8 * frame - 7
        np.testing.assert_allclose(mel, expected[first : first + 8 * chunk], atol=1e-4)


def test_silence_is_the_logarithm_of_the_guard():
    mel = MelFrontEnd(128, torch.device("cpu"))(torch.zeros(1, 1521))
    assert torch.equal(mel, torch.full((1, 8, 128), 2.0**-24).log())


def test_a_row_is_the_same_in_any_batch():
    front_end = MelFrontEnd(128, torch.device("cpu"))
    rows = torch.stack([window(AUDIO, frame, 3) for frame in range(4, 24, 4)])
    together = front_end(rows)
    for row, alone in zip(rows, together, strict=True):
        torch.testing.assert_close(front_end(row[None])[0], alone, atol=1e-5, rtol=0)


def test_every_mel_filter_has_area_one():
    """Slaney's normalisation: a triangle's area in Hz is 1, where it is wide enough to sample."""
    area = mel_filters(128).sum(1) * 31.25
    assert torch.allclose(area[60:], torch.ones(68), atol=0.15)
    assert torch.allclose(area[110:], torch.ones(18), atol=0.02)
