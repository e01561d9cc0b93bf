"""Train the SentencePiece vocabulary: sub-words of five languages, and the language tags whole.

One command: `python -m training.tokenizer --work build/training`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sentencepiece

from nemotron_voice.languages import LOCALES

VOCABULARY = 560
LONGEST_PIECE = 6  # the frequent short words whole, others from pieces that many words share
# As in the released vocabulary: Slovenian's tag is misspelt, Maltese has none.
MISSPELT = {"sl-SI": "sl-SL"}
MISSING = {"mt-MT"}
ALPHABET = (
    "abcdefghijklmnopqrstuvwxyzàâæçéèêëîïôœùûüÿáíóúñãõìò"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÂÇÉÈÊËÎÏÔŒÙÛÜÁÍÓÚÑÃÕÌÒ0123456789.,?!¿¡'-:<>"
)


def tag_pieces() -> list[str]:
    """The tags that are one piece, in the order of the locales."""
    return [
        f"<{MISSPELT.get(locale.code, locale.code)}>"
        for locale in LOCALES
        if locale.code not in MISSING
    ]


def train_tokenizer(texts: list[Path], folder: Path) -> Path:
    """Train `folder`/tokenizer.model on text files, one sentence a line."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line for path in texts for line in path.read_text("utf-8").splitlines() if line]
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(lines), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=VOCABULARY,
        # On so small a domain unigram keeps whole words and spells the rest, a lone "▁" before
        # every third word; byte pair merges give word beginnings ("▁b", "▁qu").
        model_type="bpe",
        normalization_rule_name="nmt_nfkc",
        max_sentencepiece_length=LONGEST_PIECE,
        character_coverage=1.0,
        required_chars=ALPHABET,
        user_defined_symbols=tag_pieces(),
        split_digits=True,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    corpus.unlink()
    return folder / "tokenizer.model"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    args = parser.parse_args()
    texts = sorted((args.work / "text").glob("*.txt"))
    if not texts:
        raise SystemExit(f"no text in {args.work / 'text'}: run training.synthesise first")
    path = train_tokenizer(texts, args.work / "tokenizer")
    print(f"{path}: {VOCABULARY} pieces from {len(texts)} files")


if __name__ == "__main__":
    main()
