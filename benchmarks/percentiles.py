"""Waits as percentiles, and as a table's cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

SHARES = {"p50": 50, "p95": 95, "p99": 99}


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds; of nothing, 0."""
    return {
        name: round(1e3 * float(np.percentile(seconds or [0.0], share)), 1)
        for name, share in SHARES.items()
    }


def cell(ms: Mapping[str, float]) -> str:
    """Percentiles in one cell of a table in Markdown."""
    return " / ".join(f"{ms[name]:.0f}" for name in SHARES) + " ms"
