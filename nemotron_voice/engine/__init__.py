"""A recogniser in this process: slots (memory), scheduler (policy), runner (device), streams."""

from nemotron_voice.engine.engine import Engine, EngineStats, StepReport
from nemotron_voice.engine.stream import Stream

__all__ = ["Engine", "EngineStats", "StepReport", "Stream"]
