"""Expands the phrase-structure grammars in `grammar/*.txt` into sentences."""

import random
import re
from pathlib import Path

LANGUAGES = ("en-US", "es-ES", "fr-FR", "it-IT", "pt-BR")

_SLOT = re.compile(r"\{(\w+)\}")
_SENTENCE_START = re.compile(r"(^|[.?!] )([¿¡]?)(\w)")
_MAX_DEPTH = 12
_MAY_REPEAT = ("digit",)


class Grammar:
    """The rules of one language: `expand("utterance", rng)` gives one caller's turn."""

    def __init__(self, language: str, folder: Path | None = None) -> None:
        """Read the rules; raise `ValueError` where a slot names no rule."""
        path = (folder or Path(__file__).parent / "grammar") / f"{language}.txt"
        self.language = language
        self.rules = _parse(path)
        for name, alternatives in self.rules.items():
            for line in alternatives:
                for slot in _SLOT.findall(line):
                    if slot not in self.rules:
                        raise ValueError(f"{path.name}: rule {name!r} uses unknown rule {slot!r}")

    def expand(self, rule: str, rng: random.Random, depth: int = 0) -> str:
        """One random expansion of `rule`, as written (no capital at the start)."""
        if depth > _MAX_DEPTH:
            raise ValueError(f"{self.language}: rule {rule!r} expands into itself")
        line = rng.choice(self.rules[rule])
        used: dict[str, list[str]] = {}

        def fill(slot: re.Match[str]) -> str:
            # A slot that returns in a line differs from itself: "not two, three".
            before = used.setdefault(slot[1], [])
            text = self.expand(slot[1], rng, depth + 1)
            while text in before and slot[1] not in _MAY_REPEAT:
                text = self.expand(slot[1], rng, depth + 1)
            before.append(text)
            return text

        return _SLOT.sub(fill, line)

    def sentence(self, rng: random.Random) -> str:
        """One well-formed turn, cased and punctuated."""
        return capitalised(self.expand("utterance", rng))


def capitalised(text: str) -> str:
    """`text` with a capital at the start of every sentence."""
    return _SENTENCE_START.sub(lambda m: m[1] + m[2] + m[3].upper(), text)


def _parse(path: Path) -> dict[str, list[str]]:
    rules: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            current = rules.setdefault(line[1:], [])
        elif current is None:
            raise ValueError(f"{path.name}:{number}: a line before the first rule")
        else:
            current.append(line)
    return rules
