"""LiveKit Agents: a streaming STT plugin, and a helper that lets the agent change language.

Needs the extra: `pip install "nemotron-voice[livekit]"`. The same as `livekit.plugins.nemotron`.
"""

from nemotron_voice.livekit.language_switching import (
    DEFAULT_INSTRUCTION,
    LanguageSwitcher,
    switch_language,
)
from nemotron_voice.livekit.stream import RecognizeStream
from nemotron_voice.livekit.stt import STT

__all__ = ["DEFAULT_INSTRUCTION", "STT", "LanguageSwitcher", "RecognizeStream", "switch_language"]
