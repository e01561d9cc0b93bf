"""A row has one user at a time, and a full slab says so."""

from __future__ import annotations

import pytest

from nemotron_voice.engine.slots import Slots
from nemotron_voice.errors import EngineFullError


def test_rows_are_different_until_given_back() -> None:
    slots = Slots(3)
    rows = {slots.take() for _ in range(3)}
    assert rows == {0, 1, 2}
    with pytest.raises(EngineFullError, match=r"all 3 .*max_streams"):
        slots.take()
    slots.give_back(1)
    assert slots.used == 2
    assert slots.take() == 1


@pytest.mark.parametrize("row", [0, 5, -1])
def test_a_row_that_is_not_taken_cannot_be_given_back(row: int) -> None:
    slots = Slots(2)
    with pytest.raises(ValueError, match="not taken"):
        slots.give_back(row)
