"""One peer's steps, in a process of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.nemo_peer import NemoPeer
from benchmarks.peers.onnx_peer import OnnxPeer
from benchmarks.peers.peer import LEFT_CONTEXT, Peer
from benchmarks.peers.pipeline_peer import PipelinePeer
from benchmarks.peers.sherpa_peer import SherpaPeer
from benchmarks.peers.transformers_peer import TransformersPeer
from nemotron_voice.bench import steps
from nemotron_voice.bench.subject import Subject
from nemotron_voice.config import Precision, lookahead_of

PEERS: dict[str, tuple[Callable[[Path, str], Peer], str]] = {
    "sherpa-onnx int8": (SherpaPeer, "int8"),
    "ONNX Runtime int8": (OnnxPeer, "int8"),
    "Transformers bf16": (TransformersPeer, "bf16"),
    "Transformers fp32": (TransformersPeer, "fp32"),
    "NeMo bf16": (NemoPeer, "bf16"),
    "NeMo fp32": (NemoPeer, "fp32"),
    "NeMo pipeline fp32": (PipelinePeer, "fp32"),
}
OURS: dict[str, Precision] = {"ours, int8": "int8", "ours, bf16": "bf16", "ours, fp32": "fp32"}
FEWEST, MOST = 3, 15  # steps that a median is taken of
TOO_SLOW = 4.0  # times slower than real time: no more streams are tried


def measure(peer: Peer, latency_ms: int, streams: int, budget_s: float) -> dict[str, Any]:
    """Time the steps of one mode and number of streams."""
    lookahead = lookahead_of(latency_ms)
    step = peer.stream(lookahead, streams)
    began = time.perf_counter()
    # The cost hardly depends on how full the caches are, but they are: within reason.
    for _ in range(math.ceil(LEFT_CONTEXT / (lookahead + 1)) + 1):
        step()
        if time.perf_counter() - began > budget_s:
            break
    took = []
    began = time.perf_counter()
    while len(took) < FEWEST or (len(took) < MOST and time.perf_counter() - began < budget_s):
        at = time.perf_counter()
        step()
        took.append(time.perf_counter() - at)
    low, middle, high = (1000 * float(np.percentile(took, share)) for share in (10, 50, 90))
    return {
        "latency_ms": latency_ms,
        "streams": streams,
        "steps": len(took),
        "step_ms": {"p10": round(low, 1), "p50": round(middle, 1), "p90": round(high, 1)},
        "real_time_factor": round(middle / latency_ms, 4),
    }


def run(name: str, folder: Path, cells: list[tuple[int, int]], budget_s: float, out: Any) -> None:
    """Measure one peer, or ourselves, in a process of its own."""
    if name in OURS:
        _run_ours(name, folder, cells, budget_s, out)
        out.put(None)
        return
    make, precision = PEERS[name]
    peer = make(folder, precision)
    slow: set[int] = set()
    for latency_ms, streams in cells:
        if latency_ms in slow:
            continue
        row = measure(peer, latency_ms, streams, budget_s) | {"peer": name}
        if row["real_time_factor"] > TOO_SLOW:
            slow.add(latency_ms)
        out.put(row)
    out.put(None)


def _run_ours(
    name: str, folder: Path, cells: list[tuple[int, int]], budget_s: float, out: Any
) -> None:
    """From one step's end to the next one's, so that windows and text are in it."""
    options = steps.StepOptions(
        latencies_ms=tuple(dict.fromkeys(latency for latency, _ in cells)),
        streams=tuple(dict.fromkeys(streams for _, streams in cells)),
        steps=MOST,
        budget_s=budget_s,
    )
    subject = Subject(model=str(folder), precision=OURS[name], threads=torch.get_num_threads())
    for row in steps.measure_here(subject, options, lambda _: None):
        out.put(
            {
                "peer": name,
                **{key: row[key] for key in ("latency_ms", "streams", "steps")},
                "step_ms": row["cycle_ms"],
                "real_time_factor": row["cycle_factor"],
            }
        )
