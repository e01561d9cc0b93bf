"""Whether a caller still speaks, and whether anything was said, by loudness alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nemotron_voice.engine.speech_level import RECENT_SAMPLES, has_speech, is_speaking

RATE = 16_000
SPEECH, ROOM, STREET = 0.1, 0.0005, 0.02  # amplitudes, full scale 1


def sound(*parts: tuple[float, float]) -> NDArray[np.float32]:
    """Noise of (seconds, amplitude), one after another; the end counts from the last sample."""
    random = np.random.default_rng(7)
    return np.concatenate(
        [random.normal(0, amplitude, round(s * RATE)) for s, amplitude in parts]
    ).astype(np.float32)


@pytest.mark.parametrize("background", [0.0, ROOM, STREET])
def test_speech_up_to_the_end_goes_on_and_speech_before_a_pause_does_not(background: float) -> None:
    assert is_speaking(sound((1.5, background), (1.4, SPEECH)))
    assert not is_speaking(sound((1.5, background), (1.2, SPEECH), (0.24, background)))


def test_a_gap_between_words_is_not_the_end() -> None:
    assert is_speaking(sound((1.0, ROOM), (1.0, SPEECH), (0.1, ROOM)))


def test_a_long_sentence_without_a_pause_goes_on() -> None:
    syllables = [(0.12, SPEECH), (0.06, SPEECH / 4)] * 17
    recent = sound(*syllables)[-RECENT_SAMPLES:]
    assert recent.size == RECENT_SAMPLES
    assert is_speaking(recent)


@pytest.mark.parametrize("amplitude", [0.0, ROOM, STREET, SPEECH])
def test_nothing_but_background_is_no_speech(amplitude: float) -> None:
    assert not has_speech(sound((3.0, amplitude)))


def test_silence_is_not_speaking() -> None:
    assert not is_speaking(np.zeros(RECENT_SAMPLES, np.float32))


def test_speech_as_loud_as_the_noise_goes_on() -> None:
    noise = sound((2.96, STREET))
    speech = np.random.default_rng(8).normal(0, STREET, noise.size)
    assert is_speaking(noise + np.where(np.arange(noise.size) > RATE, speech, 0))


@pytest.mark.parametrize("background", [0.0, ROOM, STREET])
def test_a_short_word_is_speech_and_a_click_is_not(background: float) -> None:
    # Whole frames are counted from the end: the word fills three of them, the click one.
    assert has_speech(sound((1.0, background), (0.24, SPEECH), (0.8, background)))
    assert not has_speech(sound((1.04, background), (0.01, SPEECH), (0.79, background)))


def test_a_whisper_below_the_least_level_is_no_speech() -> None:
    assert not has_speech(sound((1.0, 0.00005), (0.5, 0.004), (0.5, 0.00005)))


@pytest.mark.parametrize("samples", [0, 1, 1_279, 1_280, 2_559])
def test_too_little_audio_is_neither(samples: int) -> None:
    audio = sound((samples / RATE, SPEECH))
    assert audio.size == samples
    assert not is_speaking(audio)
    assert not has_speech(audio)
