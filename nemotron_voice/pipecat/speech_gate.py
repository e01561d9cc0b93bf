"""What the voice activity detector says about a stream: when the caller speaks, and when not.

All times are seconds of audio. Two things depend on it. An interim or final in a silence would open
a turn that nobody began, and interrupt the bot. And words heard where nobody spoke are noise.
"""

from __future__ import annotations

from collections import deque
from typing import Final

# The detector's edges are late by its own delays, and word times by a few frames.
MARGIN_S = 0.5
MAX_SPANS = 64  # stretches of speech remembered: far more than lie between two finals


class Backlog:
    """How much audio the detector can't have heard yet, because it came faster than speech.

    After a stalled event loop, or a slow start of the pipeline, a transport hands over seconds of
    audio at once. The detector sits behind the service and hears it later, so its edges arrive when
    the service's clock is far ahead of what they are about.
    """

    WINDOW_S: Final = 2.0  # wall clock: a detector has caught up by then
    STEP_S: Final = 0.05

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque()  # wall clock, audio clock

    def note(self, wall_s: float, audio_s: float) -> None:
        """At `wall_s` the audio clock stood at `audio_s`: call before audio is taken."""
        if not self._marks or wall_s >= self._marks[-1][0] + self.STEP_S:
            self._marks.append((wall_s, audio_s))
        while len(self._marks) > 1 and self._marks[1][0] < wall_s - self.WINDOW_S:
            self._marks.popleft()

    def at(self, wall_s: float, audio_s: float) -> float:
        """Seconds of audio beyond what the last seconds of wall clock account for."""
        return max((audio_s - a - (wall_s - w) for w, a in self._marks), default=0.0)


class SpeechGate:
    """Stretches of speech, by the detector. Without one, everything passes."""

    def __init__(self, *, has_detector: bool) -> None:
        self.has_detector = has_detector
        self._spans: deque[tuple[float, float]] = deque(maxlen=MAX_SPANS)
        self._since: float | None = None
        self._unknown_since: float | None = 0.0  # began to listen, no word of the detector yet

    @property
    def speaking(self) -> bool:
        """Whether the caller is speaking now, as far as is known."""
        return self._since is not None or not self.has_detector

    @property
    def ever_spoken(self) -> bool:
        """Whether the detector has reported any speech."""
        return self._since is not None or bool(self._spans)

    def listens_anew(self, now_s: float) -> None:
        """What the detector said was missed until `now_s`: the caller may be in mid-speech."""
        self._since, self._unknown_since = None, now_s

    def started(self, now_s: float, start_s: float) -> None:
        """Speech was detected at `now_s`, after `start_s` seconds of it."""
        if self._since is None:
            self._since = now_s - start_s - MARGIN_S
        self._unknown_since = None

    def stopped(self, now_s: float) -> None:
        """Silence was detected at `now_s`; who missed the start takes all since then as speech."""
        since = self._since if self._since is not None else self._unknown_since
        if since is not None:
            self._spans.append((since, now_s + MARGIN_S))
        self._since = self._unknown_since = None

    def heard_speech(self, start_s: float, end_s: float) -> bool:
        """Whether somebody spoke anywhere in this stretch."""
        if not self.has_detector or (self._since is not None and end_s >= self._since):
            return True
        return any(start_s <= stop and end_s >= begin for begin, stop in self._spans)
