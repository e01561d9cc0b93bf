"""`livekit_room_transcriber.py` in rooms that change, on networks that fail."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("livekit.agents")

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "agents"))

import livekit_room_transcriber as example


class Session:
    """An AgentSession that takes its time to start."""

    async def start(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0.05)

    def on(self, *_: Any) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Room:
    def __init__(self, *identities: str) -> None:
        self.remote_participants: dict[str, Any] = {}
        self._told: dict[str, Callable[[Any], None]] = {}
        for identity in identities:
            self.enter(identity)

    def on(self, event: str, callback: Callable[[Any], None]) -> None:
        self._told[event] = callback

    def enter(self, identity: str) -> None:
        one = self.remote_participants[identity] = SimpleNamespace(identity=identity)
        if "participant_connected" in self._told:
            self._told["participant_connected"](one)


class Job:
    """A JobContext; `meanwhile` happens while it connects."""

    def __init__(self, room: Room, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.room = room
        self._meanwhile = meanwhile
        self.ends: list[Any] = []

    def add_shutdown_callback(self, callback: Any) -> None:
        self.ends.append(callback)

    async def connect(self, **_: Any) -> None:
        self._meanwhile()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose sessions were opened, in order."""
    identities: list[str] = []

    class Participant(example.Participant):
        def __init__(self, identity: str, *rest: Any) -> None:
            identities.append(identity)
            super().__init__(identity, *rest)

    monkeypatch.setattr(example, "AgentSession", lambda **_: Session())
    monkeypatch.setattr(example, "Participant", Participant)
    return identities


async def test_who_comes_while_the_first_ones_are_joined_is_heard_as_well(
    opened: list[str],
) -> None:
    room = Room("anna", "ben")
    job = Job(room)
    asyncio.get_running_loop().call_later(0.02, room.enter, "carla")
    await example.entrypoint(job)
    await asyncio.sleep(0.2)
    assert sorted(opened) == ["anna", "ben", "carla"]
    await job.ends[0]()


async def test_who_is_there_and_announced_as_well_has_one_session(opened: list[str]) -> None:
    room = Room("anna")
    job = Job(room, meanwhile=lambda: room.enter("ben"))
    await example.entrypoint(job)
    await asyncio.sleep(0.2)
    assert sorted(opened) == ["anna", "ben"]
    await job.ends[0]()


@pytest.mark.usefixtures("opened")
async def test_a_line_that_can_t_be_published_costs_that_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    published: list[str] = []

    async def publish(line: example.Line) -> None:
        if line.text == "One.":
            raise ConnectionError("the room is closed")
        published.append(line.text)

    anna = example.Participant("anna", publish, example.ears)
    for text in ("One.", "Two."):
        anna._heard(SimpleNamespace(transcript=text, language="en-US", is_final=True))
        await asyncio.sleep(0.02)
    await asyncio.wait_for(anna.aclose(), 5)
    assert published == ["Two."]
    assert "the room is closed" in caplog.text
