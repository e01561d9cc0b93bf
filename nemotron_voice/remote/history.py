"""What a stream was told and what it has said, so that a new connection can take over. Pure.

A server decodes the same audio, with the same flushes at the same samples, to the same words. So a
new connection is told again what the old one was, and the words that were already delivered are
taken out of what it says. For the first `replay_s` of a call this is exact. Later it begins at a
flush in mid-call, with a network that knows nothing of what was said before, and words are told
from delivered ones by spelling and time.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nemotron_voice.transcript import Transcript, Word, select_words

BYTES_PER_SAMPLE = 2
SAME_WORD_S = 0.7  # a word heard anew from other context may end so much earlier or later
SKIPPED_WORDS = 3  # delivered words in a row that a new reading may lack


@dataclass(frozen=True, slots=True)
class FlushMark:
    """A flush was asked for here."""

    flush_id: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class UpdateMark:
    """Settings change here."""

    language: str | None
    latency_ms: int | None


@dataclass(frozen=True, slots=True)
class EndMark:
    """The audio has ended here; answered like a flush."""

    flush_id: int


Entry = bytes | FlushMark | UpdateMark | EndMark


@dataclass(frozen=True, slots=True)
class Settings:
    """What a connection is opened with."""

    language: str
    latency_ms: int


class History:
    """The last seconds of audio and marks, in order, and how much of it has been sent.

    Args:
        sample_rate: of the audio, in Hz.
        settings: of the stream's beginning.
        replay_s: seconds of sent audio that are kept at least; at most twice as much.
    """

    def __init__(self, sample_rate: int, settings: Settings, replay_s: float) -> None:
        self.settings = settings  # where what is kept begins
        self._rate = sample_rate
        self._replay_samples = int(replay_s * sample_rate)
        self._entries: deque[Entry] = deque()
        self._sent = 0  # of the entries kept
        self._dropped = 0  # entries
        self._pauses: deque[tuple[int, int]] = deque()  # flushes sent: sample, entries up to it
        self._first = 0  # sample where what is kept begins
        self._sent_sample = 0
        self._end_sample = 0

    @property
    def start_s(self) -> float:
        """Where what is kept begins."""
        return self._first / self._rate

    @property
    def end_s(self) -> float:
        """Where the audio ends."""
        return self._end_sample / self._rate

    @property
    def unsent_s(self) -> float:
        """Seconds of audio that wait to be sent."""
        return (self._end_sample - self._sent_sample) / self._rate

    def append(self, entry: Entry) -> None:
        """Take audio (PCM16) or a mark."""
        self._entries.append(entry)
        self._end_sample += _samples(entry)

    def next(self) -> Entry | None:
        """What is to be sent next, as if it were sent now; None: nothing waits."""
        if self._sent == len(self._entries):
            return None
        entry = self._entries[self._sent]
        self._sent += 1
        self._sent_sample += _samples(entry)
        if isinstance(entry, FlushMark):
            self._pauses.append((self._sent_sample, self._dropped + self._sent))
        self._trim()
        return entry

    @property
    def audio_waits(self) -> bool:
        """Whether what is to be sent next is audio."""
        return self._sent < len(self._entries) and isinstance(self._entries[self._sent], bytes)

    def rewind(self) -> float:
        """Send everything that is kept once more; returns where that begins, in seconds."""
        self._sent = 0
        self._sent_sample = self._first
        self._pauses.clear()
        return self.start_s

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def _trim(self) -> None:
        """Forget what is older than `replay_s`, as far as a flush: a pause is a good beginning.

        Without a flush for twice as long, the beginning is anywhere.
        """
        oldest_kept = self._sent_sample - self._replay_samples
        while self._pauses and self._pauses[0][0] <= oldest_kept:
            _, entries = self._pauses.popleft()
            while self._dropped < entries:
                self._drop()
        while self._first < oldest_kept - self._replay_samples:
            self._drop()

    def _drop(self) -> None:
        oldest = self._entries.popleft()
        self._sent -= 1
        self._dropped += 1
        self._first += _samples(oldest)
        if isinstance(oldest, UpdateMark):
            self.settings = Settings(
                oldest.language or self.settings.language,
                oldest.latency_ms or self.settings.latency_ms,
            )


class Deliveries:
    """The words delivered as final, to be taken out of what a replay says again."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._words: deque[Word] = deque()
        self._until_s = 0.0
        self._place: int | None = None  # in a replay: the next of them that should come again

    def note(self, final: Transcript) -> None:
        """These words are delivered now."""
        if not final.words:
            return
        if self._place is None:
            self._words.extend(final.words)
        self._until_s = max(self._until_s, final.words[-1].end)
        while self._words[0].end < self._until_s - self._keep_s:
            self._words.popleft()

    def begin_replay(self, origin_s: float) -> None:
        """A new connection hears the audio from `origin_s` on."""
        while self._words and self._words[0].end <= origin_s:
            self._words.popleft()
        self._place = 0 if self._words else None

    def new_part(self, heard: Transcript) -> Transcript:
        """What of it wasn't delivered yet; itself, if that is all."""
        if self._place is None:
            return heard
        place = self._place
        delivered: set[int] = set()
        for number, word in enumerate(heard.words):
            match = self._match(word, place)
            if match is not None:
                place = match + 1
                delivered.add(number)
            elif place < len(self._words) and (word.start + word.end) / 2 <= self._until_s:
                delivered.add(number)  # the same sound, read otherwise this time
        if heard.is_final:
            over = place >= len(self._words) or heard.start > self._until_s
            self._place = None if over else place
        if not delivered:
            return heard
        numbers = iter(range(len(heard.words)))
        return select_words(heard, lambda _: next(numbers) not in delivered)

    def _match(self, word: Word, place: int) -> int | None:
        ahead = itertools.islice(self._words, place, place + 1 + SKIPPED_WORDS)
        for number, said in enumerate(ahead, place):
            if _form(said.text) == _form(word.text) and abs(said.end - word.end) <= SAME_WORD_S:
                return number
        return None


def empty_answer(flush_id: int, at_s: float) -> Transcript:
    """The answer to a flush that no server has answered in time."""
    return Transcript(
        text="",
        is_final=True,
        language=None,
        language_source=None,
        languages=(),
        words=(),
        start=at_s,
        end=at_s,
        confidence=None,
        flush_id=flush_id,
        revision=0,
        complete=False,
    )


def renumbered(heard: Transcript, flush_id: int | None, revision: int) -> Transcript:
    """A server's transcript with this stream's own numbers."""
    return replace(heard, flush_id=flush_id, revision=revision)


def _samples(entry: Entry) -> int:
    return len(entry) // BYTES_PER_SAMPLE if isinstance(entry, bytes) else 0


def _form(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word
