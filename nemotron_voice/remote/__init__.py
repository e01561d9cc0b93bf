"""A Recognizer at the other end of a socket: as an Engine, plus reconnect and replay."""

from nemotron_voice.remote.engine import RemoteEngine
from nemotron_voice.remote.stream import RemoteStream

__all__ = ["RemoteEngine", "RemoteStream"]
