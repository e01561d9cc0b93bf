"""A restaurant's phone or browser bot that answers in the language the caller speaks, mid-call.

Try it without keys, network or microphone (recorded calls, a scripted LLM, a TTS without sound):

    pip install "nemotron-voice[pipecat]"
    python pipecat_multilingual.py --offline
    python pipecat_multilingual.py --offline --file my_call.wav

Talk to it in the browser, at http://localhost:7860:

    pip install "nemotron-voice[pipecat]" "pipecat-ai[runner,webrtc,openai]"
    export OPENAI_API_KEY=...
    python pipecat_multilingual.py

Call it by phone (TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN), or join it in a Daily room
(DAILY_API_KEY; pipecat-ai[daily]):

    python pipecat_multilingual.py -t twilio -x your-name.ngrok.io
    python pipecat_multilingual.py -t daily

Environment:

    BOT_STT   checkpoint: a hub id, a folder or a .nemo file; "demo" needs no download
              (default nvidia/nemotron-3.5-asr-streaming-0.6b)
    BOT_LLM   openai (default) | anthropic; OPENAI_API_KEY | ANTHROPIC_API_KEY
    BOT_TTS   openai (default) | azure | cartesia;
              OPENAI_API_KEY | AZURE_SPEECH_API_KEY, AZURE_SPEECH_REGION | CARTESIA_API_KEY
    BOT_VOICES  voice of each language, the first is spoken first: "en-US=anna,es-US=carmen";
              openai and azure have voices of their own, cartesia needs the ids of yours
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if "--offline" in sys.argv:  # before Pipecat's first line; its warnings stay
    os.environ.setdefault("LOGURU_LEVEL", "WARNING")

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import LLMMessagesAppendFrame
from pipecat.observers.base_observer import BaseObserver
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.runner.types import RunnerArguments
from pipecat.services.llm_service import LLMService
from pipecat.services.tts_service import TTSService
from pipecat.transcriptions.language import Language
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.workers.runner import WorkerRunner

from nemotron_voice.pipecat import NemotronLanguageSwitcher, NemotronSTTService

PROMPT = (
    "You take reservations and orders on a restaurant's phone line. Answer in one or two short "
    "spoken sentences, without lists or symbols, in English until you are told otherwise."
)

# What the bot speaks, and in which voice; the first is what it begins in.
VOICES: dict[str, dict[Language, str]] = {
    "openai": {
        Language.EN_US: "alloy",
        Language.ES_US: "nova",
        Language.FR_FR: "coral",
        Language.IT_IT: "ash",
        Language.PT_BR: "shimmer",
        Language.DE_DE: "echo",
    },
    "azure": {
        Language.EN_US: "en-US-AvaNeural",
        Language.ES_US: "es-US-PalomaNeural",
        Language.FR_FR: "fr-FR-DeniseNeural",
        Language.IT_IT: "it-IT-ElsaNeural",
        Language.PT_BR: "pt-BR-FranciscaNeural",
        Language.DE_DE: "de-DE-KatjaNeural",
    },
}


def make_worker(
    transport: BaseTransport,
    llm: LLMService[Any],
    tts: TTSService,
    *,
    model: str,
    voices: Mapping[Language, str],
    observers: Sequence[BaseObserver] = (),
) -> PipelineWorker:
    """The whole bot. Both modes run this; only what stands at its ends differs."""
    # One engine per process: the first call loads the model, the others share it.
    stt = NemotronSTTService(settings=NemotronSTTService.Settings(model=model, latency_ms=160))
    # Ahead of the first final in a new language, it tells the TTS its voice and the LLM to change.
    switcher = NemotronLanguageSwitcher(languages=voices, voices=voices)
    user, assistant = LLMContextAggregatorPair(
        LLMContext(),
        # Silero says when the caller stops, and the STT's final is there some 20 ms later;
        # Smart Turn, Pipecat's default, says whether the turn is over.
        user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer()),
    )
    pipeline = Pipeline(
        [transport.input(), stt, switcher, user, llm, tts, transport.output(), assistant]
    )
    return PipelineWorker(
        pipeline,
        params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
        observers=list(observers),
    )


async def bot(runner_args: RunnerArguments) -> None:
    """One call; Pipecat's runner starts it when a caller connects."""
    from pipecat.runner.utils import create_transport  # noqa: PLC0415 - the online half only

    transport = await create_transport(
        runner_args, {"webrtc": browser, "daily": daily, "twilio": phone}
    )
    voices = chosen_voices()
    worker = make_worker(
        transport,
        make_llm(),
        make_tts(voices),
        model=os.getenv("BOT_STT", "nvidia/nemotron-3.5-asr-streaming-0.6b"),
        voices=voices,
    )

    @transport.event_handler("on_client_connected")
    async def on_client_connected(_: BaseTransport, __: Any) -> None:
        greet = "Greet the caller and offer your help."
        await worker.queue_frame(
            LLMMessagesAppendFrame([{"role": "developer", "content": greet}], run_llm=True)
        )

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(_: BaseTransport, __: Any) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=runner_args.handle_sigint)
    await runner.add_workers(worker)
    await runner.run()


def browser() -> TransportParams:
    """SmallWebRTC: a browser on this machine's page."""
    return TransportParams(audio_in_enabled=True, audio_out_enabled=True)


def daily() -> TransportParams:
    """A Daily room."""
    from pipecat.transports.daily.transport import DailyParams  # noqa: PLC0415

    return DailyParams(audio_in_enabled=True, audio_out_enabled=True)


def phone() -> TransportParams:
    """Twilio's media stream; the runner adds its serializer, and 8 kHz audio is no trouble."""
    from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams  # noqa: PLC0415

    return FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)


def make_llm() -> LLMService[Any]:
    """The LLM that BOT_LLM names."""
    # Imported where they are chosen: each needs its own extra of pipecat-ai.
    name = os.getenv("BOT_LLM", "openai")
    if name == "openai":
        from pipecat.services.openai.llm import OpenAILLMService  # noqa: PLC0415

        return OpenAILLMService(
            api_key=os.environ["OPENAI_API_KEY"],
            settings=OpenAILLMService.Settings(system_instruction=PROMPT),
        )
    if name == "anthropic":
        from pipecat.services.anthropic.llm import AnthropicLLMService  # noqa: PLC0415

        return AnthropicLLMService(
            api_key=os.environ["ANTHROPIC_API_KEY"],
            settings=AnthropicLLMService.Settings(system_instruction=PROMPT),
        )
    raise SystemExit(f"BOT_LLM={name!r} is not known here; it may be openai or anthropic")


def make_tts(voices: Mapping[Language, str]) -> TTSService:
    """The TTS that BOT_TTS names, in the first voice."""
    name = os.getenv("BOT_TTS", "openai")
    language, voice = next(iter(voices.items()))
    if name == "openai":
        from pipecat.services.openai.tts import OpenAITTSService  # noqa: PLC0415

        return OpenAITTSService(
            api_key=os.environ["OPENAI_API_KEY"],
            settings=OpenAITTSService.Settings(voice=voice),
        )
    if name == "azure":
        from pipecat.services.azure.tts import AzureTTSService  # noqa: PLC0415

        return AzureTTSService(
            api_key=os.environ["AZURE_SPEECH_API_KEY"],
            region=os.environ["AZURE_SPEECH_REGION"],
            settings=AzureTTSService.Settings(voice=voice, language=language),
        )
    if name == "cartesia":
        from pipecat.services.cartesia.tts import CartesiaTTSService  # noqa: PLC0415

        return CartesiaTTSService(
            api_key=os.environ["CARTESIA_API_KEY"],
            settings=CartesiaTTSService.Settings(voice=voice, language=language),
        )
    raise SystemExit(f"BOT_TTS={name!r} is not known here; it may be openai, azure or cartesia")


def chosen_voices() -> dict[Language, str]:
    """BOT_VOICES, or those that the TTS has here."""
    if named := os.getenv("BOT_VOICES"):
        pairs = (pair.split("=", 1) for pair in named.split(","))
        return {Language(language.strip()): voice.strip() for language, voice in pairs}
    tts = os.getenv("BOT_TTS", "openai")
    if tts not in VOICES:
        raise SystemExit(f'BOT_TTS={tts!r} needs voices: BOT_VOICES="en-US=<voice>,es-US=<voice>"')
    return VOICES[tts]


def main() -> None:
    """Without --offline: Pipecat's development runner, with its own options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    offline = parser.add_argument_group("without keys or network")
    offline.add_argument("--offline", action="store_true", help="recorded calls, stand-in LLM, TTS")
    offline.add_argument("--file", type=Path, help="play this audio file instead of the calls")
    offline.add_argument("--call", action="append", help='bundled call, such as "spanish-french"')
    offline.add_argument("--all-calls", action="store_true", help="every bundled call: 4 minutes")
    if "--offline" in sys.argv:
        import offline_pipecat  # noqa: PLC0415 - beside this file; needs rich

        asyncio.run(offline_pipecat.play(make_worker, parser.parse_args()))
        return
    try:
        from pipecat.runner.run import main as serve  # noqa: PLC0415
    except ImportError as missing:
        parser.parse_args()  # --help needs nothing installed
        parser.error(f'{missing}; pip install "pipecat-ai[runner,webrtc,openai]", or --offline')
    serve(parser)


if __name__ == "__main__":
    main()
