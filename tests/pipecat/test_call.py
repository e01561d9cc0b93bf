"""A bilingual call in real time: Silero, Smart Turn, this STT, the switcher, aggregators, a bot.

Everything but the LLM and the TTS is the real thing; the bundled checkpoint listens.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pipecat")

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSUpdateSettingsFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transcriptions.language import Language
from pipecat.workers.runner import WorkerRunner

from benchmarks.pipecat_bot import RATE, QuickLLM, packets
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.pipecat import NemotronLanguageSwitcher, NemotronSTTService


class Notes(FrameProcessor):
    """Writes down what passes downstream."""

    def __init__(self, *kinds: type[Frame]) -> None:
        super().__init__()
        self.kinds = kinds
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, self.kinds):
            self.seen.append(frame)
        await self.push_frame(frame, direction)


async def speak(worker: PipelineWorker, samples: np.ndarray[Any, Any]) -> None:
    """Begins when the pipeline has started, as a transport does."""
    started = asyncio.Event()
    worker.add_event_handler("on_pipeline_started", lambda *_: started.set())
    await started.wait()
    async for packet in packets(np.concatenate([samples, np.zeros(2 * RATE, np.float32)])):
        await worker.queue_frame(InputAudioRawFrame(packet, RATE, 1))
    await worker.queue_frame(EndFrame())


async def test_each_sentence_is_in_the_context_once_and_the_voice_changes_before_the_answer() -> (
    None
):
    call = bundled_calls()[0]
    assert {turn.language for turn in call.turns} == {"en-US", "es-ES"}
    context = LLMContext()
    user, assistant = LLMContextAggregatorPair(
        context,
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=0.2))
        ),
    )
    with Engine.load("demo", threads=1) as engine:
        stt = NemotronSTTService(engine=engine)
        switcher = NemotronLanguageSwitcher(
            languages=[Language.EN_US, Language.ES_ES],
            voices={"en-US": "anna", "es-ES": "carmen"},
            instruction=None,
        )
        heard = Notes(TranscriptionFrame)
        voice = Notes(TTSUpdateSettingsFrame, LLMTextFrame)
        worker = PipelineWorker(
            Pipeline([stt, heard, switcher, user, QuickLLM(), voice, assistant]),
            params=PipelineParams(enable_metrics=True, audio_in_sample_rate=RATE),
            cancel_on_idle_timeout=False,
        )
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        samples = read_samples(call.audio)
        await asyncio.gather(runner.run(), speak(worker, samples))
        assert engine.stats().streams == 0

    finals = [frame for frame in heard.seen if isinstance(frame, TranscriptionFrame)]
    assert len(finals) >= len(call.turns)
    assert all(final.finalized for final in finals)
    messages = context.get_messages()
    said = " ".join(str(m["content"]) for m in messages if m["role"] == "user")
    assert said == " ".join(final.text for final in finals)

    kinds = [type(frame).__name__ for frame in voice.seen]
    switched = kinds.index("TTSUpdateSettingsFrame")
    settings = voice.seen[switched]
    assert isinstance(settings, TTSUpdateSettingsFrame)
    assert settings.delta is not None
    assert (settings.delta.language, settings.delta.voice) == (Language.ES_ES, "carmen")  # type: ignore[attr-defined]
    first_spanish = next(
        place for place, final in enumerate(finals) if final.language == Language.ES_ES
    )
    answered_before = kinds[:switched].count("LLMTextFrame")
    assert answered_before <= first_spanish
    assert "LLMTextFrame" in kinds[switched:]
