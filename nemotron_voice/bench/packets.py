"""What a packet costs on its way in: Stream.push, without the network's steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nemotron_voice.bench.fresh_process import Progress
from nemotron_voice.bench.percentiles import percentiles_ms
from nemotron_voice.bench.speech import recordings
from nemotron_voice.config import StreamOptions, lookahead_of
from nemotron_voice.engine.runner import Outcome
from nemotron_voice.engine.scheduler import Ready
from nemotron_voice.engine.stream import Stream
from nemotron_voice.languages import AUTO_PROMPT_INDEX
from nemotron_voice.model.config import LOOKAHEADS
from nemotron_voice.transcript import Token

PACKETS_MS: Final = (10, 20, 50)
SAMPLE_RATES: Final = (8_000, 16_000, 48_000)
_SECONDS: Final = 20  # of audio, a row; twice, and the first time isn't counted


@dataclass(slots=True)
class _NoEngine:
    """Takes steps and never runs the network: a Host for one stream."""

    ready: bool = False

    @property
    def lookaheads(self) -> tuple[int, ...]:
        return LOOKAHEADS

    def offer(self, ready: Ready) -> None:  # noqa: ARG002 - there is but one stream
        self.ready = True

    def release(self, stream: Stream) -> None:
        """Nothing is held."""

    def token(self, emission: Any, offset: int = 0) -> Token:
        raise NotImplementedError(f"no network has emitted {emission} at {offset}")

    def resolve_language(self, language: object) -> tuple[int, str | None]:  # noqa: ARG002
        return AUTO_PROMPT_INDEX, None

    def resolve_latency(self, latency_ms: int) -> int:
        return lookahead_of(latency_ms)


def measure(progress: Progress) -> list[dict[str, Any]]:
    """A row for each sample rate and length of packets."""
    rows = []
    for sample_rate in SAMPLE_RATES:
        for packet_ms in PACKETS_MS:
            _push_times(sample_rate, packet_ms)
            times_s = _push_times(sample_rate, packet_ms)
            mean_s = float(np.mean(times_s))
            row = {
                "sample_rate": sample_rate,
                "packet_ms": packet_ms,
                "push_us": {
                    name: round(1e3 * ms, 2)
                    for name, ms in percentiles_ms(times_s, 50, 99).items()
                    if ms is not None
                },
                "mean_us": round(1e6 * mean_s, 2),
                "packets_per_s": round(1 / mean_s),
                # Callers whose packets would fill one core.
                "callers_a_core": round(packet_ms / 1000 / mean_s),
            }
            rows.append(row)
            progress(
                f"{sample_rate:>6} Hz, {packet_ms} ms packets: {row['mean_us']} µs each, "
                f"{row['packets_per_s']} a second"
            )
    return rows


def _push_times(sample_rate: int, packet_ms: int) -> list[float]:
    """Seconds of each push of PCM16; steps are answered between two pushes, off the clock."""
    size = sample_rate * packet_ms // 1000
    speech = recordings()[0].samples
    # Speech at the wrong rate costs the same.
    pcm = (np.resize(speech, size * (1000 * _SECONDS // packet_ms)) * 32_767).astype("<i2")
    packets = [pcm[at : at + size].tobytes() for at in range(0, pcm.size, size)]
    host = _NoEngine()
    stream = Stream(host, 0, StreamOptions(sample_rate=sample_rate))
    times_s = []
    for packet in packets:
        began = time.perf_counter()
        stream.push(packet)
        times_s.append(time.perf_counter() - began)
        while host.ready:
            host.ready = False
            stream.take_work()
            stream.accept(Outcome([]))
    return times_s
