"""Text to Kokoro's phonemes word by word, through the espeak-ng library."""

import ctypes
import difflib
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import espeakng_loader

_ESPEAK_VOICE = {
    "en-US": b"en-us",
    "es-ES": b"es",
    "fr-FR": b"fr",
    "it-IT": b"it",
    "pt-BR": b"pt-br",
    "hi-IN": b"hi",
}
# Punctuation as Kokoro and espeak-ng know it; the danda ends Hindi sentences.
_MARKS = {",": ",", ".": ".", "?": "?", "!": "!", "।": "."}
_OPENING = "¿¡"
_UTF8 = 1
_SYNCHRONOUS = 2
# IPA, with a tie inside affricates and diphthongs, as misaki (Kokoro's own g2p) asks for it.
_MODE = 0x02 | 0x80 | (ord("^") << 8)

# misaki's `EspeakFallback` (English) and `EspeakG2P` (other languages): Kokoro was trained on
# these symbols. Longest first.
_SYMBOLS_ENGLISH = (
    ("ʔˌn̩", "tᵊn"), ("ʔn̩", "tᵊn"), ("ʔn", "tᵊn"), ("ʔ", "t"),
    ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("t^ʃ", "ʧ"), ("e^ɪ", "A"), ("o^ʊ", "O"),
    ("ɔ^ɪ", "Y"), ("ə^l", "ᵊl"), ("ʲO", "jO"), ("ʲə", "jə"), ("ʲ", ""), ("ɚɹ", "əɹ"), ("ɚ", "əɹ"),
    ("r", "ɹ"),
    ("x", "k"), ("ç", "k"), ("ɐ", "ə"), ("ɬ", "l"), ("̃", ""), ("e", "A"),
    ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("o", "ɔ"), ("ɾ", "T"),
)  # fmt: skip
_SYMBOLS_OTHER = (
    ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^z", "ʣ"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("o^ʊ", "O"),
    ("ə^ʊ", "Q"), ("s^s", "S"), ("t^s", "ʦ"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"),
)  # fmt: skip
# What espeak-ng writes for Hindi and Kokoro's vocabulary lacks: "r." for the flap (a full stop to
# Kokoro), breathy consonants, nasal vowels in one character.
_SYMBOLS_HINDI = (
    ("r.", "ɽ"), ("ʱ", "ʰ"), ("ɦ", "h"),
    *((unicodedata.normalize("NFC", v + "\u0303"), v + "\u0303") for v in "aeiou"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """One word of the text with what is pronounced for it."""

    word: str  # as written, punctuation attached
    phonemes: str  # Kokoro's symbols, no punctuation
    mark: str  # the punctuation that follows, "" or one of ,.?!


def phonemise(text: str, language: str) -> list[SpokenWord]:
    """The words of `text` (split on spaces), each with its own phonemes.

    espeak-ng reads whole clauses, so that words are reduced and linked as they are spoken. It
    writes some neighbours as one group ("at a") and some words as two ("vingt-deux"); groups
    are then matched to words by likeness with the words pronounced alone.
    """
    spoken: list[SpokenWord] = []
    clause: list[str] = []
    for word in text.split():
        clause.append(word)
        if word[-1] in _MARKS:
            spoken.extend(_clause(clause, language))
            clause = []
    if clause:
        spoken.extend(_clause(clause, language))
    return spoken


def _clause(words: list[str], language: str) -> list[SpokenWord]:
    bare = [word.strip(_OPENING + "".join(_MARKS)) for word in words]
    mark = _MARKS.get(words[-1][-1], "")
    # The mark goes along: espeak-ng's reductions before a pause depend on it.
    groups = _espeak(" ".join(bare) + (mark or ","), language).split()
    if len(groups) != len(bare):
        groups = _regroup(groups, bare, language)
    last = len(words) - 1
    return [
        SpokenWord(word, group, mark if n == last else "")
        for n, (word, group) in enumerate(zip(words, groups, strict=True))
    ]


def _regroup(groups: list[str], bare: list[str], language: str) -> list[str]:
    """Cut the clause's phonemes where the words pronounced alone begin and end."""
    alone = [_espeak(word, language).replace(" ", "") for word in bare]
    joined, lone = "".join(groups), "".join(alone)
    # Where each position of `lone` lies in `joined`.
    position = [0] * (len(lone) + 1)
    matcher = difflib.SequenceMatcher(None, lone, joined, autojunk=False)
    for tag, a, a_end, b, b_end in matcher.get_opcodes():
        for i in range(a, a_end):
            share = (i - a) / (a_end - a)
            position[i] = b + (i - a if tag == "equal" else round(share * (b_end - b)))
    position[len(lone)] = len(joined)
    cuts, at = [0], 0
    for phonemes in alone:
        at += len(phonemes)
        cuts.append(position[at])
    pieces = [joined[start:end] for start, end in pairwise(cuts)]
    return pieces if all(pieces) else alone


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [
        ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int,
    ]  # fmt: skip
    if library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0) < 0:
        raise RuntimeError("espeak-ng could not be initialised")
    return library


@cache
def _espeak(text: str, language: str) -> str:
    library = _library()
    if library.espeak_SetVoiceByName(_ESPEAK_VOICE[language]) != 0:
        raise RuntimeError(f"espeak-ng has no voice for {language}")
    rest = ctypes.c_char_p(text.encode())
    clauses = []
    while rest.value is not None:
        spoken = library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _MODE)
        if spoken:
            clauses.append(spoken.decode())
    phonemes = " ".join(clauses).replace("_", "")
    table = _SYMBOLS_ENGLISH if language == "en-US" else _SYMBOLS_OTHER
    if language == "hi-IN":
        table = (*_SYMBOLS_HINDI, *table)
    for symbol, ours in table:
        phonemes = phonemes.replace(symbol, ours)
    return phonemes.replace("^", "").replace("-", "").strip()
