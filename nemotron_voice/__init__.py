"""Nemotron 3.5 ASR, streamed for many callers from one process.

    from nemotron_voice import Engine, StreamOptions

    engine = Engine.load("demo")
    stream = engine.open(StreamOptions(language="auto", sample_rate=8000, latency_ms=160))

Importing this package is cheap: names are fetched when first used, so neither torch nor a thread
comes with it (frameworks preload plug-ins in processes that they fork).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemotron_voice.config import EngineOptions, StreamOptions
    from nemotron_voice.engine import Engine, Stream
    from nemotron_voice.errors import (
        AmbiguousLanguageError,
        AudioDecodeError,
        AudioError,
        AudioFormatError,
        AudioOverflowError,
        CheckpointError,
        CheckpointFormatError,
        ConfigurationError,
        EngineClosedError,
        EngineError,
        EngineFullError,
        MissingWeightError,
        ModelError,
        ModelNotFoundError,
        NemotronVoiceError,
        ProtocolError,
        ServerError,
        ServerRefusedError,
        ServerUnreachableError,
        SlowConsumerError,
        StepFailedError,
        StreamClosedError,
        StreamError,
        UnexpectedWeightError,
        UnknownLanguageError,
        UnsafeArchiveError,
        UnsupportedLanguageError,
        UnsupportedLatencyError,
        UnsupportedSampleRateError,
        WeightShapeError,
    )
    from nemotron_voice.languages import Locale
    from nemotron_voice.recognizer import Recognizer, RecognizerStream
    from nemotron_voice.remote import RemoteEngine, RemoteStream
    from nemotron_voice.transcript import LanguageRun, Transcript, Word, join_texts

__version__ = "0.1.0"

__all__ = [
    "AmbiguousLanguageError",
    "AudioDecodeError",
    "AudioError",
    "AudioFormatError",
    "AudioOverflowError",
    "CheckpointError",
    "CheckpointFormatError",
    "ConfigurationError",
    "Engine",
    "EngineClosedError",
    "EngineError",
    "EngineFullError",
    "EngineOptions",
    "LanguageRun",
    "Locale",
    "MissingWeightError",
    "ModelError",
    "ModelNotFoundError",
    "NemotronVoiceError",
    "ProtocolError",
    "Recognizer",
    "RecognizerStream",
    "RemoteEngine",
    "RemoteStream",
    "ServerError",
    "ServerRefusedError",
    "ServerUnreachableError",
    "SlowConsumerError",
    "StepFailedError",
    "Stream",
    "StreamClosedError",
    "StreamError",
    "StreamOptions",
    "Transcript",
    "UnexpectedWeightError",
    "UnknownLanguageError",
    "UnsafeArchiveError",
    "UnsupportedLanguageError",
    "UnsupportedLatencyError",
    "UnsupportedSampleRateError",
    "WeightShapeError",
    "Word",
    "__version__",
    "join_texts",
]

_HOME = {
    "Engine": "engine",
    "EngineOptions": "config",
    "LanguageRun": "transcript",
    "Locale": "languages",
    "Recognizer": "recognizer",
    "RecognizerStream": "recognizer",
    "RemoteEngine": "remote",
    "RemoteStream": "remote",
    "Stream": "engine",
    "StreamOptions": "config",
    "Transcript": "transcript",
    "Word": "transcript",
    "join_texts": "transcript",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
