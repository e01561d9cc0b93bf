"""Transcribes every participant of a LiveKit room at once, in one process, on one engine.

Each text goes to the room as a stream on the topic "lk.transcription", as clients expect it, with
the detected language among its attributes ("language", "es-ES").

Try it without keys, network or server (six recorded participants, who all talk at once):

    pip install "nemotron-voice[livekit]"
    python livekit_room_transcriber.py --offline

With LiveKit:

    export LIVEKIT_URL=... LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=...
    python livekit_room_transcriber.py dev

Environment:

    AGENT_STT   checkpoint: a hub id, a folder or a .nemo file; "demo" needs no download
                (default nvidia/nemotron-3.5-asr-streaming-0.6b)
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from livekit import rtc
from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    AutoSubscribe,
    JobContext,
    JobExecutorType,
    JobProcess,
    StopResponse,
    UserInputTranscribedEvent,
    cli,
    llm,
    utils,
)
from livekit.agents.voice import room_io

from nemotron_voice.config import DEFAULT_MODEL
from nemotron_voice.livekit import STT

TOPIC = "lk.transcription"
logger = logging.getLogger(__name__)

ears = STT(model=os.getenv("AGENT_STT", DEFAULT_MODEL), latency_ms=320)


@dataclass(frozen=True)
class Line:
    """A text of one participant; a later line of the same segment replaces it."""

    speaker: str
    text: str
    language: str
    is_final: bool
    segment: str


Publish = Callable[[Line], Awaitable[None]]


class Transcriber(Agent):
    """Listens and never answers."""

    def __init__(self) -> None:
        super().__init__(instructions="")

    async def on_user_turn_completed(
        self,
        turn_ctx: llm.ChatContext,  # noqa: ARG002 - LiveKit's signature
        new_message: llm.ChatMessage,  # noqa: ARG002
    ) -> None:
        """No answer."""
        raise StopResponse


class Participant:
    """One participant's session."""

    def __init__(self, identity: str, publish: Publish, stt: STT) -> None:
        self.identity = identity
        self._publish = publish
        self._segment = utils.shortuuid("SG_")
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self.session: AgentSession[Any] = AgentSession(stt=stt)
        self.session.on("user_input_transcribed", self._heard)
        self._publisher = asyncio.create_task(self._publish_all())

    def _heard(self, event: UserInputTranscribedEvent) -> None:
        if not event.transcript:
            return
        language = str(event.language or "")
        line = Line(self.identity, event.transcript, language, event.is_final, self._segment)
        self._lines.put_nowait(line)
        if event.is_final:
            self._segment = utils.shortuuid("SG_")

    async def _publish_all(self) -> None:
        while True:
            line = await self._lines.get()
            # Who reads slowly gets every final, and of the interims the latest.
            try:
                if line.is_final or self._lines.empty():
                    await self._publish(line)
            except Exception:  # one line is lost, the next ones aren't
                logger.exception("a line of %s wasn't published", line.speaker)
            finally:
                self._lines.task_done()

    async def aclose(self) -> None:
        """Hear out what was said, and end."""
        await self.session.aclose()
        await self._lines.join()
        await utils.aio.cancel_and_wait(self._publisher)


def prewarm(_: JobProcess) -> None:
    """Begin to load the checkpoint before the first room."""
    ears.prewarm()


server = AgentServer(job_executor_type=JobExecutorType.THREAD, setup_fnc=prewarm)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """One room."""
    present: dict[str, Participant] = {}
    changes: set[asyncio.Task[None]] = set()

    async def publish(line: Line) -> None:
        writer = await ctx.room.local_participant.stream_text(
            topic=TOPIC,
            sender_identity=line.speaker,
            attributes={
                "lk.segment_id": line.segment,
                "lk.transcription_final": str(line.is_final).lower(),
                "language": line.language,
            },
        )
        await writer.write(line.text)
        await writer.aclose()

    async def joins(participant: rtc.RemoteParticipant) -> None:
        if participant.identity in present:  # there at the start, and announced as well
            return
        one = present[participant.identity] = Participant(participant.identity, publish, ears)
        options = room_io.RoomOptions(
            participant_identity=participant.identity,
            audio_output=False,
            text_output=False,
            text_input=False,
        )
        await one.session.start(Transcriber(), room=ctx.room, room_options=options)

    async def leaves(participant: rtc.RemoteParticipant) -> None:
        if (one := present.pop(participant.identity, None)) is not None:
            await one.aclose()

    def soon(change: Awaitable[None]) -> None:
        task = asyncio.ensure_future(change)
        changes.add(task)
        task.add_done_callback(changes.discard)

    async def everybody_leaves() -> None:
        await asyncio.gather(*(one.aclose() for one in present.values()))

    ctx.room.on("participant_connected", lambda participant: soon(joins(participant)))
    ctx.room.on("participant_disconnected", lambda participant: soon(leaves(participant)))
    ctx.add_shutdown_callback(everybody_leaves)
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)
    for participant in ctx.room.remote_participants.values():  # others come and go while one joins
        soon(joins(participant))


def main() -> None:
    """Without --offline: LiveKit's own command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--offline", action="store_true", help="six recorded participants")
    if "--offline" in sys.argv:
        import offline_livekit_room  # noqa: PLC0415 - beside this file; needs rich

        parser.parse_args()
        asyncio.run(offline_livekit_room.play(Participant, Transcriber))
    elif {"-h", "--help"} & set(sys.argv) or len(sys.argv) == 1:
        parser.print_help()
    else:
        cli.run_app(server)


if __name__ == "__main__":
    main()
