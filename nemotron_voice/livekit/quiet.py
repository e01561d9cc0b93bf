"""When a caller has said nothing for a while, judged by the words heard and the audio pushed.

All times are seconds of audio. A word's end is late, never early, and the stream may be a chunk
behind the audio; both make the quiet seem shorter than it is, so nothing is ended too soon.
"""

from __future__ import annotations

from typing import Literal

from nemotron_voice.transcript import Transcript

Moment = Literal["preflight", "end"]


class Quiet:
    """Watches the words that aren't final yet.

    Args:
        latency_s: audio per chunk.
        preflight_s: quiet after which the text so far is likely to be all; None: never.
        end_s: quiet after which the utterance is over; None: somebody else says so.
    """

    def __init__(self, *, latency_s: float, preflight_s: float | None, end_s: float | None) -> None:
        self.latency_s = latency_s
        self._preflight_s = preflight_s
        self._end_s = end_s
        self._words_end: float | None = None  # of what isn't final yet
        self._done: set[Moment] = set()

    def hear(self, transcript: Transcript) -> None:
        """Take what the stream says."""
        if transcript.is_final or not transcript.words:
            self._words_end = None
        else:
            self._words_end = transcript.words[-1].end
        self._done.clear()

    def at(self, now_s: float) -> Moment | None:
        """What the quiet has come to, each once, when so much audio has been pushed."""
        if self._words_end is None:
            return None
        quiet_s = now_s - self.latency_s - self._words_end
        moments: tuple[tuple[Moment, float | None], ...] = (
            ("end", self._end_s),
            ("preflight", self._preflight_s),
        )
        for moment, after_s in moments:
            if after_s is not None and quiet_s >= after_s and moment not in self._done:
                self._done |= {"preflight", moment}
                return moment
        return None
