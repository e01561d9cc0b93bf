"""Audio that no final has covered yet, kept to be pushed again when a stream breaks."""

from __future__ import annotations

from collections import deque

from nemotron_voice.config import StreamOptions

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
        self._max_bytes = int(max_s * sample_rate) * BYTES_PER_SAMPLE
        self._packets: deque[bytes] = deque()
        self._bytes = 0  # kept
        self.start_s = start_s  # of the oldest audio kept
        self.end_s = start_s

    @property
    def room_s(self) -> float:
        """The `max_buffered_s` of a stream that takes over.

        It is told what is kept at once, before it has decoded or sent anything. Live audio comes
        on top, and has the room that it has in every stream.
        """
        return StreamOptions().max_buffered_s + self._bytes / (BYTES_PER_SAMPLE * self._rate)

    def append(self, pcm: bytes) -> None:
        """Take a packet."""
        self._packets.append(pcm)
        self._bytes += len(pcm)
        self.end_s += self._seconds(pcm)
        while self._bytes > self._max_bytes:
            self._drop()

    def drop_until(self, moment_s: float) -> None:
        """Forget the packets that end by `moment_s`."""
        while self._packets and self.start_s + self._seconds(self._packets[0]) <= moment_s:
            self._drop()

    def packets(self) -> list[bytes]:
        """What is kept, oldest first."""
        return list(self._packets)

    def _drop(self) -> None:
        oldest = self._packets.popleft()
        self._bytes -= len(oldest)
        # Sums of floats drift: where nothing is kept, both clocks say the same.
        self.start_s = self.start_s + self._seconds(oldest) if self._packets else self.end_s

    def _seconds(self, pcm: bytes) -> float:
        return len(pcm) / (BYTES_PER_SAMPLE * self._rate)
