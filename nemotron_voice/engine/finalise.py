"""What a stream has said for good, and what is still provisional. Pure: no threads, no clock.

Tokens of the stream itself are never taken back. A flush in a pause adds the tokens of a fork,
which heard silence where the caller may go on; its words are final at once, and when the stream
itself decodes the same audio later, they are matched off (same word, same place) before anything
new is shown. A flush in the middle of speech finalises what the stream has completed by itself.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from nemotron_voice.transcript import (
    FRAME_S,
    NOTHING_READ,
    Reading,
    Token,
    Transcript,
    WordSpan,
    make_transcript,
    read_tokens,
)

MATCH_S = 0.64  # the fork and the stream may emit the same word this far apart
SUBSTITUTE_S = 0.24  # another word that begins or ends this near is the same sound, heard anew
HELD_S = 0.5  # words said before a flush point are emitted this long after it, at the latest
SETTLED_FRAMES = 10  # 0.8 s without a token: the last word is complete
GHOST_LIFE_S = 2.0  # after that the stream won't emit the word any more
MAX_PENDING_TOKENS = 512  # tokens waiting for a flush: about two minutes of fast speech

_TERMINAL = (".", "?", "!", "…", "。", "？", "！", "।", "؟")


@dataclass(frozen=True, slots=True)
class _Ghost:
    """A word that a flush has finalised and the stream itself hasn't passed yet."""

    form: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Held:
    """A flush in mid-speech: the words up to it that the stream hadn't completed are due."""

    flush_id: int
    until_s: float  # words that begin later belong to what is said after the flush


def _first_open(words: Sequence[WordSpan], own: int) -> int:
    """Of the stream's `own` first tokens, the first that may belong to an unfinished word."""
    begun = [word for word in words if word.first < own]
    if not begun:
        return own
    last = begun[-1]
    closed = last.last < own - 1 and not last.continues  # a language tag of its own follows
    return last.last + 1 if closed else last.first


@lru_cache(4096)
def _form(text: str) -> str:
    """A word without case and punctuation: what two words must share to be the same."""
    return "".join(
        letter for letter in text.casefold() if unicodedata.category(letter)[0] not in "PSZ"
    )


class Finaliser:
    """Turns one stream's tokens into interim and final transcripts.

    Args:
        forced_language: locale of the prompt, or None when the model is to tell.
        by_sentence: finalise each sentence as it ends, not only at flushes.
    """

    def __init__(self, forced_language: str | None, *, by_sentence: bool) -> None:
        self.forced_language = forced_language
        self._by_sentence = by_sentence
        self._tokens: list[Token] = []  # of the stream, not finalised
        self._read: tuple[int, Token, Token, Reading] | None = None  # of the tokens: `_reading`
        self._ghosts: list[_Ghost] = []
        self._frame = 0  # encoder frames decoded by the stream
        self._rest = ""  # letters of a final word, whose beginning alone the stream has passed
        self._flush_s = 0.0  # audio up to here has been answered by a flush
        self._held: _Held | None = None  # the flush that left words to come
        self._carried: str | None = None  # the last language that was sure
        self._revision = 0
        self._shown: tuple[str, ...] = ()

    def add(self, tokens: Sequence[Token], frame: int) -> list[Transcript]:
        """Take the tokens of a step of the stream, which has now decoded `frame` frames.

        Returns:
            Finals that became due without a flush: sentences, a word that a flush had left, or
            the oldest words when too many are waiting for a flush.
        """
        self._tokens += tokens
        self._frame = frame
        self._match_off()
        words = self._new_words()
        if self._held and words and words[-1].start > self._held.until_s:
            self._held = None  # the caller went on: the next flush brings them
        held_flush = self._held.flush_id if self._held else None
        finals = []
        if count := self._due(words):
            finals.append(self._finalise_own(words[:count], held_flush))
        elif len(self._tokens) > MAX_PENDING_TOKENS:
            complete = words if self._settled else words[:-1]
            if complete:
                finals.append(self._finalise_own(complete, held_flush))
            else:  # nothing but tags, or one endless word
                del self._tokens[: -MAX_PENDING_TOKENS // 2]
        return finals

    def interim(self) -> Transcript | None:
        """The provisional text, if it differs from what was last shown."""
        words = self._new_words()
        shown = tuple(word.text for word in words)
        if shown == self._shown:
            return None
        self._shown = shown
        if not words:
            return None
        return self._transcript(words, is_final=False, flush_id=None)

    def has_words(self, tail: Sequence[Token]) -> bool:
        """Whether a flush with this tail would say anything."""
        words = read_tokens([*self._tokens, *tail]).words
        return any(new for _, new in self._statuses(words)[0])

    def flush(self, tail: Sequence[Token], flush_frame: float, flush_id: int) -> Transcript:
        """Finalise the pending words together with a fork's: the caller has stopped.

        Args:
            tail: the fork's tokens.
            flush_frame: the flush point, in encoder frames since the stream began.
            flush_id: the flush that is answered.
        """
        own = len(self._tokens)
        reading = read_tokens([*self._tokens, *tail])
        statuses, uses = self._statuses(reading.words)
        self._flush_s = max(self._flush_s, flush_frame * FRAME_S)
        transcript = self._transcript(
            [word for word, is_new in statuses if is_new], is_final=True, flush_id=flush_id
        )
        if reading.last_tag:
            self._carried = reading.last_tag
        if transcript.text:
            self._rest = ""

        # What the stream has completed by itself is done with. The rest is final on the fork's
        # word alone: remembered, to be matched off when the stream gets there.
        open_from = _first_open(reading.words, own)
        unseen = [
            _Ghost(_form(word.text), word.start, word.end)
            for word, _ in statuses
            if word.last >= open_from
        ]
        self._ghosts = unseen + self._ghosts[uses[-1] if uses else 0 :]
        del self._tokens[:open_from]
        self._held = None
        self._shown = ()
        return transcript

    def flush_mid_speech(self, flush_frame: float, flush_id: int) -> Transcript:
        """Finalise the words that the stream has completed: the caller is still speaking.

        What a fork makes of half a word, or of a word without what follows, is often another word
        than the stream's later one. Both would be final. So the rest is left to the stream, and
        comes with the next final, or by itself when nothing follows. Whether there is one shows
        only later: words are emitted up to HELD_S after they were said. So the answer is never
        said to be complete.

        Args:
            flush_frame: the flush point, in encoder frames since the stream began.
            flush_id: the flush that is answered.
        """
        words = self._new_words()
        if words and words[-1].continues and not self._settled:
            words.pop()
        if words:
            transcript = self._finalise_own(words, flush_id)
        else:
            transcript = self._transcript([], is_final=True, flush_id=flush_id)
        self._held = _Held(flush_id, flush_frame * FRAME_S + HELD_S)
        self._shown = ()
        return replace(transcript, complete=False)

    # ---- what is new

    @property
    def _settled(self) -> bool:
        last = self._tokens[-1].frame if self._tokens else 0
        return self._frame - last >= SETTLED_FRAMES

    @property
    def _reading(self) -> Reading:
        """The pending tokens as words: most steps bring none, and ask three times."""
        if not self._tokens:
            return NOTHING_READ
        first, last = self._tokens[0], self._tokens[-1]
        if self._read is None or not (
            self._read[0] == len(self._tokens) and self._read[1] is first and self._read[2] is last
        ):
            self._read = len(self._tokens), first, last, read_tokens(self._tokens)
        return self._read[3]

    def _new_words(self) -> list[WordSpan]:
        statuses, _ = self._statuses(self._reading.words)
        return [word for word, is_new in statuses if is_new]

    def _statuses(self, words: Sequence[WordSpan]) -> tuple[list[tuple[WordSpan, bool]], list[int]]:
        """For each word whether it is new, and how many ghosts are used up after it."""
        used = 0
        statuses: list[tuple[WordSpan, bool]] = []
        uses: list[int] = []
        at_seam = True
        for place, word in enumerate(words):
            form = _form(word.text)
            match = self._matching_ghost(word, form, used)
            if match is not None:
                used = match + 1
            is_rest = place == 0 and not word.spaced and bool(form) and self._is_rest(word, form)
            is_new = match is None and not is_rest and bool(form or not at_seam)
            at_seam = at_seam and not is_new
            statuses.append((word, is_new))
            uses.append(used)
        return statuses, uses

    def _is_rest(self, word: WordSpan, form: str) -> bool:
        """Whether the stream goes on, late, with a word whose beginning was matched off."""
        grows = word.continues and not self._settled
        return self._rest == form or (grows and self._rest.startswith(form))

    def _matching_ghost(self, word: WordSpan, form: str, used: int) -> int | None:
        if not form:
            return None
        rest = [(place, self._ghosts[place]) for place in range(used, len(self._ghosts))]
        for place, ghost in rest:
            if ghost.form == form and abs(ghost.end - word.end) <= MATCH_S:
                return place
        for place, ghost in rest:
            grows = word.continues and not self._settled and ghost.form.startswith(form)
            if grows and abs(ghost.end - word.end) <= MATCH_S:
                return place
        for place, ghost in rest:
            same_end = abs(ghost.end - word.end) <= SUBSTITUTE_S
            same_start = abs(ghost.start - word.start) <= SUBSTITUTE_S
            ended = same_end and word.end <= self._flush_s + FRAME_S
            began = same_start and word.start <= self._flush_s - FRAME_S
            if ended or began:
                return place
        return None

    def _match_off(self) -> None:
        """Forget leading words that a flush has finalised already, once they are complete."""
        reading = self._reading
        if reading.last_tag:
            self._carried = reading.last_tag
        statuses, uses = self._statuses(reading.words)
        drop_tokens = drop_ghosts = 0
        for (word, is_new), used in zip(statuses, uses, strict=True):
            if is_new or (word.continues and not self._settled):
                break
            if used > drop_ghosts:
                ghost, form = self._ghosts[used - 1].form, _form(word.text)
                self._rest = ghost.removeprefix(form) if ghost.startswith(form) else ""
            elif _form(word.text):
                self._rest = ""
            drop_tokens, drop_ghosts = word.last + 1, used
        del self._tokens[:drop_tokens]
        now = self._frame * FRAME_S
        self._ghosts = [
            ghost for ghost in self._ghosts[drop_ghosts:] if ghost.end > now - GHOST_LIFE_S
        ]

    # ---- finals without a flush

    def _due(self, words: Sequence[WordSpan]) -> int:
        """How many of the new words are final without waiting for a flush."""
        if self._held and words and self._settled:
            return len(words)
        if not self._by_sentence:
            return 0
        due = 0
        for place, word in enumerate(words):
            ends = word.text.endswith(_TERMINAL)
            told = word.language is not None or self.forced_language is not None
            followed = place + 1 < len(words)
            if ends and ((told and not word.continues) or followed or self._settled):
                due = place + 1
        return due

    def _finalise_own(self, words: Sequence[WordSpan], flush_id: int | None) -> Transcript:
        self._held = None
        self._rest = ""
        transcript = self._transcript(words, is_final=True, flush_id=flush_id)
        del self._tokens[: words[-1].last + 1]
        self._shown = ()
        return transcript

    def _transcript(
        self, words: Sequence[WordSpan], *, is_final: bool, flush_id: int | None
    ) -> Transcript:
        self._revision += 1
        return make_transcript(
            words,
            is_final=is_final,
            forced_language=self.forced_language,
            carried_language=self._carried,
            start=words[0].start if words else self._flush_s,
            end=words[-1].end if words else self._flush_s,
            flush_id=flush_id,
            revision=self._revision,
        )
