"""Word times out of Kokoro's own durations: one number of 25 ms units per phoneme token."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.phonemes import SpokenWord

# Kokoro's decoder makes 600 samples at 24 kHz of each duration unit; checked on every clip.
UNIT_SAMPLES = 600
SAMPLE_RATE = 24_000
# Words are heard earlier than the durations say: the energy of the first word rises 38 ms
# before (median of 850 clips), Whisper's word times lie 70-100 ms before, and Kokoro's own
# `join_timestamps` takes off three units.
LEAD_S = 2 * UNIT_SAMPLES / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as written, with when it is heard."""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class TokenSpans:
    """The phoneme tokens of a clip and which of them each word owns."""

    tokens: list[int]
    spans: list[tuple[int, int]]  # per word: first token, one past the last


def tokenise(words: list[SpokenWord], vocabulary: dict[str, int]) -> TokenSpans:
    """Tokens with the padding token at both ends, as the graph wants them."""
    tokens, spans = [0], []
    for n, word in enumerate(words):
        if n:
            tokens.append(vocabulary[" "])
        first = len(tokens)
        tokens.extend(vocabulary[symbol] for symbol in word.phonemes if symbol in vocabulary)
        if len(tokens) == first:
            raise ValueError(f"{word.word!r} has no phoneme Kokoro knows: {word.phonemes!r}")
        spans.append((first, len(tokens)))
        if word.mark:
            tokens.append(vocabulary[word.mark])
    tokens.append(0)
    return TokenSpans(tokens, spans)


def word_times(
    words: list[SpokenWord], spans: TokenSpans, durations: NDArray[np.float32]
) -> list[TimedWord]:
    """Start and end of each word in seconds. `durations`: [tokens] in units of 25 ms."""
    edges = np.concatenate([[0.0], np.cumsum(durations, dtype=np.float64)])
    edges = np.maximum(edges * UNIT_SAMPLES / SAMPLE_RATE - LEAD_S, 0.0)
    return [
        TimedWord(word.word, float(edges[first]), float(edges[end]))
        for word, (first, end) in zip(words, spans.spans, strict=True)
    ]


def trimmed(
    audio: NDArray[np.float32], times: list[TimedWord], margin_s: float
) -> tuple[NDArray[np.float32], list[TimedWord]]:
    """Cut the silence before and after the speech to about `margin_s`; shift the times.

    Kokoro counts the silence at the end as part of the last word (0.2 s, median); that word
    ends where the sound does.
    """
    window = SAMPLE_RATE // 100
    frames = audio[: len(audio) // window * window].reshape(-1, window)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > 0.01 * np.abs(audio).max())
    heard = (loud[0] / 100, (loud[-1] + 1) / 100) if len(loud) else (0.0, len(audio) / SAMPLE_RATE)
    start = max(0.0, min(times[0].start_s, heard[0]) - margin_s)
    end = heard[1] + margin_s
    last = times[-1]
    times = [*times[:-1], replace(last, end_s=max(min(last.end_s, heard[1]), last.start_s + 0.05))]
    cut = audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return cut, [TimedWord(t.word, t.start_s - start, t.end_s - start) for t in times]
