"""How near a step comes to what the machine could do: operations and bytes against measured peaks.

A step can't be faster than its operations at the machine's peak, nor than reading each weight once
and each stream's state, at the machine's bandwidth. The larger of the two is the roof; the share is
the roof over the measured step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import torch
from torch import Tensor

from nemotron_voice.bench.fresh_process import Progress, in_fresh_process
from nemotron_voice.bench.random_folder import resolve
from nemotron_voice.bench.steps import StepOptions, measure_here
from nemotron_voice.bench.subject import Subject
from nemotron_voice.config import FRAME_MS
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.precision import Arithmetic, Precision
from nemotron_voice.model.weights import expected_shapes

_BYTES: Final = {"fp32": 4, "bf16": 2, "int8": 1}
_GEMM: Final = (1_024, 1_024, 4_096)  # rows, inputs, outputs: compute bound, and a real shape
_READ_BYTES: Final = 1 << 30  # more than any cache holds
_BEST_OF: Final = 5
_STEP_STREAMS: Final = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Work:
    """What a step has to do at least."""

    operations: float  # multiplications and additions
    weight_bytes: float  # each weight once, whatever the number of streams
    state_bytes: float  # keys, values and convolution inputs read, the chunk's own written


def work_of(config: ModelConfig, precision: str, *, frames: int, streams: int) -> Work:
    """Count a step's work from the sizes.

    Each matrix passes each encoder frame once; K and V are cached, so nothing is projected twice.
    The decoder is counted at one joint a frame, as where nothing is emitted. Convolutions of the
    subsampling are counted by their outputs; norms, softmax and activations aren't counted.

    Args:
        config: sizes.
        precision: "fp32", "bf16" or "int8".
        frames: encoder frames of the chunk.
        streams: rows of the step.
    """
    rows = frames * streams
    matrices = _matrix_weights(config)
    keys = config.left_context + frames
    # Scores by content, scores by distance, and the weighted sum of the values.
    attention = 3 * keys * config.d_model * config.layers
    depthwise = config.conv_kernel * config.d_model * config.layers
    operations = 2 * rows * (matrices + attention + depthwise + _subsampling_products(config))
    size = _BYTES[precision]
    cache = 2 if precision == "bf16" else 4  # int8 rounds what goes into products, not the caches
    token = 2 * config.d_model * config.layers * cache  # K and V of one frame
    conv = (config.conv_kernel - 1) * config.d_model * config.layers * cache
    return Work(
        operations=operations,
        weight_bytes=matrices * size,
        state_bytes=streams * (token * (keys + frames) + 2 * conv),
    )


def _matrix_weights(config: ModelConfig) -> int:
    """Weights of all matrices that each frame is multiplied with."""
    skipped = (
        "subsampling.conv",  # counted by their outputs
        "subsampling.layers",
        "relative_k_proj",  # multiplied out when the network is loaded
        "depthwise_conv",
        "decoder.",  # runs once for each token, not for each frame
    )
    return sum(
        prod(shape)
        for name, shape in expected_shapes(config).items()
        if name.endswith("weight") and len(shape) > 1 and not any(part in name for part in skipped)
    )


def _subsampling_products(config: ModelConfig) -> int:
    """Multiplications of the three convolution stages, for one encoder frame (8 mel frames)."""
    first, second, third = config.map_sizes
    channels = config.subsampling_channels
    stem = 4 * first * channels * 9
    stages = (2 * second + third) * channels * (9 + channels)
    return stem + stages


def peaks(arithmetic: Arithmetic, device: torch.device) -> dict[str, float]:
    """Measure operations a second of a large product, and bytes a second of reading memory."""
    rows, inputs, outputs = _GEMM
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator).to(device)
    x = torch.randn(rows, inputs, generator=generator).to(device)
    precision = Precision(arithmetic)
    product = precision.block_linear("peak", lambda: weight)
    x = x.to(precision.dtype)
    block = torch.ones(_READ_BYTES // 4, device=device)
    reads: list[Callable[[], Tensor]] = [block.sum, block.max, lambda: torch.dot(block, block)]
    seconds = min(_best_s(read, device) for read in reads)
    return {
        "operations_per_s": 2 * rows * inputs * outputs / _best_s(lambda: product(x), device),
        "bytes_per_s": _READ_BYTES / seconds,
    }


@torch.inference_mode()
def _best_s(run: Callable[[], Any], device: torch.device) -> float:
    """The shortest of several runs, after one that isn't counted."""
    times = []
    for _ in range(1 + _BEST_OF):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def measure(
    subjects: Sequence[Subject], latencies_ms: tuple[int, ...], progress: Progress
) -> list[dict[str, Any]]:
    """A row for each subject, latency mode and 1, 8 and 32 streams.

    Peaks and steps are each measured in a process of their own: a large product leaves a team of
    threads behind, and beside a second team steps take twice as long.
    """
    options = StepOptions(latencies_ms=latencies_ms, streams=_STEP_STREAMS, steps=20)
    rows = []
    for subject in subjects:
        config, top = in_fresh_process(_peaks_here, subject, progress)
        rows += [
            _row(config, subject.precision, top, row)
            for row in in_fresh_process(measure_here, subject, options, progress)
        ]
    return rows


def _peaks_here(subject: Subject, progress: Progress) -> tuple[ModelConfig, dict[str, float]]:
    """The model's sizes, and what the machine could do with them."""
    if subject.precision == "auto":
        raise ValueError("a roof belongs to one precision; make the subject by Subject.of")
    config = load_checkpoint(resolve(subject.model)).config
    if subject.threads is not None:
        torch.set_num_threads(subject.threads)
    top = peaks(subject.precision, torch.device(subject.device))
    progress(
        f"{subject.precision}: {top['operations_per_s'] / 1e9:.0f} G operations/s in a large "
        f"product, {top['bytes_per_s'] / 1e9:.1f} GB/s read"
    )
    return config, top


def _row(
    config: ModelConfig, precision: str, top: dict[str, float], step: dict[str, Any]
) -> dict[str, Any]:
    work = work_of(
        config, precision, frames=step["latency_ms"] // FRAME_MS, streams=step["streams"]
    )
    compute_ms = 1e3 * work.operations / top["operations_per_s"]
    memory_ms = 1e3 * (work.weight_bytes + work.state_bytes) / top["bytes_per_s"]
    step_ms = step["step_ms"]["p50"]
    return {
        "model": step["model"],
        "precision": precision,
        "threads": step["threads"],
        "latency_ms": step["latency_ms"],
        "streams": step["streams"],
        "giga_operations": round(work.operations / 1e9, 2),
        "weight_mb": round(work.weight_bytes / 1e6, 1),
        "state_mb": round(work.state_bytes / 1e6, 1),
        "peak_giga_operations_per_s": round(top["operations_per_s"] / 1e9, 1),
        "peak_gb_per_s": round(top["bytes_per_s"] / 1e9, 1),
        "compute_ms": round(compute_ms, 3),
        "memory_ms": round(memory_ms, 3),
        "step_ms": step_ms,
        "bound_by": "compute" if compute_ms > memory_ms else "memory",
        "share_of_roof": round(max(compute_ms, memory_ms) / step_ms, 3),
    }
