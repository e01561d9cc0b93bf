"""Log-mel features of a window of samples, exactly as the whole signal would give them.

Numbers [NeMo 3.0.0 AudioToMelSpectrogramPreprocessor; Transformers 5.23
NemotronAsrStreamingFeatureExtractor]: 16 kHz, pre-emphasis 0.97, symmetric Hann window of 25 ms
centred in an FFT of 512, hop 10 ms, power spectrum, Slaney mel from 0 to 8 kHz, log(x + 2**-24),
no normalisation. Mel frame k is centred on sample 160 k.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

SAMPLE_RATE: Final = 16_000
HOP: Final = 160
WINDOW: Final = 400
FFT: Final = 512
PRE_EMPHASIS: Final = 0.97
LOG_GUARD: Final = 2.0**-24

FRAME_SAMPLES: Final = 8 * HOP  # one encoder frame, 80 ms
# The window before the chunk's own samples: 7 mel frames that the causal subsampling of its first
# encoder frame reads, half an analysis window, and one sample for the pre-emphasis.
_PAST: Final = 7 * HOP + WINDOW // 2 + 1
# What of the chunk's own samples no mel frame of it reaches.
_UNUSED: Final = FRAME_SAMPLES - WINDOW // 2


def chunk_samples(lookahead: int) -> int:
    """New samples of a chunk: 80 ms for each of its lookahead + 1 frames."""
    return FRAME_SAMPLES * (lookahead + 1)


def window_samples(lookahead: int) -> int:
    """Samples that `Network.step` takes for a chunk: 241 more than the chunk is long.

    The chunk of encoder frames n to n + c - 1 needs samples [1280 n - 1321, 1280 (n + c) - 1080).
    """
    return chunk_samples(lookahead) + _PAST - _UNUSED


class MelFrontEnd:
    """Windows of 16 kHz samples to log-mel frames."""

    def __init__(self, mel_bins: int, device: torch.device) -> None:
        self.window = torch.hann_window(WINDOW, periodic=False, device=device)
        self.filters = mel_filters(mel_bins).to(device)  # [mel_bins, FFT // 2 + 1]

    def __call__(self, samples: Tensor) -> Tensor:
        """Compute all frames whose analysis windows lie in `samples`.

        Args:
            samples: [rows, WINDOW + HOP (frames - 1) + 1] fp32; the first one only serves the
                pre-emphasis of the second.

        Returns:
            [rows, frames, mel_bins] fp32.
        """
        emphasised = samples[:, 1:] - PRE_EMPHASIS * samples[:, :-1]
        # Centring the window in the FFT changes only phases, but rounding then matches the
        # references', which matters for bins far below the loudest.
        margin = (FFT - WINDOW) // 2
        spectrum = torch.stft(
            torch.nn.functional.pad(emphasised, (margin, margin)),
            FFT,
            hop_length=HOP,
            win_length=WINDOW,
            window=self.window,
            center=False,
            return_complex=True,
        )  # [rows, bins, frames]
        power = torch.view_as_real(spectrum).square().sum(-1)
        mel = torch.matmul(self.filters, power).add_(LOG_GUARD).log_()
        return mel.transpose(1, 2)


def mel_filters(mel_bins: int) -> Tensor:
    """Slaney's mel filter bank up to 8 kHz, triangles of equal area: [mel_bins, FFT // 2 + 1]."""
    top = _mel_of_hertz(SAMPLE_RATE / 2)
    mels = torch.linspace(0, top, mel_bins + 2, dtype=torch.float64)
    edges = torch.tensor([_hertz_of_mel(mel) for mel in mels.tolist()], dtype=torch.float64)
    bins = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp_min(0)
    return (triangles * (2 / (high - low))).float()


# Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz at 200/3 Hz a mel, then 27 mels for each
# factor of 6.4.
_LINEAR: Final = 200 / 3
_KNEE_HERTZ: Final = 1000.0
_KNEE_MEL: Final = _KNEE_HERTZ / _LINEAR
_LOG_STEP: Final = math.log(6.4) / 27


def _mel_of_hertz(hertz: float) -> float:
    if hertz < _KNEE_HERTZ:
        return hertz / _LINEAR
    return _KNEE_MEL + math.log(hertz / _KNEE_HERTZ) / _LOG_STEP


def _hertz_of_mel(mel: float) -> float:
    if mel < _KNEE_MEL:
        return mel * _LINEAR
    return _KNEE_HERTZ * math.exp(_LOG_STEP * (mel - _KNEE_MEL))
