"""A restaurant's voice agent on LiveKit that answers in the language the caller speaks, mid-call.

Try it without keys, network or server (recorded calls, a scripted LLM, a TTS without sound):

    pip install "nemotron-voice[livekit]"
    python livekit_agent.py --offline
    python livekit_agent.py --offline --file my_call.wav

With LiveKit (https://cloud.livekit.io gives the three keys; a server of your own works too):

    export LIVEKIT_URL=... LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=...
    python -m livekit.agents download-files       # the checkpoint, 2.5 GB
    python livekit_agent.py console               # in this terminal, with microphone
    python livekit_agent.py dev                   # for rooms, reloading on changes
    python livekit_agent.py start                 # in production

Environment:

    AGENT_STT     checkpoint: a hub id, a folder or a .nemo file; "demo" needs no download
                  (default nvidia/nemotron-3.5-asr-streaming-0.6b)
    AGENT_LLM     a model of LiveKit's inference (default openai/gpt-4.1-mini)
    AGENT_TTS     likewise (default cartesia/sonic-3)
    AGENT_VOICES  voice of each language, the first is spoken first: "en-US=<id>,es-US=<id>";
                  without it the TTS keeps its voice and changes its language only
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    JobContext,
    JobExecutorType,
    JobProcess,
    cli,
    inference,
)

from nemotron_voice.config import DEFAULT_MODEL
from nemotron_voice.livekit import STT, switch_language

INSTRUCTIONS = (
    "You take reservations and orders on a restaurant's phone line. Answer in one or two short "
    "spoken sentences, without lists or symbols, in English until you are told otherwise."
)
LANGUAGES = ("en-US", "es-US", "fr-FR", "it-IT", "pt-BR", "de-DE")

# One STT for all jobs of the process; they share its engine.
ears = STT(model=os.getenv("AGENT_STT", DEFAULT_MODEL), latency_ms=160)


def prewarm(_: JobProcess) -> None:
    """Begin to load the checkpoint before the first call, without holding up the server."""
    ears.prewarm()


# Threads, not processes: one copy of the model serves every job of this server.
server = AgentServer(job_executor_type=JobExecutorType.THREAD, setup_fnc=prewarm)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """One call."""
    voices = chosen_voices()
    session: AgentSession[Any] = AgentSession(
        stt=ears,
        llm=inference.LLM(os.getenv("AGENT_LLM", "openai/gpt-4.1-mini")),
        tts=inference.TTS(os.getenv("AGENT_TTS", "cartesia/sonic-3")),
    )
    follow_language(session, voices)
    await session.start(Agent(instructions=INSTRUCTIONS), room=ctx.room)
    await ctx.connect()


def follow_language(session: AgentSession[Any], voices: dict[str, str | None]) -> None:
    """Voice and instructions change with the caller's language, before the answer begins."""
    switch_language(
        session,
        languages=list(voices),
        tts_options={
            locale: {"language": locale.partition("-")[0]} | ({"voice": voice} if voice else {})
            for locale, voice in voices.items()
        },
    )


def chosen_voices() -> dict[str, str | None]:
    """AGENT_VOICES, or no voices in all languages."""
    if named := os.getenv("AGENT_VOICES"):
        pairs = (pair.split("=", 1) for pair in named.split(","))
        return {locale.strip(): voice.strip() for locale, voice in pairs}
    return dict.fromkeys(LANGUAGES)


def main() -> None:
    """Without --offline: LiveKit's own command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--offline", action="store_true", help="recorded calls, stand-in LLM, TTS")
    parser.add_argument("--file", type=Path, help="play this audio file instead of the calls")
    parser.add_argument("--call", action="append", help='bundled call, such as "spanish-french"')
    if "--offline" in sys.argv:
        import offline_livekit_call  # noqa: PLC0415 - beside this file; needs rich

        asyncio.run(offline_livekit_call.play(INSTRUCTIONS, follow_language, parser.parse_args()))
    elif {"-h", "--help"} & set(sys.argv) or len(sys.argv) == 1:
        parser.print_help()
    else:
        cli.run_app(server)


if __name__ == "__main__":
    main()
