"""Finding language tags among decoded tokens, so that none ever reaches text.

The model writes `<es-ES>` after a sentence's last punctuation [model card]. Most tags are one
piece of the vocabulary; some are misspelt there (`<sl-SL>`) and some don't exist (`<mt-MT>`), so
the model spells them from sub-words, over several steps; and a stream's end or a wrong turn of the
decoder cuts them off (`<mt-M`, `<сн-S-`: NeMo's INCOMPLETE_LANG_TAG).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nemotron_voice.languages import locale_of_tag

WORD_START: Final = "▁"  # SentencePiece's mark


@dataclass(frozen=True, slots=True)
class Token:
    """What the decoder emitted, as text."""

    text: str  # the SentencePiece piece; "▁" marks a word start
    frame: int  # encoder frame since the stream began; frame * 0.08 s is the emission time
    confidence: float  # 0..1
    language: str | None = None  # locale, when this piece is a whole language tag


@dataclass(frozen=True, slots=True)
class Text:
    """Text of one token that isn't part of a tag."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A complete language tag, whose last token is `index`."""

    index: int
    language: str | None  # None: a tag by its look, but of no locale that we know


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A tag that begins at token `index` and has no end yet: the tokens' tail is hidden."""

    index: int


_WHOLE = re.compile(rf"{WORD_START}?<([^\s<>]+)>")
_LOOKS_LIKE_TAG = re.compile(r"[^\W\d_]{2,3}[-_][^\W_]{2,4}")
# Generous, for what is misspelt; nothing that a sentence could go on with after "<mt-M" fits for
# long, and a word start never does. Letters of scripts written without spaces are no part of it.
_BEGINS_TAG = re.compile(
    r"[^\W\d_\u0e00-\u0e7f\u2e80-\U0003ffff]{0,5}(?:[-_][0-9A-Za-z\u0400-\u04ff]{0,4}){0,2}"
)


def find_tags(tokens: Sequence[Token]) -> Iterator[Text | Tag | Incomplete]:
    """Tell text from tags, in order; fragments of tags that were cut off are left out.

    Only the last item can be an Incomplete. No `<` and no `>` is in any Text.
    """
    index = 0
    while index < len(tokens):
        token = tokens[index]
        whole = _WHOLE.fullmatch(token.text)
        if token.language is not None:
            yield Tag(index, token.language)
        elif whole:
            if _LOOKS_LIKE_TAG.fullmatch(whole[1]):  # else a control symbol such as <unk>
                yield Tag(index, locale_of_tag(whole[1]))
        elif "<" in token.text:
            before, _, rest = token.text.partition("<")
            if before.strip(WORD_START):
                yield Text(index, before)
            index = yield from _spelled(tokens, index, rest)
            continue
        else:
            yield Text(index, token.text.replace(">", ""))
        index += 1


def _spelled(
    tokens: Sequence[Token], first: int, body: str
) -> Generator[Text | Tag | Incomplete, None, int]:
    """Follow a tag spelled from token `first` on; returns the index of the token to go on with."""
    index = first
    while True:
        name, closed, after = body.partition(">")
        if not _BEGINS_TAG.fullmatch(name):
            if index > first:
                return index  # cut off: this token is the sentence going on
            yield Text(index, body.replace("<", "").replace(">", ""))
            return index + 1
        if closed:
            yield Tag(index, locale_of_tag(name))
            if after:
                yield Text(index, after.replace("<", "").replace(">", ""))
            return index + 1
        index += 1
        if index == len(tokens):
            yield Incomplete(first)
            return index
        token = tokens[index]
        if token.language is not None or token.text.startswith(WORD_START) or "<" in token.text:
            return index  # cut off by what follows
        body += token.text
