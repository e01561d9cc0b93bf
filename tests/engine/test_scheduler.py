"""One latency mode a step, the earliest deadline first, nobody starved."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from nemotron_voice.engine.scheduler import Ready, Scheduler

if TYPE_CHECKING:
    from nemotron_voice.engine.stream import Stream


def _ready(stream: Any, lookahead: int, deadline: float) -> Ready:
    return Ready(stream, lookahead, 0.0, deadline)


def streams_of(batch: list[Ready] | None) -> list[Any] | None:
    return None if batch is None else [ready.stream for ready in batch]


def test_a_batch_has_one_mode_and_the_earliest_deadline_leads() -> None:
    scheduler = Scheduler(max_batch=8)
    for name, lookahead, deadline in (("a", 3, 5.0), ("b", 0, 1.0), ("c", 3, 2.0), ("d", 0, 9.0)):
        scheduler.offer(_ready(name, lookahead, deadline))
    assert streams_of(scheduler.next_batch()) == ["b", "d"]
    assert streams_of(scheduler.next_batch()) == ["c", "a"]
    assert scheduler.waiting == 0


def test_a_full_batch_leaves_the_latest_deadlines_for_the_next() -> None:
    scheduler = Scheduler(max_batch=2)
    for deadline in (3.0, 1.0, 2.0):
        scheduler.offer(_ready(deadline, 3, deadline))
    assert streams_of(scheduler.next_batch()) == [1.0, 2.0]
    assert streams_of(scheduler.next_batch()) == [3.0]


def test_a_stream_that_has_ended_takes_no_place_in_a_batch() -> None:
    scheduler = Scheduler(max_batch=2)
    for deadline in (1.0, 2.0, 3.0):
        scheduler.offer(_ready(deadline, 3, deadline))
    scheduler.withdraw(cast("Stream", 1.0))
    assert streams_of(scheduler.next_batch()) == [2.0, 3.0]


def test_close_wakes_the_device_thread() -> None:
    scheduler = Scheduler(max_batch=2)
    taken: list[object] = ["not yet"]
    thread = threading.Thread(target=lambda: taken.append(streams_of(scheduler.next_batch())))
    thread.start()
    scheduler.close()
    thread.join(5)
    assert taken[-1] is None
    scheduler.offer(_ready("late", 3, 0.0))
    assert scheduler.next_batch() is None
