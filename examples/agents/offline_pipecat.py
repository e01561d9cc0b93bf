"""Stand-ins for the bot's ends: a recorded caller, an LLM of set phrases, a TTS without sound.

All are what Pipecat has in their places (a transport, an LLMService, a TTSService), so everything
between them runs as in a real call: Silero, Smart Turn, interruptions, settings.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import fields
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from offline_calls import chosen_calls
from offline_phrases import LETTERS_PER_S, REPLIES
from offline_screen import CallScreen, CallTable
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transcriptions.language import Language
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.workers.runner import WorkerRunner

from nemotron_voice.audio import read_samples
from nemotron_voice.cli import screen
from nemotron_voice.cli.demo import Turn, bundled_calls
from nemotron_voice.hear import PACKET_MS, sleep_until
from nemotron_voice.shared_engine import shared_engine

MODEL = "demo"
DEFAULT_CALLS = ("english-spanish", "five-languages")
RATE = 16_000
PACKET = RATE * PACKET_MS // 1000
AFTER_TURN_S = 0.3  # of the recording after the caller's last word; then they wait for the answer
PATIENCE_S = 8.0  # how long they wait: longer than the turn strategies ever take
THINKING_S = 0.25  # an LLM's first words

VOICES = {
    Language.EN_US: "anna",
    Language.ES_US: "carmen",
    Language.FR_FR: "claire",
    Language.IT_IT: "giulia",
    Language.PT_BR: "luana",
}


class RecordedCaller(BaseTransport):
    """A transport whose caller is a recording, played at the speed of speech.

    After each turn of its script the caller waits until the bot has answered, as people do.
    """

    def __init__(self, samples: NDArray[np.float32], turns: tuple[Turn, ...]) -> None:
        super().__init__()
        params = TransportParams(
            audio_in_enabled=True,
            audio_in_sample_rate=RATE,
            audio_out_enabled=True,
            audio_out_sample_rate=RATE,
            audio_out_end_silence_secs=0,
        )
        self._input = _Microphone(params, samples, turns)
        self._output = _Earpiece(params)

    def input(self) -> _Microphone:
        """What the caller says."""
        return self._input

    def output(self) -> _Earpiece:
        """What the caller hears."""
        return self._output

    def current_turn(self) -> int:
        """Index of the turn that is being spoken or was spoken last."""
        return self._input.turn

    async def hung_up(self) -> None:
        """Wait until the recording has been played and answered."""
        await self._input.played.wait()


class _Microphone(BaseInputTransport):
    def __init__(
        self, params: TransportParams, samples: NDArray[np.float32], turns: tuple[Turn, ...]
    ) -> None:
        super().__init__(params)
        self._pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        self._turns = turns
        self._answered = asyncio.Event()
        self._player: asyncio.Task[None] | None = None
        self._given = 0  # samples, silence while waiting among them
        self.turn = 0
        self.played = asyncio.Event()

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._player = self.create_task(self._play())

    async def stop(self, frame: EndFrame) -> None:
        await self._hang_up()
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        await self._hang_up()
        await super().cancel(frame)

    async def cleanup(self) -> None:
        await self._hang_up()
        await super().cleanup()

    async def _hang_up(self) -> None:
        player, self._player = self._player, None
        if player is not None:
            await self.cancel_task(player)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, BotStoppedSpeakingFrame):
            self._answered.set()
        await super().process_frame(frame, direction)

    async def _play(self) -> None:
        began = asyncio.get_running_loop().time()
        at = 0
        ends = [round((turn.end + AFTER_TURN_S) * RATE) for turn in self._turns[:-1]]
        for turn, end in enumerate([*ends, self._pcm.size]):
            self.turn = turn
            for packet in np.array_split(self._pcm[at:end], max(1, (end - at) // PACKET)):
                await self._give(began, packet)
            at = end
            self._answered.clear()
            patience = round(PATIENCE_S * RATE / PACKET)
            while not self._answered.is_set() and (patience := patience - 1):
                await self._give(began, np.zeros(PACKET, "<i2"))
        self.played.set()

    async def _give(self, began: float, packet: NDArray[np.int16]) -> None:
        self._given += packet.size
        await sleep_until(began + self._given / RATE)  # a packet is there once it has been spoken
        await self.push_audio_frame(InputAudioRawFrame(packet.tobytes(), RATE, 1))


class _Earpiece(BaseOutputTransport):
    """Takes as long to play audio as it lasts."""

    def __init__(self, params: TransportParams) -> None:
        super().__init__(params)
        self._free_at = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + frame.num_frames / frame.sample_rate
        await sleep_until(self._free_at)
        return True


class ScriptedLLM(LLMService[Any]):
    """Answers each turn with the next phrase in the language it was last told to speak."""

    def __init__(self) -> None:
        names = (field.name for field in fields(LLMSettings) if field.name != "extra")
        unused: dict[str, Any] = dict.fromkeys(names)
        super().__init__(settings=LLMSettings(**unused))
        self._answers = count()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer a context; pass everything else on."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await asyncio.sleep(THINKING_S)
        phrases = REPLIES[_language_told(frame.context)]
        await self.push_frame(LLMFullResponseStartFrame())
        await self.push_frame(LLMTextFrame(phrases[next(self._answers) % len(phrases)]))
        await self.push_frame(LLMFullResponseEndFrame())


def _language_told(context: LLMContext) -> str:
    for message in reversed(context.get_messages()):
        if isinstance(message, dict) and message["role"] == "developer":
            for language in REPLIES:
                if language in str(message["content"]):
                    return language
    return "English"


class SilentTTS(TTSService):
    """Tells what it would say, in which language and voice, and is silent for as long."""

    def __init__(self, on_speech: Callable[[str, str, str], None]) -> None:
        language, voice = next(iter(VOICES.items()))
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            settings=TTSSettings(model="silence", voice=voice, language=language),
        )
        self._on_speech = on_speech

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """One frame of silence."""
        self._on_speech(text, str(self._settings.language), str(self._settings.voice))
        silence = bytes(2 * round(len(text) / LETTERS_PER_S * self.sample_rate))
        yield TTSAudioRawFrame(silence, self.sample_rate, 1, context_id=context_id)


async def play(make_worker: Callable[..., PipelineWorker], options: argparse.Namespace) -> None:
    """Play the chosen calls to the bot, and show what it hears and says."""
    every = [call.audio.stem for call in bundled_calls()]
    calls = chosen_calls(options, every if options.all_calls else DEFAULT_CALLS)
    console = screen.out()
    with screen.waiting("loading the bundled model"):
        await shared_engine(MODEL)
    table = CallTable()
    for number, call in enumerate(calls, 1):
        console.print(f"\n[bold]Call {number} of {len(calls)}: {call.title}[/bold]")
        caller = RecordedCaller(read_samples(call.audio), call.turns)
        with CallScreen(console, call.turns, caller.current_turn) as shown:
            worker = make_worker(
                caller,
                ScriptedLLM(),
                SilentTTS(shown.bot_says),
                model=MODEL,
                voices=VOICES,
                observers=[shown],
            )
            await _run(worker, caller)
        table.add(call.title, shown.heard, has_script=bool(call.turns))
    console.print()
    console.print(table.render())


async def _run(worker: PipelineWorker, caller: RecordedCaller) -> None:
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    async def end() -> None:
        await caller.hung_up()
        await worker.stop_when_done()

    ending = asyncio.create_task(end())
    try:
        await runner.run()
    finally:
        ending.cancel()
