"""Everything that goes wrong here, by name: one tree, to be caught as wide as one likes.

    NemotronVoiceError
    ├── ConfigurationError (ValueError)    an option has no such value
    │   ├── UnknownLanguageError           no locale goes by that name
    │   ├── AmbiguousLanguageError         several do
    │   ├── UnsupportedLanguageError       the locale exists; this model lacks it
    │   ├── UnsupportedLatencyError
    │   └── UnsupportedSampleRateError
    ├── AudioError (ValueError)
    │   ├── AudioFormatError               PCM: odd byte count, NaN, several channels, dtype
    │   └── AudioDecodeError               a file: missing, empty, truncated, not audio
    ├── ModelError
    │   ├── ModelNotFoundError             no such file, or the hub can't be reached
    │   └── CheckpointError                it was found and can't be used
    │       ├── UnsafeArchiveError         a .nemo with a hostile or unexpected member
    │       ├── MissingWeightError
    │       ├── UnexpectedWeightError
    │       ├── WeightShapeError
    │       └── CheckpointFormatError      config, tokenizer or container make no sense
    ├── StreamError
    │   ├── StreamClosedError
    │   ├── AudioOverflowError             the queue is at its bound; nothing of that push was taken
    │   └── SlowConsumerError              transcripts are not being read
    └── EngineError
        ├── EngineFullError                every slot is taken
        ├── EngineClosedError
        ├── StepFailedError                the network failed on this stream's step
        └── ServerError                    a recogniser behind a socket
            ├── ServerUnreachableError     no server answers, or none did for too long
            ├── ServerRefusedError         a wrong key or origin, or a limit of the server
            └── ProtocolError (ValueError) what came over the wire makes no sense

Each message gives the value, what is allowed, and what to do.
"""

from __future__ import annotations


class NemotronVoiceError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(NemotronVoiceError, ValueError):
    """An option has no such value."""


class UnknownLanguageError(ConfigurationError):
    """No locale goes by that name."""


class AmbiguousLanguageError(ConfigurationError):
    """Several locales go by that name, and neither is the obvious one."""


class UnsupportedLanguageError(ConfigurationError):
    """The name means a locale that the model wasn't trained for."""


class UnsupportedLatencyError(ConfigurationError):
    """The network has no such chunk size."""


class UnsupportedSampleRateError(ConfigurationError):
    """A sample rate outside 8-48 kHz."""


class AudioError(NemotronVoiceError, ValueError):
    """Audio that can't be taken; what came before it is untouched."""


class AudioFormatError(AudioError):
    """PCM that isn't what the stream was opened for; nothing of it was taken."""


class AudioDecodeError(AudioError):
    """A file that can't be read as audio, or not to its end."""


class ModelError(NemotronVoiceError):
    """A model can't be loaded."""


class ModelNotFoundError(ModelError):
    """There is no such model here, and it couldn't be fetched."""


class CheckpointError(ModelError):
    """A checkpoint was found and can't be used."""


class UnsafeArchiveError(CheckpointError):
    """An archive with a member that a checkpoint has no need of; nothing was unpacked."""


class MissingWeightError(CheckpointError):
    """The network needs a tensor that the checkpoint lacks."""


class UnexpectedWeightError(CheckpointError):
    """The checkpoint has a tensor that the network doesn't know."""


class WeightShapeError(CheckpointError):
    """A tensor has another shape than the configuration says."""


class CheckpointFormatError(CheckpointError):
    """Configuration, tokenizer or container of a checkpoint can't be understood."""


class StreamError(NemotronVoiceError):
    """A stream can't do what it was asked; other streams don't notice."""


class StreamClosedError(StreamError):
    """The stream has ended."""


class AudioOverflowError(StreamError):
    """The stream's audio queue is at its bound; nothing of that push was taken."""


class SlowConsumerError(StreamError):
    """Transcripts are not being read as fast as they are made."""


class EngineError(NemotronVoiceError):
    """The engine can't serve a request."""


class EngineFullError(EngineError):
    """Every slot is taken; the streams that hold them don't notice."""


class EngineClosedError(EngineError):
    """The engine has been closed, or its device thread has failed."""


class StepFailedError(EngineError):
    """The network failed on a step of this stream; the engine goes on."""


class ServerError(EngineError):
    """A recogniser at the other end of a socket can't serve a request."""


class ServerUnreachableError(ServerError):
    """No server answers, or none has for longer than a stream may wait."""


class ServerRefusedError(ServerError):
    """The server answers and won't serve: a wrong key or origin, or one of its limits."""


class ProtocolError(ServerError, ValueError):
    """What came over the wire isn't the protocol."""


def is_permanent(error: NemotronVoiceError) -> bool:
    """Whether trying again would end the same way, so that only new settings can help."""
    return isinstance(
        error, ConfigurationError | AudioError | ModelError | ServerRefusedError | ProtocolError
    )
