"""The closed domain of the bundled checkpoint: what callers of a restaurant say, as text."""

from training.corpus.grammar import LANGUAGES, Grammar
from training.corpus.plan import CorpusPlan, Utterance

__all__ = ["LANGUAGES", "CorpusPlan", "Grammar", "Utterance"]
