"""The resampler: the same samples for any packets, little held back, and right."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_voice.resampler import Resampler, Samples
from tests.test_audio import noise

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]


def streamed(samples: Samples, sample_rate: int, sizes: Callable[[], int]) -> Samples:
    resampler = Resampler(sample_rate)
    blocks = []
    at = 0
    while at < samples.size:
        size = sizes()
        blocks.append(resampler.process(samples[at : at + size]))
        at += size
    blocks.append(resampler.process(samples[:0], last=True))
    return np.concatenate(blocks)


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("packet_ms", [0, 10, 20, 50])
def test_packets_of_one_sample_or_more_give_the_same_samples(
    sample_rate: int, packet_ms: int
) -> None:
    samples = noise(1.0, sample_rate)
    size = max(1, sample_rate * packet_ms // 1000)
    whole = streamed(samples, sample_rate, lambda: samples.size)
    assert whole.size == pytest.approx(16_000, abs=1)
    np.testing.assert_array_equal(streamed(samples, sample_rate, lambda: size), whole)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([*RATES, 12_345]), st.integers(min_value=0), st.sampled_from([3, 300, 9_000])
)
def test_random_packets_give_the_same_samples(sample_rate: int, seed: int, longest: int) -> None:
    samples = noise(0.25, sample_rate)
    sizes = random.Random(seed)
    whole = streamed(samples, sample_rate, lambda: samples.size)
    cut = streamed(samples, sample_rate, lambda: sizes.randint(1, longest))
    np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("sample_rate", [rate for rate in RATES if rate != 16_000])
def test_little_is_held_back(sample_rate: int) -> None:
    resampler = Resampler(sample_rate)
    samples = noise(1.0, sample_rate)
    packet = sample_rate // 100
    given_s = got_s = 0.0
    for at in range(0, samples.size, packet):
        block = samples[at : at + packet]
        given_s += block.size / sample_rate
        got_s += resampler.process(block).size / 16_000
        assert given_s - got_s <= 0.0101


@pytest.mark.parametrize("sample_rate", [8_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("hertz", [200, 1_000, 3_300])
def test_a_tone_stays_the_tone_it_was(sample_rate: int, hertz: int) -> None:
    moments = np.arange(sample_rate) / sample_rate
    tone = (0.5 * np.sin(2 * np.pi * hertz * moments)).astype(np.float32)
    resampled = streamed(tone, sample_rate, lambda: 480)[2_000:14_000]
    out_moments = np.arange(resampled.size) / 16_000
    basis = np.stack([f(2 * np.pi * hertz * out_moments) for f in (np.sin, np.cos)], axis=1)
    parts, *_ = np.linalg.lstsq(basis, resampled, rcond=None)
    assert np.hypot(*parts) == pytest.approx(0.5, rel=1e-3)
    assert np.abs(resampled - basis @ parts).max() < 0.5 * 10 ** (-75 / 20)


def test_it_agrees_with_soxr_s_own_best_on_speech_like_noise() -> None:
    samples = np.convolve(noise(1.0, 8_000), np.ones(4) / 4).astype(np.float32)[:8_000]
    best = soxr.resample(samples, 8_000, 16_000, quality="VHQ")
    ours = streamed(samples, 8_000, lambda: 160)
    middle = slice(1_000, 15_000)
    # They differ in where the band ends (3.7 or 3.9 kHz), not inside it.
    difference = np.abs(np.fft.rfft(ours[middle] - best[middle]))
    level = np.abs(np.fft.rfft(best[middle]))
    inside = slice(0, int(3_500 / 16_000 * 14_000))
    assert np.linalg.norm(difference[inside]) < 0.01 * np.linalg.norm(level[inside])
