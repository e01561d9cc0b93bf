"""A recogniser in this process: slots (memory), scheduler (policy), runner (device), streams."""

from nemotron_voice.engine.engine import Engine, EngineStats
from nemotron_voice.engine.stream import Stream

__all__ = ["Engine", "EngineStats", "Stream"]
