"""Figures on disk: what was measured, when, and on which machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nemotron_voice.bench.fresh_process import MeasurementError
from nemotron_voice.bench.machine import describe


def results_of(benchmark: str, measured: Any) -> dict[str, Any]:
    """Put the machine and the time to what was measured.

    Args:
        benchmark: its name, which `report.table` goes by.
        measured: rows, or a mapping; as JSON has them.
    """
    return {
        "benchmark": benchmark,
        "machine": describe(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "results": measured,
    }


def write(results: dict[str, Any], path: Path) -> None:
    """Write results as JSON, folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read what `write` wrote.

    Raises:
        MeasurementError: it isn't that.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeasurementError(f"{path} holds no results: {error}") from error
    if not isinstance(results, dict) or not {"benchmark", "results", "machine"} <= set(results):
        raise MeasurementError(f"{path} holds no results of `nemotron-voice bench --output`")
    return results
