"""NeMo's log-mel spectrogram over a batch of clips of equal length, without its bookkeeping."""

from __future__ import annotations

from typing import Any

import torch


class LogMel:
    """[clips, samples] -> [clips, 128, samples // 160], equal to NeMo's `normalize: NA`."""

    def __init__(self, preprocessor: Any) -> None:
        featurizer = preprocessor.featurizer
        self.window = featurizer.window.detach().clone()
        self.filters = featurizer.fb.detach().clone()[0]

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """Pre-emphasis 0.97, 25 ms windows each 10 ms, ln(power + 2^-24)."""
        emphasised = torch.cat([samples[:, :1], samples[:, 1:] - 0.97 * samples[:, :-1]], 1)
        spectrum = torch.stft(
            emphasised,
            512,
            hop_length=160,
            win_length=400,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )[..., : samples.shape[1] // 160]
        power = torch.view_as_real(spectrum).square().sum(-1)
        return torch.log(self.filters @ power + 2**-24)
