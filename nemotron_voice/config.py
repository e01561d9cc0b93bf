"""What a caller can choose: options of a stream and of an engine, refused at construction.

Latency modes are the network's chunk sizes [model card]: a chunk of R + 1 encoder frames of 80 ms
is decoded once its R frames of look-ahead have come.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from nemotron_voice import languages
from nemotron_voice.errors import (
    AmbiguousLanguageError,
    ConfigurationError,
    UnsupportedLatencyError,
    UnsupportedSampleRateError,
)

DEFAULT_MODEL: Final = "nvidia/nemotron-3.5-asr-streaming-0.6b"
FRAME_MS: Final = 80
LATENCIES_MS: Final = (80, 160, 320, 560, 1120)
MIN_SAMPLE_RATE: Final = 8_000
MAX_SAMPLE_RATE: Final = 48_000
_BATCH_CPU: Final = 32
_BATCH_GPU: Final = 256

Finalize = Literal["flush", "sentence"]
Precision = Literal["auto", "fp32", "bf16", "int8"]

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def lookahead_of(latency_ms: int) -> int:
    """Encoder frames of look-ahead (the R of `att_context_size` [56, R]) of a latency mode.

    Raises:
        UnsupportedLatencyError: not one of LATENCIES_MS.
    """
    if isinstance(latency_ms, bool) or latency_ms not in LATENCIES_MS:
        allowed = ", ".join(str(mode) for mode in LATENCIES_MS)
        raise UnsupportedLatencyError(
            f"latency_ms={latency_ms!r} is not a mode of the network; choose one of {allowed} "
            "(smaller answers sooner, larger hears better; 320 is the checkpoint's default)"
        )
    return int(latency_ms) // FRAME_MS - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How one caller's audio is to be heard.

    StreamOptions(language="es-ES", sample_rate=8000, latency_ms=160)

    Raises:
        ConfigurationError: or one of its kinds, naming the value, what is allowed and the remedy.
    """

    language: object = languages.AUTO  # "auto", or any name that languages.resolve() takes
    sample_rate: int = 16_000  # Hz of the audio pushed, 8,000 to 48,000
    latency_ms: int = 320  # audio per chunk, one of LATENCIES_MS; may change during the call
    interim_results: bool = True  # also yield provisional text
    finalize: Finalize = "flush"  # finals on flush only, or also when a sentence ends
    max_buffered_s: float = 30.0  # seconds of undecoded audio before push() refuses more

    def __post_init__(self) -> None:
        """Refuse what no engine could serve; what one model lacks, `Engine.open` refuses."""
        with contextlib.suppress(AmbiguousLanguageError):  # a model may have just one of them
            languages.resolve(self.language)
        lookahead_of(self.latency_ms)
        check_sample_rate(self.sample_rate)
        _check_choice("finalize", self.finalize, get_args(Finalize))
        if not 0 < self.max_buffered_s < float("inf"):
            raise ConfigurationError(
                f"max_buffered_s={self.max_buffered_s!r} must be a positive number of seconds; "
                "the default is 30"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What one engine may use.

    EngineOptions(device="cuda:0", precision="bf16", max_streams=256)

    Raises:
        ConfigurationError: naming the value, what is allowed and the remedy.
    """

    device: str = "auto"  # "auto" (a GPU if there is one), "cpu", "cuda", "cuda:N"
    # "auto": bf16 on a GPU; on a CPU int8 for more than 100 M weights, else fp32
    precision: Precision = "auto"
    max_streams: int = 64  # slots allocated at start; one more stream is refused
    max_batch: int | None = None  # streams in one step at most; None: `batch_on` says
    threads: int | None = None  # CPU threads of the network; None leaves torch's choice
    cuda_graphs: bool = True  # on a GPU; False starts at once and steps several times slower

    def __post_init__(self) -> None:
        """Refuse what no machine could run."""
        if not isinstance(self.device, str) or not _DEVICE.fullmatch(self.device):
            raise ConfigurationError(
                f"device={self.device!r} is not a device; choose 'auto', 'cpu', 'cuda' or 'cuda:N'"
            )
        _check_choice("precision", self.precision, get_args(Precision))
        _check_at_least_one("max_streams", self.max_streams)
        if self.max_batch is not None:
            _check_at_least_one("max_batch", self.max_batch)
        if self.threads is not None:
            _check_at_least_one("threads", self.threads)

    def batch_on(self, device: str) -> int:
        """Streams in one step at most, on a device of the type "cpu" or "cuda".

        By default no more than there are: on a CPU 32, as larger steps make everybody wait and gain
        nothing; on a GPU 256, where 80 ms of each are more than the 184 rows from which an H100 is
        busy with arithmetic rather than with reading the weights. Each takes a row of memory beside
        the streams' (7.3 MB in the real size, bf16), for forks.
        """
        if self.max_batch is not None:
            return self.max_batch
        return min(self.max_streams, _BATCH_CPU if device == "cpu" else _BATCH_GPU)


def all_but_one() -> int:
    """Threads of the network beside a core for the sockets.

    On a core that is shared with the event loop, each of the network's parallel loops waits for the
    slowest thread: on two cores 20 callers were heard worse with two threads than with one.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


def check_sample_rate(sample_rate: int) -> None:
    """Refuse a rate outside 8-48 kHz.

    Raises:
        UnsupportedSampleRateError.
    """
    whole = isinstance(sample_rate, int) and not isinstance(sample_rate, bool)
    if not whole or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise UnsupportedSampleRateError(
            f"sample_rate={sample_rate!r} is not a whole number of Hz from {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE}; give the rate at which the audio really comes (8000 for "
            "telephony, 16000, 24000, 48000, ...): it is resampled here"
        )


def _check_choice(option: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed)
        raise ConfigurationError(f"{option}={value!r} is not an option; choose one of {choices}")


def _check_at_least_one(option: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{option}={value!r} must be a whole number, 1 or more")
