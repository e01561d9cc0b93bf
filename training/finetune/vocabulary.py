"""Whether a tokenizer can write a language, and how one that can't is given new pieces."""

from __future__ import annotations

import io
import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sentencepiece
import torch

from nemotron_voice.languages import locale_of_tag

LONGEST_PIECE = 6  # of new pieces, in characters


@dataclass(frozen=True, slots=True)
class TagSpelling:
    """How a locale's tag is written so that it is as few pieces as the vocabulary has for it."""

    text: str  # with the space before it, where the vocabulary wants one
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a tokenizer makes of a language's texts."""

    unknown: tuple[tuple[str, int], ...]  # characters that it has no piece for, and how often
    pieces_per_word: float
    tag: TagSpelling

    def __str__(self) -> str:
        missing = "".join(character for character, _ in self.unknown)
        tag = " ".join(self.tag.pieces)
        return (
            f"{'all characters' if not self.unknown else f'no piece for {missing!r}'}, "
            f"{self.pieces_per_word:.1f} pieces a word, the tag is {tag!r}"
        )


def check(
    tokenizer: sentencepiece.SentencePieceProcessor, texts: Sequence[str], locale: str
) -> Coverage:
    """What the tokenizer lacks for these texts of a locale."""
    unknown = Counter(
        character
        for text in texts
        for character in text
        if not character.isspace() and tokenizer.unk_id() in tokenizer.encode(character)
    )
    words = sum(len(text.split()) for text in texts)
    pieces = sum(len(tokenizer.encode(text)) for text in texts)
    return Coverage(
        tuple(unknown.most_common()), pieces / max(words, 1), tag_spelling(tokenizer, locale)
    )


def tag_spelling(tokenizer: sentencepiece.SentencePieceProcessor, locale: str) -> TagSpelling:
    """The tag's spelling, which may be the vocabulary's own: `<sl-SL>` is Slovenian's.

    Where no piece is a tag of the locale, it is spelled from sub-words, as the released model does
    with Maltese.
    """
    names = [locale]
    for number in range(tokenizer.get_piece_size()):
        piece = tokenizer.id_to_piece(number).lstrip("▁")
        if piece.startswith("<") and piece.endswith(">"):
            name = piece[1:-1]
            if "-" in name and locale_of_tag(name) == locale:
                names.insert(0, name)
    spellings = [
        TagSpelling(text, tuple(tokenizer.encode(f"a{text}", out_type=str)[1:]))
        for name in names
        for text in (f"<{name}>", f" <{name}>")
    ]
    return min(spellings, key=lambda spelling: len(spelling.pieces))


def extended(model: bytes, texts: Sequence[str], pieces: int) -> bytes:
    """A SentencePiece model with up to so many new pieces of these texts behind its own.

    Every old piece keeps its number and its score, so old texts are written as before. New merges
    rank below all old ones.

    Raises:
        ValueError: the texts need nothing new.
    """
    old = sentencepiece.SentencePieceProcessor(model_proto=model)
    known = {old.id_to_piece(n) for n in range(old.get_piece_size())}
    scores = [old.get_score(n) for n in range(old.get_piece_size())]
    by_rank = all(score == int(score) for score in scores)  # merges; else unigram's log shares
    learnt = _learn(
        [old.normalize(text) for text in texts], pieces, "bpe" if by_rank else "unigram"
    )
    new = [
        learnt.id_to_piece(n)
        for n in range(learnt.get_piece_size())
        if not (learnt.is_unknown(n) or learnt.is_control(n)) and learnt.id_to_piece(n) not in known
    ]
    if not new:
        raise ValueError("the tokenizer has all pieces that these texts need")
    lowest = min(scores)
    added = [_entry(piece, lowest - rank) for rank, piece in enumerate(new, 1)]
    # Protocol buffers that stand one behind the other are merged: lists grow, numbers are replaced.
    size = _field(_TRAINER, _varint(_VOCABULARY << 3) + _varint(len(scores) + len(new)))
    return model + b"".join(added) + size


def _learn(
    texts: Sequence[str], pieces: int, model_type: str
) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=pieces,
        hard_vocab_limit=False,
        model_type=model_type,
        normalization_rule_name="identity",
        max_sentencepiece_length=LONGEST_PIECE,
        character_coverage=1.0,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


# Of sentencepiece_model.proto: ModelProto.pieces, .trainer_spec; TrainerSpec.vocab_size;
# SentencePiece.piece, .score. Its Python module wants one version of protobuf, and other packages
# want another.
_PIECES, _TRAINER, _VOCABULARY = 1, 2, 4
_PIECE, _SCORE = 1, 2


def _entry(piece: str, score: float) -> bytes:
    four_bytes = 5  # the wire type of a float
    number = _varint(_SCORE << 3 | four_bytes) + struct.pack("<f", score)
    return _field(_PIECES, _field(_PIECE, piece.encode()) + number)


def _field(number: int, content: bytes) -> bytes:
    of_length = 2  # the wire type of strings and messages
    return _varint(number << 3 | of_length) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def rows_of_pieces(model: Any) -> list[torch.nn.Parameter]:
    """What has a row a piece, the blank's last: the embedding, the joint's last layer.

    Args:
        model: NeMo's.
    """
    last = model.joint.joint_net[-1]
    return [model.decoder.prediction.embed.weight, last.weight, last.bias]


@torch.no_grad()
def grow(old: dict[str, torch.Tensor], model: Any, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights for a model of a larger vocabulary: new rows before the blank, which stays last.

    A new row of the joint begins as the mean of all pieces' with a bias below every one of theirs:
    what the model wrote before, it still writes. A new embedding begins as the mean.

    Args:
        old: weights under NeMo's names.
        model: NeMo's, of the new size.
        seed: of the small differences between new rows.
    """
    weights = dict(old)
    generator = torch.Generator().manual_seed(seed)
    wanted = model.state_dict()
    # The joint's last layer is its second or third, after a dropout.
    growing = re.compile(r"decoder\.prediction\.embed\.weight|joint\.joint_net\.\d\.(weight|bias)")
    for name in filter(growing.fullmatch, old):
        before = old[name]
        more = wanted[name].shape[0] - before.shape[0]
        pieces, blank = before[:-1], before[-1:]
        if name.endswith("bias"):
            rows = pieces.min().expand(more).clone()
        else:
            noise = torch.randn(more, before.shape[1], generator=generator)
            rows = pieces.mean(0) + 0.3 * pieces.std(0) * noise
        weights[name] = torch.cat([pieces, rows.to(before.dtype), blank])
    return weights
