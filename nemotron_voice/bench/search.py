"""The largest number that holds, in few trials."""

from __future__ import annotations

from collections.abc import Callable


def largest(
    holds: Callable[[int], bool],
    *,
    start: int = 4,
    most: int = 100_000,
    resolution: float = 0.05,
    low: int = 0,
    high: int | None = None,
) -> int:
    """Double until one doesn't hold, then halve what is left.

    Args:
        holds: whether so many hold; asked once for each number.
        start: the first number asked for, if nothing is known.
        most: no more than this is asked for.
        resolution: stop where the answer is known to this share of it, or to 1.
        low: known to hold.
        high: known not to hold; None: nothing is known.

    Returns:
        The largest number that held; 0 if none did.
    """
    number = min(max(start, 2 * low), most)
    while high is None and low < most:
        if holds(number):
            low, number = number, min(2 * number, most)
        else:
            high = number
    while high is not None and high - low > max(1, round(resolution * high)):
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
