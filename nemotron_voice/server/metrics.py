"""What the server measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from nemotron_voice.engine import Engine, StepReport

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)


class Metrics:
    """The metrics of one app; each app has a registry of its own."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(engine))

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(
                f"nemotron_{name}_seconds", what, ["latency_ms"], buckets=_SECONDS,
                registry=self.registry,
            )  # fmt: skip

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"nemotron_{name}", what, labels, registry=self.registry)

        self.step = seconds("step", "One step of the network, for all streams that share it")
        self.wait = seconds("queue_wait", "From a stream's full chunk to the begin of its step")
        self.late = seconds("lateness", "From a chunk's deadline to the end of its step; 0 in time")
        self.final = seconds("time_to_final", "From Finalize, or the end of speech, to its answer")
        self.refused = counter("refused", "Connections and requests not served", "reason")
        self.ended = counter("connections_ended", "Connections by WebSocket close code", "code")
        self.audio = counter("audio_seconds", "Audio heard", "latency_ms")
        self.files = counter("files", "Files transcribed over HTTP", "route")
        engine.observe(self._step)

    def _step(self, report: StepReport) -> None:
        mode = str(report.latency_ms)
        self.step.labels(mode).observe(report.step_s)
        waits, late = self.wait.labels(mode), self.late.labels(mode)
        for wait_s, late_s in zip(report.waits_s, report.late_s, strict=True):
            waits.observe(wait_s)
            late.observe(max(0.0, late_s))

    def to_text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """The engine's own figures, read when they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        for name, what, value in (
            ("slots_used", "Streams that hold a slot", stats.streams),
            ("slots", "Streams that the engine can hold", stats.max_streams),
            (
                "streams_waiting",
                "Streams with a full chunk that waits",
                stats.waiting,
            ),
            ("state_bytes", "Memory of all streams' states", stats.state_bytes),
        ):
            yield GaugeMetricFamily(f"nemotron_{name}", what, value)
