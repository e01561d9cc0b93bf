"""One engine per name and process; a name that takes long keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from nemotron_voice import shared_engine as module
from nemotron_voice.errors import ServerUnreachableError
from nemotron_voice.recognizer import Recognizer
from nemotron_voice.shared_engine import prewarm, shared_engine
from tests.scripted_recognizer import ScriptedRecognizer

DEAD = "ws://dead:8080"
Loads = list[str]


@pytest.fixture
def dead() -> Iterator[threading.Event]:
    """Set: connecting to DEAD fails; until then it waits."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, dead: threading.Event) -> Loads:
    """The names that engines were made of; the process' own engines aren't touched."""
    names: Loads = []

    def make(name: str) -> Recognizer:
        names.append(name)
        if name == DEAD:
            assert dead.wait(10.0)
            raise ServerUnreachableError(f"{DEAD} does not answer")
        return ScriptedRecognizer()

    monkeypatch.setattr(module, "_engines", {})
    monkeypatch.setattr(module, "_connect", make)
    monkeypatch.setattr(module, "_load_here", make)
    return names


async def test_a_name_has_one_engine_however_many_ask_for_it(loads: Loads) -> None:
    engines = await asyncio.gather(*(shared_engine("demo") for _ in range(20)))
    assert all(engine is engines[0] for engine in engines)
    assert loads == ["demo"]


async def test_a_dead_server_keeps_no_other_engine_waiting(
    loads: Loads, dead: threading.Event
) -> None:
    loaded = await shared_engine("demo")
    waiting = [asyncio.create_task(shared_engine(DEAD)) for _ in range(50)]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(2.0):
        assert await shared_engine("demo") is loaded
        await shared_engine("another")
        await asyncio.to_thread(int)  # nor what else the process does on threads
    dead.set()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(failure) for failure in failures} == {ServerUnreachableError}
    assert loads == ["demo", DEAD, "another"], "those that waited share the first one's failure"


async def test_after_a_failure_the_next_call_tries_again(
    loads: Loads, dead: threading.Event
) -> None:
    dead.set()
    for _ in range(2):
        with pytest.raises(ServerUnreachableError):
            await shared_engine(DEAD)
    assert loads == [DEAD, DEAD]


async def test_a_call_that_is_cancelled_leaves_the_engine_to_the_others(
    loads: Loads, dead: threading.Event
) -> None:
    first, second = (asyncio.create_task(shared_engine(DEAD)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    dead.set()
    with pytest.raises(ServerUnreachableError):
        await second
    assert loads == [DEAD]


async def test_prewarm_returns_at_once_and_logs_what_failed(
    loads: Loads, dead: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, module.__name__)
    prewarm(DEAD)
    prewarm("demo")
    assert await shared_engine("demo")
    dead.set()
    with pytest.raises(ServerUnreachableError):
        await shared_engine(DEAD)
    assert sorted(loads) == ["demo", DEAD]
    await _within(lambda: "does not answer" in caplog.text)


async def _within(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(2.0):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
