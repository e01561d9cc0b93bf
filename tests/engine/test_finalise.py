"""What is final stays final, is said once, and nothing is lost when the caller goes on."""

from __future__ import annotations

from nemotron_voice.engine.finalise import MAX_PENDING_TOKENS, Finaliser
from nemotron_voice.transcript import Token, join_texts


def spoken(text: str, frame: int, *, step: int = 4) -> list[Token]:
    """One token a word, `step` frames apart, the first emitted at `frame`; <..> is a tag piece."""
    tokens = []
    for place, word in enumerate(text.split()):
        at = frame + place * step
        if word.startswith("<"):
            tokens.append(Token(word, at, 0.9, word.strip("<>")))
        else:
            tokens.append(Token("▁" + word, at, 0.9))
    return tokens


def auto() -> Finaliser:
    return Finaliser(None, by_sentence=False)


def test_a_flush_at_a_pause_finalises_the_tail_and_the_stream_does_not_repeat_it() -> None:
    finaliser = auto()
    finaliser.add(spoken("a table for", 10), 20)
    final = finaliser.flush(spoken("four. <en-US>", 22), 26.0, 0)
    assert final.text == "a table for four."
    assert final.is_final
    assert (final.language, final.language_source) == ("en-US", "tag")
    assert final.flush_id == 0
    # The caller stops here: the stream decodes the same tail a little later.
    assert finaliser.add(spoken("four.", 23), 28) == []
    assert finaliser.interim() is None
    finaliser.add([], 60)
    assert finaliser.interim() is None
    assert finaliser.flush([], 64.0, 1).text == ""


def test_a_caller_who_goes_on_loses_no_word_and_repeats_none() -> None:
    finaliser = auto()
    finaliser.add(spoken("at seven", 10), 20)
    assert finaliser.flush(spoken("thirty.", 22), 26.0, 0).text == "at seven thirty."
    finaliser.add(spoken("thirty please", 23, step=12), 40)
    interim = finaliser.interim()
    assert interim is not None
    assert interim.text == "please"
    assert finaliser.flush([], 44.0, 1).text == "please"


def test_a_word_said_twice_is_heard_twice() -> None:
    finaliser = auto()
    finaliser.add(spoken("two", 10), 12)
    assert finaliser.flush([], 14.0, 0).text == "two"
    finaliser.add(spoken("two", 20), 24)
    assert finaliser.flush([], 26.0, 1).text == "two"


def test_a_word_that_the_fork_completed_from_its_first_piece_is_matched_whole() -> None:
    finaliser = auto()
    finaliser.add([Token("▁thir", 10, 0.9)], 12)
    assert finaliser.flush([Token("ty.", 13, 0.9)], 15.0, 0).text == "thirty."
    finaliser.add([Token("t", 13, 0.9)], 14)
    assert finaliser.interim() is None
    finaliser.add([Token("y", 14, 0.9)], 15)
    finaliser.add(spoken("five", 22), 24)
    interim = finaliser.interim()
    assert interim is not None
    assert interim.text == "five"


def test_mid_speech_only_what_the_stream_has_completed_is_final() -> None:
    finaliser = auto()
    finaliser.add(spoken("a table for", 10), 14)
    assert finaliser.flush_mid_speech(14.0, 0).text == "a table"
    assert finaliser.add([*spoken("ty", 15), *spoken("people", 18)], 20) == []
    assert finaliser.flush([], 40.0, 1).text == "for ty people"


def test_a_last_word_that_nothing_has_followed_for_long_is_final_also_in_noise() -> None:
    finaliser = auto()
    finaliser.add(spoken("a table for four", 10), 24)
    finaliser.add([], 31)
    assert finaliser.flush_mid_speech(33.0, 0).text == "a table for"
    finaliser = auto()
    finaliser.add(spoken("a table for four", 10), 24)
    finaliser.add([], 32)
    assert finaliser.flush_mid_speech(33.0, 0).text == "a table for four"
    assert finaliser.add([], 60) == []


def test_an_answer_in_mid_speech_says_that_it_is_not_complete_and_its_rest_that_it_is() -> None:
    finaliser = auto()
    finaliser.add(spoken("a table for", 10), 14)
    assert not finaliser.flush_mid_speech(19.0, 0).complete
    (rest,) = finaliser.add([], 40)
    assert (rest.text, rest.flush_id, rest.complete) == ("for", 0, True)
    assert finaliser.flush([], 44.0, 1).complete


def test_a_word_left_by_a_flush_comes_on_its_own_when_nothing_follows() -> None:
    finaliser = auto()
    finaliser.add(spoken("yes", 10), 12)
    assert finaliser.flush_mid_speech(10.5, 4).text == ""
    assert finaliser.add([], 16) == []
    (late,) = finaliser.add([], 24)
    assert (late.text, late.flush_id, late.is_final) == ("yes", 4, True)
    assert finaliser.flush([], 30.0, 5).text == ""


def test_when_the_caller_goes_on_words_left_by_a_flush_wait_for_the_next_one() -> None:
    finaliser = auto()
    finaliser.add(spoken("seven", 10), 12)
    assert finaliser.flush_mid_speech(11.0, 4).text == ""
    assert finaliser.add([*spoken("thirty", 14), *spoken("n", 25)], 26) == []
    assert finaliser.add([], 40) == []  # a long pause before the end of a word
    finaliser.add([Token("ight", 41, 0.9)], 42)
    assert finaliser.flush([], 60.0, 5).text == "seven thirty night"


def test_another_reading_of_the_same_sound_is_not_said_beside_the_first() -> None:
    finaliser = auto()
    finaliser.add(spoken("at", 10), 12)
    assert finaliser.flush(spoken("sixteen.", 18), 21.0, 0).text == "at sixteen."
    finaliser.add(spoken("sixty", 19), 30)
    assert finaliser.interim() is None


def test_a_word_that_the_stream_completes_otherwise_is_not_said_beside_its_half() -> None:
    finaliser = auto()
    assert finaliser.flush([Token("▁Acpe.", 20, 0.9)], 21.0, 0).text == "Acpe."
    finaliser.add([Token("▁Acpe", 20, 0.9), Token("as", 25, 0.9)], 28)
    finaliser.add(spoken("em", 29), 30)
    interim = finaliser.interim()
    assert interim is not None
    assert interim.text == "em"


def test_pieces_of_a_word_in_the_making_wait_with_it() -> None:
    finaliser = auto()
    finaliser.add([*spoken("ho", 10), Token("▁reserv", 17, 0.9)], 20)
    assert finaliser.flush_mid_speech(21.0, 0).text == "ho"
    finaliser.add([Token("a", 22, 0.9)], 24)
    assert finaliser.flush([], 40.0, 1).text == "reserva"


def test_a_new_word_right_after_the_flush_is_not_taken_for_the_old_sound() -> None:
    finaliser = auto()
    assert finaliser.flush(spoken("seven", 20), 21.0, 0).text == "seven"
    finaliser.add(spoken("thirty", 24), 28)
    interim = finaliser.interim()
    assert interim is not None
    assert interim.text == "thirty"


def test_punctuation_and_tags_of_what_is_final_open_no_new_turn() -> None:
    finaliser = auto()
    finaliser.add(spoken("thanks", 10), 12)
    finaliser.flush(spoken(". <en-US>", 14), 16.0, 0)
    finaliser.add([Token(".", 15, 0.9)], 18)
    assert finaliser.interim() is None
    finaliser.add(spoken("<en-US>", 19), 20)
    assert finaliser.interim() is None
    assert finaliser.add([], 60) == []
    assert finaliser.interim() is None
    assert finaliser.flush([], 62.0, 1).text == ""


def test_the_last_sure_language_is_carried_and_said_to_be() -> None:
    finaliser = auto()
    finaliser.add(spoken("hola. <es-ES>", 10), 16)
    first = finaliser.flush([], 18.0, 0)
    assert (first.language, first.language_source) == ("es-ES", "tag")
    finaliser.add(spoken("una mesa", 30), 40)
    interim = finaliser.interim()
    assert interim is not None
    assert (interim.language, interim.language_source) == ("es-ES", "carried")


def test_a_tag_spelled_over_a_flush_leaks_into_no_text() -> None:
    finaliser = auto()
    pieces = ["▁Bonġu.", "▁", "<", "m", "t", "-", "M", "T", ">"]
    tokens = [Token(piece, 10 + place, 0.9) for place, piece in enumerate(pieces)]
    finaliser.add(tokens[:5], 15)
    final = finaliser.flush([], 16.0, 0)
    assert final.text == "Bonġu."
    finaliser.add(tokens[5:], 20)
    assert finaliser.interim() is None
    finaliser.add([], 60)
    assert finaliser.flush([], 62.0, 1).text == ""


def test_sentences_are_final_without_a_flush_when_asked_for() -> None:
    finaliser = Finaliser(None, by_sentence=True)
    assert finaliser.add(spoken("good evening.", 10), 16) == []
    (first,) = finaliser.add(spoken("<en-US> a", 18), 24)
    assert (first.text, first.language) == ("good evening.", "en-US")
    interim = finaliser.interim()
    assert interim is not None
    assert interim.text == "a"


def test_a_forced_language_is_told_as_forced() -> None:
    finaliser = Finaliser("fr-FR", by_sentence=True)
    assert finaliser.add(spoken("bonsoir.", 10), 12) == []
    (final,) = finaliser.add([], 30)
    assert (final.text, final.language, final.language_source) == ("bonsoir.", "fr-FR", "forced")


def test_what_waits_for_a_flush_is_bounded_and_not_lost() -> None:
    finaliser = auto()
    said: list[str] = []
    for word in range(3 * MAX_PENDING_TOKENS):
        for final in finaliser.add([Token(f"▁w{word}", 4 * word, 0.9)], 4 * word + 1):
            said += final.text.split()
        assert len(finaliser._tokens) <= MAX_PENDING_TOKENS + 1
    said += finaliser.flush([], 1e6, 0).text.split()
    assert said == [f"w{word}" for word in range(3 * MAX_PENDING_TOKENS)]


def test_a_word_that_the_stream_tears_apart_is_joined_over_a_flush() -> None:
    finaliser = auto()
    finaliser.add(spoken("tomorrow n", 10), 18)
    first = finaliser.flush([], 20.0, 0)
    finaliser.add([], 40)
    finaliser.add([Token("ight?", 55, 0.9)], 56)
    second = finaliser.flush([], 60.0, 1)
    assert (first.text, second.text, second.spaced) == ("tomorrow n", "ight?", False)
    assert join_texts([first, second]) == "tomorrow night?"


def test_the_late_end_of_a_word_that_is_final_whole_is_not_said_again() -> None:
    finaliser = auto()
    finaliser.add(spoken("tomorrow", 10), 14)
    assert finaliser.flush(spoken("night?", 16), 20.0, 0).text == "tomorrow night?"
    finaliser.add(spoken("n", 16), 20)
    finaliser.add([], 40)
    finaliser.add([Token("i", 55, 0.9)], 56)
    assert finaliser.interim() is None
    finaliser.add([Token("ght?", 57, 0.9), *spoken("Could we", 58)], 64)
    second = finaliser.flush([], 70.0, 1)
    assert (second.text, second.spaced) == ("Could we", True)


def test_what_begins_like_the_late_end_of_another_word_is_said() -> None:
    finaliser = auto()
    assert finaliser.flush(spoken("night?", 16), 20.0, 0).text == "night?"
    finaliser.add([*spoken("n", 16)], 20)
    finaliser.add([], 40)
    finaliser.add(spoken("ight", 55), 60)
    assert finaliser.flush([], 70.0, 1).text == "ight"
