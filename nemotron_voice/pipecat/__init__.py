"""Pipecat: a streaming STT service, and a processor that lets the bot change language mid-call.

Needs the extra: `pip install "nemotron-voice[pipecat]"`.
"""

from nemotron_voice.pipecat.language_switcher import NemotronLanguageSwitcher
from nemotron_voice.pipecat.stt import NEMOTRON_TTFS_P99, NemotronSTTService, NemotronSTTSettings

__all__ = [
    "NEMOTRON_TTFS_P99",
    "NemotronLanguageSwitcher",
    "NemotronSTTService",
    "NemotronSTTSettings",
]
