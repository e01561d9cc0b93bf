"""From decoded tokens to words, and from words to the Transcript events that callers see."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, Literal, TypeVar

from nemotron_voice.language_tags import WORD_START, Incomplete, Text, Token, find_tags

__all__ = [
    "FRAME_S",
    "LanguageRun",
    "Reading",
    "Token",
    "Transcript",
    "Word",
    "WordSpan",
    "join_texts",
    "join_words",
    "languages_by_words",
    "make_transcript",
    "read_tokens",
    "select_words",
]

FRAME_S: Final = 0.08  # one encoder frame: the grid of all times

LanguageSource = Literal["tag", "forced", "carried"]


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its punctuation. Times are of emission, on an 80 ms grid: late, never early."""

    text: str
    start: float  # seconds of audio since the stream began
    end: float
    confidence: float  # 0..1, of its least sure token
    language: str | None


@dataclass(frozen=True, slots=True)
class LanguageRun:
    """Words in a row in one language."""

    language: str | None
    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said, so far (interim) or for good (final)."""

    text: str
    is_final: bool
    language: str | None  # the locale of most of the text, one of the 40
    language_source: LanguageSource | None  # the model told it, the caller did, or it did earlier
    languages: tuple[LanguageRun, ...]  # more than one where the speaker switches
    words: tuple[Word, ...]
    start: float  # seconds of audio since the stream began
    end: float
    confidence: float | None  # mean over words, 0..1; None without words
    flush_id: int | None  # the flush that this answers
    revision: int  # grows with every transcript of a stream
    # False: no space between it and the final before: a flush has cut a word, or the script has
    # none. `join_texts` puts a call's finals together.
    spaced: bool = True
    # False: it answers a flush in mid-speech, before all of the audio was decoded. Words that are
    # still missing come as another final with the same `flush_id`, if nobody goes on speaking.
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return asdict(self) | {
            "languages": [asdict(run) for run in self.languages],
            "words": [asdict(word) for word in self.words],
        }

    def shifted(self, seconds: float) -> Transcript:
        """The same on a clock that stood at `seconds` when the stream began."""
        if seconds == 0.0:
            return self
        return replace(
            self,
            words=tuple(_later(word, seconds) for word in self.words),
            languages=tuple(_later(run, seconds) for run in self.languages),
            start=self.start + seconds,
            end=self.end + seconds,
        )


_Timed = TypeVar("_Timed", Word, LanguageRun)


def _later(item: _Timed, seconds: float) -> _Timed:
    return replace(item, start=item.start + seconds, end=item.end + seconds)


@dataclass(frozen=True, slots=True)
class WordSpan:
    """A word and the tokens that it was read from."""

    text: str
    first: int  # indices into the tokens that were read, inclusive
    last: int
    start: float
    end: float
    confidence: float
    language: str | None = None  # of the tag that closed its sentence; None until that has come
    continues: bool = False  # nothing that ends a word has followed: it may still grow
    spaced: bool = True  # a space stands before it


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens as words, tags taken out."""

    words: tuple[WordSpan, ...]
    last_tag: str | None  # locale of the last tag among the tokens
    hidden_tail: bool  # a tag has begun at the end and is not complete


NOTHING_READ: Final = Reading((), None, hidden_tail=False)


@dataclass(slots=True)
class _Letters:
    """A word in the making."""

    spaced: bool
    first: int
    text: str = ""
    parts: list[tuple[int, str]] = field(default_factory=list)
    language: str | None = None
    sentence: int = 0

    def add(self, index: int, text: str) -> None:
        self.text += text
        self.parts.append((index, text))

    def join(self, other: _Letters) -> None:
        self.text += (" " if other.spaced else "") + other.text
        self.parts += other.parts


def read_tokens(tokens: Sequence[Token], *, frame_s: float = FRAME_S) -> Reading:
    """Tokens to words; tags removed, whole or spelled, hidden while incomplete, dropped if cut off.

    A word starts at "▁". Japanese, Chinese and Thai are written without spaces: there each piece
    is a word, except that marks and punctuation join what they belong to. Punctuation that stands
    alone joins the word before it, an opening mark the word after it.

    Args:
        tokens: in order of emission; may begin anywhere.
        frame_s: seconds per encoder frame.
    """
    drafts: list[_Letters] = []
    open_word = False  # whether the last draft may grow
    cut = True  # nothing yet: the first piece may go on with a word of earlier tokens
    boundary: int | None = None  # index of a "▁" that nothing has followed yet
    sentence = 0
    last_tag: str | None = None
    hidden_tail = False
    for item in find_tags(tokens):
        if isinstance(item, Text):
            for place, part in enumerate(item.text.split(WORD_START)):
                if place > 0:
                    boundary = item.index
                if not part:
                    continue
                if boundary is not None or not open_word or _breaks(drafts[-1].text, part):
                    spaced = boundary is not None or not (open_word or cut)
                    first = item.index if boundary is None else boundary
                    drafts.append(_Letters(spaced, first, sentence=sentence))
                drafts[-1].add(item.index, part)
                open_word, boundary, cut = True, None, False
            continue
        open_word, boundary, cut = False, None, False
        if isinstance(item, Incomplete):
            hidden_tail = True
            continue
        last_tag = item.language or last_tag
        for draft in reversed(drafts):
            if draft.sentence != sentence:
                break
            draft.language = item.language
        sentence += 1
    words: list[WordSpan] = []
    for draft in _with_punctuation(drafts):
        words.append(_span(draft, tokens, frame_s, words[-1].end if words else 0.0))
    if words and open_word and boundary is None:
        words[-1] = replace(words[-1], continues=True)
    return Reading(tuple(words), last_tag, hidden_tail)


def join_words(words: Iterable[WordSpan]) -> str:
    """The text of words in a row: spaces as the model wrote them, none in Japanese or Chinese."""
    text = ""
    before = ""
    for word in words:
        touching = _is_han_or_kana(word.text[0]) and any(map(_is_han_or_kana, before))
        text += (" " if text and word.spaced and not touching else "") + word.text
        before = word.text
    return text


def join_texts(finals: Iterable[Transcript]) -> str:
    """The text of a call: finals in order, with the spaces that belong between them.

    None in Japanese and Chinese, and none inside a word that a flush has cut in two.
    """
    text = ""
    for final in finals:
        if not final.text:
            continue
        touching = _is_han_or_kana(final.text[0]) and bool(text) and _is_wide(text[-1])
        text += (" " if text and final.spaced and not touching else "") + final.text
    return text


def languages_by_words(finals: Iterable[Transcript]) -> list[str]:
    """The locales of a call, that of most words first."""
    counts = Counter(word.language for final in finals for word in final.words if word.language)
    return [language for language, _ in counts.most_common()]


def make_transcript(
    words: Sequence[WordSpan],
    *,
    is_final: bool,
    forced_language: str | None,
    carried_language: str | None,
    start: float,
    end: float,
    flush_id: int | None = None,
    revision: int = 0,
) -> Transcript:
    """A Transcript of words in a row.

    A forced language is that of every word. Otherwise a word's language is its tag's; where no tag
    has come yet, the last sure language is carried on: `carried_language` or a tag among `words`.
    The language of the whole is that of most letters; at a draw, the later.

    Args:
        words: from read_tokens.
        is_final: nothing of this will be said again or taken back.
        forced_language: locale of the stream's prompt, or None if the model is to tell.
        carried_language: the last language that was sure before these words.
        start: seconds of audio since the stream began.
        end: likewise.
        flush_id: the flush that is answered.
        revision: of the stream.
    """
    carried = carried_language
    languages: list[str | None] = []
    letters: dict[str, int] = {}
    for word in words:
        carried = word.language or carried
        language = forced_language or carried
        languages.append(language)
        if language is not None:
            # Taken out and put back, so that max() over the reversed order prefers the later.
            letters[language] = letters.pop(language, 0) + len(word.text)
    most = max(reversed(letters), key=letters.__getitem__, default=None)
    language = most or forced_language or carried
    return Transcript(
        text=join_words(words),
        is_final=is_final,
        language=language,
        language_source=_source(language, words, forced=forced_language is not None),
        languages=_runs(words, languages),
        words=tuple(
            Word(word.text, word.start, word.end, word.confidence, language)
            for word, language in zip(words, languages, strict=True)
        ),
        start=start,
        end=end,
        confidence=sum(word.confidence for word in words) / len(words) if words else None,
        flush_id=flush_id,
        revision=revision,
        spaced=words[0].spaced if words else True,
    )


def select_words(transcript: Transcript, keep: Callable[[Word], bool]) -> Transcript:
    """The transcript without the words that `keep` refuses; itself where it refuses none."""
    kept = [word for word in transcript.words if keep(word)]
    if len(kept) == len(transcript.words):
        return transcript
    pieces: list[tuple[Word, str]] = []  # with the space that stands before each
    at = 0
    for word in transcript.words:
        end = transcript.text.index(word.text, at) + len(word.text)
        if word in kept:
            pieces.append((word, transcript.text[at:end]))
        at = end
    letters: dict[str | None, int] = {}
    runs: list[LanguageRun] = []
    for word, text in pieces:
        letters[word.language] = letters.get(word.language, 0) + len(word.text)
        if runs and runs[-1].language == word.language:
            runs[-1] = replace(runs[-1], text=runs[-1].text + text, end=word.end)
        else:
            runs.append(LanguageRun(word.language, text.strip(), word.start, word.end))
    return replace(
        transcript,
        text="".join(text for _, text in pieces).strip(),
        language=max(letters, key=letters.__getitem__, default=transcript.language),
        languages=tuple(runs),
        words=tuple(kept),
        start=kept[0].start if kept else transcript.start,
        end=kept[-1].end if kept else transcript.end,
        confidence=sum(word.confidence for word in kept) / len(kept) if kept else None,
        spaced=transcript.spaced if kept and kept[0] is transcript.words[0] else True,
    )


def _source(
    language: str | None, words: Sequence[WordSpan], *, forced: bool
) -> LanguageSource | None:
    if language is None:
        return None
    if forced:
        return "forced"
    return "tag" if any(word.language == language for word in words) else "carried"


def _runs(words: Sequence[WordSpan], languages: Sequence[str | None]) -> tuple[LanguageRun, ...]:
    starts = [
        place
        for place in range(len(words))
        if place == 0 or languages[place] != languages[place - 1]
    ]
    runs = []
    for first, after in pairwise([*starts, len(words)]):
        run = words[first:after]
        runs.append(LanguageRun(languages[first], join_words(run), run[0].start, run[-1].end))
    return tuple(runs)


def _with_punctuation(drafts: Sequence[_Letters]) -> list[_Letters]:
    """Give punctuation that stands alone to a neighbour in its sentence, if there is one."""
    words: list[_Letters] = []
    for draft in drafts:
        before = words[-1] if words and words[-1].sentence == draft.sentence else None
        closes = _is_punctuation(draft.text) and not _opens(draft.text[-1])
        if before is not None and (closes or all(map(_opens, before.text))):
            before.join(draft)
        else:
            words.append(draft)
    return words


def _span(draft: _Letters, tokens: Sequence[Token], frame_s: float, after: float) -> WordSpan:
    spoken = [index for index, text in draft.parts if not _is_punctuation(text)]
    heard = spoken or [index for index, _ in draft.parts]
    start = max((tokens[heard[0]].frame - 1) * frame_s, after, 0.0)
    return WordSpan(
        text=draft.text,
        first=draft.first,
        last=draft.parts[-1][0],
        start=round(start, 3),
        end=round(max(tokens[heard[-1]].frame * frame_s, start), 3),
        confidence=min(tokens[index].confidence for index in heard),
        language=draft.language,
        spaced=draft.spaced,
    )


# ---- scripts

_JOIN_LEFT: Final = frozenset("ー々ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮะาำๅๆ")
_JOIN_RIGHT: Final = frozenset("เแโใไ")  # Thai vowels written before their consonant


def _is_han_or_kana(letter: str) -> bool:
    return (
        "\u2e80" <= letter <= "\u9fff" or "\uf900" <= letter <= "\ufaff" or letter >= "\U00020000"
    )


def _is_wide(letter: str) -> bool:
    """Han, kana, or the punctuation that is written with them."""
    return _is_han_or_kana(letter) or letter in "。、？！…」』），；："


def _is_unspaced(letter: str) -> bool:
    return _is_han_or_kana(letter) or "\u0e00" <= letter <= "\u0e7f"


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(letter)[0] == "P" and letter not in "&%@#" for letter in text)


def _opens(letter: str) -> bool:
    return letter in "¿¡" or unicodedata.category(letter) in {"Ps", "Pi"}


def _breaks(before: str, after: str) -> bool:
    """Whether a word ends between two pieces that no space parts."""
    last, first = before[-1], after[0]
    if not (_is_unspaced(last) or _is_unspaced(first)):
        return False
    joins_left = first in _JOIN_LEFT or unicodedata.category(first)[0] == "M"
    closes = unicodedata.category(first)[0] == "P" and not _opens(first)
    return not (joins_left or closes or last in _JOIN_RIGHT or _opens(last))
