"""Many times as a few numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def percentiles_ms(seconds: Sequence[float], *shares: int) -> dict[str, float | None]:
    """Percentiles in milliseconds, {"p50": 12.345}; of nothing, None."""
    return {
        f"p{share}": round(1e3 * float(np.percentile(seconds, share)), 3) if len(seconds) else None
        for share in shares
    }


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Median and range of repeated measurements."""
    return {
        "median": round(float(np.median(values)), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }
