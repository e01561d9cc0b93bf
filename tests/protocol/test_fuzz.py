"""Only documented errors come out of the parsers; benchmarks.protocol_fuzz does it for longer."""

from __future__ import annotations

import pytest

from benchmarks.protocol_fuzz import TARGETS, fuzz


@pytest.mark.parametrize("seed", [11, 12])
def test_mutated_input_is_understood_or_refused_with_a_documented_error(seed: int) -> None:
    figures = fuzz(10_000, seed)
    assert figures["found"] == []
    for name in TARGETS:
        target = figures["targets"][name]
        refused = sum(target["refused"].values())
        assert 0 < refused < target["inputs"], f"{name}: all or nothing is refused: tells nothing"
