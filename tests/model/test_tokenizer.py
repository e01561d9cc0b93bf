"""Pieces are the model's own, and tags are told by their look."""

from __future__ import annotations

import pytest
import sentencepiece

from nemotron_voice.errors import CheckpointFormatError
from nemotron_voice.model.tokenizer import Tokenizer
from tests.model.tiny import PIECES, TAGS, tokenizer_model


def test_every_piece_is_sentencepieces_own():
    tokenizer = Tokenizer.from_sentencepiece(tokenizer_model())
    reference = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_model())
    assert tokenizer.size == PIECES
    ids = reference.encode("the quick brown fox.")
    pieces = [tokenizer.piece(token_id) for token_id in ids]
    assert pieces == [reference.id_to_piece(token_id) for token_id in ids]
    assert "".join(pieces).replace("▁", " ").strip() == "the quick brown fox."


def test_tags_are_given_as_spelled():
    tokenizer = Tokenizer.from_sentencepiece(tokenizer_model())
    tags = [tag for index in range(PIECES) if (tag := tokenizer.tag(index))]
    assert tags == [tag.strip("<>") for tag in TAGS]


def test_the_unknown_piece_does_not_look_like_a_tag():
    assert Tokenizer.from_sentencepiece(tokenizer_model()).piece(0) == "▁⁇"


@pytest.mark.parametrize("piece", ["<sl-SL>", "▁<nb-NO>", "<haw-US>"])
def test_misspelt_and_marked_tags_are_tags_too(piece):
    assert Tokenizer(["a", piece]).tag(1) == piece.strip("▁<>")


@pytest.mark.parametrize("piece", ["<blank>", "<", "<en", "en-US", "<a-b-c>"])
def test_other_pieces_are_not(piece):
    assert Tokenizer([piece]).tag(0) is None


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_what_is_no_tokenizer_is_refused(content):
    with pytest.raises(CheckpointFormatError):
        Tokenizer.from_sentencepiece(content)
