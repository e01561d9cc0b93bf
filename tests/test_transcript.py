"""Tokens to words to transcripts: no tag ever shows, no word is ever lost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nemotron_voice.languages import locale_of_tag
from nemotron_voice.transcript import (
    Token,
    Transcript,
    Word,
    WordSpan,
    join_texts,
    join_words,
    make_transcript,
    read_tokens,
    select_words,
)


def tokens(pieces: str | Sequence[str], first_frame: int = 10) -> list[Token]:
    """Pieces as tokens, one a frame; "<ll-CC>" whole is a tag token as the engine makes it."""
    if isinstance(pieces, str):
        pieces = pieces.split("|")

    def language(piece: str) -> str | None:
        whole = piece.startswith("<") and piece.endswith(">")
        return locale_of_tag(piece[1:-1]) if whole else None

    return [
        Token(piece, first_frame + place, 0.9, language(piece))
        for place, piece in enumerate(pieces)
    ]


def text(pieces: str | Sequence[str]) -> str:
    return join_words(read_tokens(tokens(pieces)).words)


# ---- tags


@pytest.mark.parametrize(
    ("pieces", "shown", "language"),
    [
        ("▁Hel|lo|.|<en-US>", "Hello.", "en-US"),
        ("▁Hello|.|▁|<sl-SL>", "Hello.", "sl-SI"),
        ("▁Hello|.|▁<ja-JA>", "Hello.", "ja-JP"),
        ("▁Bon|ġu|.|▁|<|m|t|-|M|T|>", "Bonġu.", "mt-MT"),
        ("▁Bonġu|.|<m|t-|MT>", "Bonġu.", "mt-MT"),
        ("▁Bonġu|.|▁<|mt|-|MT|>|▁Iva|.", "Bonġu. Iva.", "mt-MT"),
        ("▁Bonġu|.|▁|<|m|t|-|M", "Bonġu.", None),
        ("▁Bonġu|.|▁|<", "Bonġu.", None),
        ("▁Bonġu|.|▁", "Bonġu.", None),
        ("▁Bonġu|.|▁|<|m|t|-|▁Iva", "Bonġu. Iva", None),
        ("▁Bonġu|.|<|m|t|<en-US>", "Bonġu.", "en-US"),
        ("▁Bonġu|<|m|<|m|t|-|M|T|>", "Bonġu", "mt-MT"),
        ("▁Да|.|▁|<|с|н|-|S|-", "Да.", None),
        ("▁Да|.|▁|<|с|н|-|S|-|▁Нет", "Да. Нет", None),
        ("▁One|<unk>|▁two", "One two", None),
        ("▁One|</s>", "One", None),
        ("▁a|▁<|▁b", "a b", None),
        ("▁はい|。|<|m|t|-|日本", "はい。日本", None),
        ("<en-US>|▁Yes", "Yes", "en-US"),
        ("▁Yes|.|<xx-YY>", "Yes.", None),
        ("", "", None),
    ],
)
def test_a_tag_is_taken_out_whole_spelled_or_cut_off(
    pieces: str, shown: str, language: str | None
) -> None:
    reading = read_tokens(tokens(pieces))
    assert join_words(reading.words) == shown
    assert reading.last_tag == language


def test_a_tag_gives_its_language_to_its_own_sentence_only() -> None:
    reading = read_tokens(tokens("▁Hi|.|<en-US>|▁Si|,|▁va|.|▁|<|m|t|-|M|T|>|▁Et"))
    assert [word.language for word in reading.words] == ["en-US", "mt-MT", "mt-MT", None]


def test_an_unknown_tag_closes_its_sentence_without_a_language() -> None:
    reading = read_tokens(tokens("▁Hi|.|<xx-YY>|▁Va|.|<fr-FR>"))
    assert [word.language for word in reading.words] == [None, "fr-FR"]


@pytest.mark.parametrize(
    ("pieces", "hidden"), [("▁Hi|.|▁|<|m", True), ("▁Hi|.|▁|<|m|t|-|M|T|>", False), ("▁Hi", False)]
)
def test_a_tag_that_has_only_begun_is_known_to_be_hidden(pieces: str, hidden: bool) -> None:
    assert read_tokens(tokens(pieces)).hidden_tail is hidden


WORD = st.lists(
    st.sampled_from(["a", "ol", "é", "12", ".", ",", "?", "'", "-", "ß", "Ж", "ing"]), max_size=3
).map(lambda rest: ["▁w", *rest])
SPELLINGS = ["<mt-MT>", "<sl-SI>", "<sl-SL>", "<es-ES>", "<zh-Hans>", "<сн-SE>", "<haw-US>"]


@st.composite
def spelled(draw: st.DrawFn, *, cut: bool) -> list[str]:
    """A tag in pieces of random size, cut off before its end or not."""
    spelling = draw(st.sampled_from(SPELLINGS))
    if cut:
        spelling = spelling[: draw(st.integers(1, len(spelling) - 1))]
    pieces = [""]
    for letter in spelling:
        if pieces[-1] and draw(st.booleans()):
            pieces.append("")
        pieces[-1] += letter
    return [*draw(st.sampled_from([["▁"], []])), *pieces]


UTTERANCE = st.lists(
    st.one_of(
        WORD,
        WORD,
        spelled(cut=False),
        spelled(cut=True).map(lambda pieces: [*pieces, "▁after"]),
        st.sampled_from([["<en-US>"], ["<sl-SL>"], ["▁<es-ES>"], ["▁"]]),
    ),
    max_size=8,
)


def without_tags(parts: list[list[str]]) -> str:
    """What a reader who knew where the tags are would read."""
    kept = [
        ["▁after"] if pieces[-1] == "▁after" else pieces
        for pieces in parts
        if "<" not in "".join(pieces) or pieces[-1] == "▁after"
    ]
    return " ".join("".join(chain.from_iterable(kept)).replace("▁", " ").split())


@given(UTTERANCE)
@example([["▁w", "."], ["▁", "<", "m", "t"], ["▁w"]])
def test_no_tag_leaks_from_any_prefix_and_no_word_is_lost(parts: list[list[str]]) -> None:
    pieces = list(chain.from_iterable(parts))
    for length in range(len(pieces) + 1):
        shown = text(pieces[:length])
        assert not re.search(r"[<>▁]", shown)
        assert "mt-" not in shown
        assert not re.search(r"[a-zн]-(?:[A-Z]|Hans)", shown)
    if not any("<" in "".join(part) and ">" not in "".join(part) for part in parts[-1:]):
        assert text(pieces) == without_tags(parts)


@given(UTTERANCE, st.data())
def test_what_is_read_in_two_parts_is_what_is_read_in_one(
    parts: list[list[str]], data: st.DataObject
) -> None:
    """The engine forgets tokens of words that are final; the rest must read the same."""
    all_tokens = tokens(list(chain.from_iterable(parts)))
    words = read_tokens(all_tokens).words
    done = [word for word in words if not word.continues]
    if done:
        last = done[data.draw(st.integers(0, len(done) - 1))]
        rest = read_tokens(all_tokens[last.last + 1 :]).words
        assert [word.text for word in rest] == [
            word.text for word in words if word.first > last.last
        ]


# ---- words


def test_words_hold_their_tokens_and_punctuation_belongs_to_its_word() -> None:
    words = read_tokens(tokens("▁¿|Qué|▁tal|,|▁se|ñor|?")).words
    assert [(word.text, word.first, word.last) for word in words] == [
        ("¿Qué", 0, 1),
        ("tal,", 2, 3),
        ("señor?", 4, 6),
    ]


def test_punctuation_that_stands_alone_joins_the_word_it_belongs_to() -> None:
    assert [word.text for word in read_tokens(tokens("▁Ça|▁va|▁?|▁«|▁Oui|▁»")).words] == [
        "Ça",
        "va ?",
        "« Oui »",
    ]


def test_times_are_emission_frames_and_never_overlap() -> None:
    words = read_tokens(
        [Token("▁one", 10, 1.0), Token(".", 14, 1.0), Token("▁two", 14, 1.0), Token("▁x", 14, 1.0)]
    ).words
    assert [(word.start, word.end) for word in words] == [(0.72, 0.8), (1.04, 1.12), (1.12, 1.12)]
    assert read_tokens([Token("▁a", 0, 1.0)]).words[0].start == 0.0


def test_a_words_confidence_is_that_of_its_least_sure_letters() -> None:
    words = read_tokens([Token("▁one", 1, 0.9), Token("s", 2, 0.6), Token(".", 3, 0.1)]).words
    assert words[0].confidence == 0.6


@pytest.mark.parametrize(
    ("pieces", "continues"),
    [("▁Hel", True), ("▁Hel|▁", False), ("▁Hel|<en-US>", False), ("▁Hel|▁|<", False)],
)
def test_a_word_may_grow_until_something_ends_it(pieces: str, continues: bool) -> None:
    assert read_tokens(tokens(pieces)).words[-1].continues is continues


@pytest.mark.parametrize(
    ("pieces", "words", "joined"),
    [
        ("▁東京|都|に|行った|。", ["東京", "都", "に", "行った。"], "東京都に行った。"),
        ("▁ラー|メン|と|コーヒ|ー", ["ラー", "メン", "と", "コーヒー"], "ラーメンとコーヒー"),
        ("▁20|24|年|<ja-JA>|▁はい", ["2024", "年", "はい"], "2024年はい"),
        ("▁「|はい|」|と", ["「はい」", "と"], "「はい」と"),
        ("▁ส|วั|ส|ดี|▁ครับ", ["ส", "วั", "ส", "ดี", "ครับ"], "สวัสดี ครับ"),
        ("▁เ|ธอ", ["เธอ"], "เธอ"),
        ("▁안녕|하|세요|▁네", ["안녕하세요", "네"], "안녕하세요 네"),
    ],
)
def test_scripts_without_spaces(pieces: str, words: list[str], joined: str) -> None:
    reading = read_tokens(tokens(pieces))
    assert [word.text for word in reading.words] == words
    assert join_words(reading.words) == joined


# ---- transcripts


def transcript(pieces: str, *, forced: str | None = None, carried: str | None = None) -> Transcript:
    words = read_tokens(tokens(pieces)).words
    return make_transcript(
        words, is_final=True, forced_language=forced, carried_language=carried, start=0.0, end=9.0
    )


@pytest.mark.parametrize(
    ("pieces", "forced", "carried", "language", "source"),
    [
        ("▁Hola|.|<es-ES>", None, None, "es-ES", "tag"),
        ("▁Hola|.", None, "es-ES", "es-ES", "carried"),
        ("▁Hola|.", None, None, None, None),
        ("▁Hola|.|<es-ES>", "es-US", "fr-FR", "es-US", "forced"),
        ("", None, "es-ES", "es-ES", "carried"),
        ("", "es-ES", None, "es-ES", "forced"),
        ("▁OK|.|<en-US>|▁Mañana|▁a|▁las|▁ocho|.|<es-ES>", None, None, "es-ES", "tag"),
        ("▁Sí|.|<es-ES>|▁OK|.|<en-US>", None, None, "en-US", "tag"),  # a draw: the later
        ("▁Sí|.|<es-ES>|▁Mañana|▁ocho", None, "fr-FR", "es-ES", "tag"),
    ],
)
def test_the_language_and_how_it_is_known(
    pieces: str, forced: str | None, carried: str | None, language: str | None, source: str | None
) -> None:
    result = transcript(pieces, forced=forced, carried=carried)
    assert (result.language, result.language_source) == (language, source)


def test_code_switching_is_told_run_by_run() -> None:
    result = transcript("▁Yes|,|▁please|.|<en-US>|▁Una|▁mesa|.|<es-ES>|▁Para|▁dos", carried="it-IT")
    assert [(run.language, run.text) for run in result.languages] == [
        ("en-US", "Yes, please."),
        ("es-ES", "Una mesa. Para dos"),
    ]
    assert result.languages[0].end <= result.languages[1].start
    assert " ".join(run.text for run in result.languages) == result.text
    assert [word.language for word in result.words] == ["en-US"] * 2 + ["es-ES"] * 4


def test_a_transcript_without_words_is_empty_and_well() -> None:
    result = transcript("")
    assert (result.text, result.words, result.languages) == ("", (), ())
    assert result.confidence is None


def test_a_transcript_is_ready_for_json() -> None:
    result = transcript("▁Hola|.|<es-ES>")
    assert json.loads(json.dumps(result.to_dict())) == {
        "text": "Hola.",
        "is_final": True,
        "language": "es-ES",
        "language_source": "tag",
        "languages": [{"language": "es-ES", "text": "Hola.", "start": 0.72, "end": 0.8}],
        "words": [
            {"text": "Hola.", "start": 0.72, "end": 0.8, "confidence": 0.9, "language": "es-ES"}
        ],
        "start": 0.0,
        "end": 9.0,
        "confidence": 0.9,
        "flush_id": None,
        "revision": 0,
        "spaced": True,
        "complete": True,
    }


def test_finals_join_to_the_text_of_the_call() -> None:
    finals = [transcript(text) for text in ("▁A|▁table", "▁ton", "ight|.", "", "▁Thanks")]
    assert join_texts(finals) == "A table tonight. Thanks"
    assert join_texts([transcript("▁你|好|。|<zh-CN>"), transcript("▁我|想")]) == "你好。我想"
    assert join_texts([transcript("▁ขอ|โต๊ะ"), transcript("สอง|คน")]) == "ขอโต๊ะสองคน"
    assert join_texts([]) == ""


def test_words_join_as_they_were_spaced() -> None:
    def word(letters: str, *, spaced: bool) -> WordSpan:
        return WordSpan(letters, 0, 0, 0.0, 0.0, 1.0, spaced=spaced)

    assert join_words([word("a", spaced=True), word("b", spaced=True)]) == "a b"
    assert join_words([word("a", spaced=False), word("b", spaced=False)]) == "ab"
    assert join_words([]) == ""


def test_words_can_be_left_out_and_the_rest_stays_as_it_was_written() -> None:
    words = (
        Word("uh", 0.0, 0.2, 0.2, "en-US"),
        Word("Sí,", 5.0, 5.2, 0.8, "es-ES"),
        Word("gracias.", 5.2, 5.6, 1.0, "es-ES"),
    )
    whole = Transcript("uh Sí, gracias.", True, "es-ES", "tag", (), words, 0.0, 5.6, 0.67, 3, 7)
    kept = select_words(whole, lambda word: word.start > 1.0)
    assert (kept.text, kept.words, kept.start, kept.end) == ("Sí, gracias.", words[1:], 5.0, 5.6)
    assert kept.confidence == pytest.approx(0.9)
    assert [(run.language, run.text) for run in kept.languages] == [("es-ES", "Sí, gracias.")]
    assert (kept.flush_id, kept.revision) == (3, 7)
    assert select_words(whole, lambda _: True) is whole
    nothing = select_words(whole, lambda _: False)
    assert (nothing.text, nothing.words, nothing.confidence) == ("", (), None)


def test_leaving_out_words_keeps_the_script_s_own_spacing() -> None:
    words = tuple(Word(c, i, i + 0.1, 0.9, "zh-CN") for i, c in enumerate(("嗯", "你好", "。")))
    whole = Transcript("嗯你好。", True, "zh-CN", "tag", (), words, 0.0, 2.1, 0.9, None, 0)
    assert select_words(whole, lambda word: word.text != "嗯").text == "你好。"
