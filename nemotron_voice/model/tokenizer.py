"""The vocabulary, from a SentencePiece tokenizer.model or a Hugging Face tokenizer.json."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import sentencepiece

from nemotron_voice.errors import CheckpointFormatError

WORD_START: Final = "▁"
# How SentencePiece itself writes the unknown piece; "<unk>" would look like the start of a tag.
UNKNOWN: Final = f"{WORD_START}\u2047"

_TAG: Final = re.compile(rf"{WORD_START}?<([A-Za-z]{{2,3}}-[A-Za-z]{{2,4}})>")


class Tokenizer:
    """The vocabulary: what each token id stands for."""

    def __init__(self, pieces: list[str]) -> None:
        """Take the pieces, in order of their ids, without the blank."""
        if not pieces:
            raise CheckpointFormatError("the checkpoint's tokenizer has no pieces")
        self._pieces = tuple(pieces)
        self._tags = {
            token_id: match[1]
            for token_id, piece in enumerate(pieces)
            if (match := _TAG.fullmatch(piece))
        }

    @property
    def size(self) -> int:
        """Number of pieces, without the blank."""
        return len(self._pieces)

    def piece(self, token_id: int) -> str:
        """Text of a token; "▁" marks a word start."""
        return self._pieces[token_id]

    def tag(self, token_id: int) -> str | None:
        """Raw spelling of a token that is a whole language tag: "es-ES" of "<es-ES>"."""
        return self._tags.get(token_id)

    @classmethod
    def from_sentencepiece(cls, model: bytes) -> Tokenizer:
        """Read a tokenizer.model.

        Raises:
            CheckpointFormatError: it isn't one.
        """
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except (RuntimeError, TypeError) as error:
            raise CheckpointFormatError(
                f"the checkpoint's tokenizer is no SentencePiece model ({error}); fetch it again"
            ) from error
        return cls(
            [
                UNKNOWN
                if processor.IsUnknown(token_id)
                else ""
                if processor.IsControl(token_id)
                else processor.IdToPiece(token_id)
                for token_id in range(processor.GetPieceSize())
            ]
        )

    @classmethod
    def from_huggingface(cls, text: str, blank: int) -> Tokenizer:
        """Read a tokenizer.json of the `tokenizers` library, Unigram or BPE.

        Args:
            text: the file.
            blank: id of the blank; ids from there on aren't pieces.

        Raises:
            CheckpointFormatError: it isn't one, or has holes.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            model = content["model"]
            vocabulary = model["vocab"]
            if isinstance(vocabulary, list):
                by_id = {token_id: entry[0] for token_id, entry in enumerate(vocabulary)}
            else:
                by_id = {token_id: piece for piece, token_id in vocabulary.items()}
            by_id |= {token["id"]: token["content"] for token in content.get("added_tokens") or ()}
            unknown = model.get("unk_id")
            if model.get("unk_token"):
                unknown = next(key for key, piece in by_id.items() if piece == model["unk_token"])
            if unknown is not None:
                by_id[unknown] = UNKNOWN
            return cls([str(by_id[token_id]) for token_id in range(blank)])
        except (
            ValueError,
            RecursionError,
            TypeError,
            AttributeError,
            LookupError,
            StopIteration,
        ) as error:
            raise CheckpointFormatError(
                f"the checkpoint's tokenizer.json can't be read for {blank} pieces "
                f"({type(error).__name__}: {error}); fetch it again"
            ) from error
