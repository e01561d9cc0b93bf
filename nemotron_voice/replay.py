"""Audio that no final has covered yet, kept to be pushed again when a stream breaks."""

from __future__ import annotations

from collections import deque

BYTES_PER_SAMPLE = 2


class ReplayBuffer:
    """The last seconds of mono PCM16, on the clock of the audio pushed.

    Args:
        sample_rate: of the audio, in Hz.
        max_s: seconds kept at most; older audio is forgotten.
        start_s: where the clock stands at first.
    """

    def __init__(self, sample_rate: int, *, max_s: float = 30.0, start_s: float = 0.0) -> None:
        self._rate = sample_rate
        self._max_s = max_s
        self._packets: deque[bytes] = deque()
        self.start_s = start_s  # of the oldest audio kept
        self.end_s = start_s

    def append(self, pcm: bytes) -> None:
        """Take a packet."""
        self._packets.append(pcm)
        self.end_s += self._seconds(pcm)
        self.drop_until(self.end_s - self._max_s)

    def drop_until(self, moment_s: float) -> None:
        """Forget the packets that end by `moment_s`."""
        while self._packets:
            end_s = self.start_s + self._seconds(self._packets[0])
            if end_s > moment_s:
                return
            self._packets.popleft()
            self.start_s = end_s
        self.start_s = self.end_s

    def packets(self) -> list[bytes]:
        """What is kept, oldest first."""
        return list(self._packets)

    def _seconds(self, pcm: bytes) -> float:
        return len(pcm) / (BYTES_PER_SAMPLE * self._rate)
