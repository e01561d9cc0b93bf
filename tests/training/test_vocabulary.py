"""The tokenizer of a fine-tuned language: checked, extended, and old texts written as before."""

from __future__ import annotations

from importlib.resources import files

import pytest
import sentencepiece
import torch

from nemotron_voice.model.tokenizer import Tokenizer
from training.finetune import vocabulary

HINDI = ["मुझे एक मेज़ चाहिए।", "क्या आप कल खुले हैं?", "मेरा नंबर दो तीन चार है।"] * 20
OLD = ["Good evening, a table for two.", "¿Tienen una mesa para dos?", "À demain, merci."]
DATA = (files("nemotron_voice") / "demo" / "tokenizer.model").read_bytes()


def load(data: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=data)


@pytest.fixture(scope="module")
def extended() -> bytes:
    return vocabulary.extended(DATA, HINDI, 120)


def test_characters_that_have_no_piece_are_counted():
    found = vocabulary.check(load(DATA), ["मेज़ म", "abc"], "hi-IN")
    assert dict(found.unknown)["म"] == 2
    assert "a" not in dict(found.unknown)
    assert "no piece for" in str(found)
    assert not vocabulary.check(load(DATA), OLD, "en-US").unknown


def test_new_pieces_write_the_new_language_and_change_nothing_of_the_old(extended):
    before, after = load(DATA), load(extended)
    assert before.get_piece_size() < after.get_piece_size() <= before.get_piece_size() + 120
    for number in range(before.get_piece_size()):
        assert after.id_to_piece(number) == before.id_to_piece(number)
    for text in OLD:
        assert after.encode(text) == before.encode(text)
    for text in HINDI:
        assert after.unk_id() not in after.encode(text)
        assert after.decode(after.encode(text)) == text
    found = vocabulary.check(after, HINDI, "hi-IN")
    assert not found.unknown
    assert found.pieces_per_word < 4
    assert Tokenizer.from_sentencepiece(extended).size == after.get_piece_size()


def test_where_nothing_is_missing_nothing_is_added():
    with pytest.raises(ValueError, match="has all pieces"):
        vocabulary.extended(DATA, ["a b a b a b"], 8)


@pytest.mark.parametrize(
    ("locale", "pieces"),
    [
        ("hi-IN", ("<hi-IN>",)),
        ("sl-SI", ("<sl-SL>",)),  # misspelt in the released vocabulary, and in ours
        ("nb-NO", ("<nb-NO>",)),
    ],
)
def test_a_tag_is_spelled_as_the_vocabulary_has_it(locale, pieces):
    assert vocabulary.tag_spelling(load(DATA), locale).pieces == pieces


def test_a_tag_without_a_piece_is_spelled_out():
    spelling = vocabulary.tag_spelling(load(DATA), "mt-MT")
    assert spelling.text.strip() == "<mt-MT>"
    assert len(spelling.pieces) > 3
    assert "".join(spelling.pieces).strip("▁") == "<mt-MT>"


class Larger:
    """Stands for NeMo's model: its weights' shapes."""

    def __init__(self, weights: dict[str, torch.Tensor], more: int) -> None:
        self._weights = {
            name: torch.zeros(w.shape[0] + more, *w.shape[1:]) for name, w in weights.items()
        }

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._weights


def test_new_rows_stand_before_the_blank_and_are_never_chosen_at_first():
    torch.manual_seed(0)
    old = {
        "decoder.prediction.embed.weight": torch.randn(9, 4),
        "joint.joint_net.2.weight": torch.randn(9, 4),
        "joint.joint_net.2.bias": torch.randn(9),
    }
    grown = vocabulary.grow(old, Larger(old, 3))
    for name, before in old.items():
        assert grown[name].shape[0] == 12
        assert torch.equal(grown[name][:8], before[:8])
        assert torch.equal(grown[name][-1], before[-1])
    weight, bias = (grown[f"joint.joint_net.2.{part}"] for part in ("weight", "bias"))
    scores = torch.relu(torch.randn(500, 4)) @ weight.T + bias
    among_new = (scores.argmax(1) >= 8) & (scores.argmax(1) < 11)
    assert among_new.float().mean() < 0.02
