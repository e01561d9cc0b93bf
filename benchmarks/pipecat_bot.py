"""The bot that the Pipecat benchmarks call: Silero, an STT, aggregators with Smart Turn, an LLM.

Everything is Pipecat's own but the LLM, which answers each context with two words at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.stt_service import STTService
from pipecat.workers.runner import WorkerRunner

RATE = 16_000
PACKET = RATE // 50
STOP_S = 0.2  # the detector's wait: Pipecat's default, and the stt-benchmark's

RESUMED_S = 0.5


@dataclass(slots=True)
class CallLog:
    """What happened in a call, on the wall clock (`time.time()`)."""

    starts: list[float] = field(default_factory=list)  # of speech, by the detector
    stops: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)  # of the user, by the turn strategies
    interims: list[tuple[float, str]] = field(default_factory=list)
    finals: list[tuple[float, TranscriptionFrame]] = field(default_factory=list)
    contexts: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All finals."""
        return " ".join(frame.text for _, frame in self.finals)

    def waits(self) -> tuple[list[float], list[float], int]:
        """Seconds from each stop to its finalized transcript and to the context; unanswered.

        Where the caller goes on within half a second, what was said comes with the next stop.
        """
        to_final, to_context, unanswered = [], [], 0
        for stop in self.stops:
            end = min((start for start in self.starts if start > stop), default=float("inf"))
            final = [at for at, frame in self.finals if frame.finalized and stop <= at < end]
            context = [at for at in self.contexts if stop <= at < end]
            to_final += [final[0] - stop] if final else []
            to_context += [context[0] - stop] if context else []
            unanswered += not final and end - stop > RESUMED_S
        return to_final, to_context, unanswered


class Watch(FrameProcessor):
    """Writes down what passes, whichever way."""

    def __init__(self, log: CallLog) -> None:
        super().__init__()
        self.log = log

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note and pass on."""
        await super().process_frame(frame, direction)
        now = time.time()
        downstream = direction is FrameDirection.DOWNSTREAM
        if isinstance(frame, TranscriptionFrame):
            self.log.finals.append((now, frame))
        elif isinstance(frame, InterimTranscriptionFrame):
            self.log.interims.append((now, frame.text))
        elif isinstance(frame, LLMContextFrame):
            self.log.contexts.append(now)
        elif isinstance(frame, UserStartedSpeakingFrame) and downstream:
            self.log.turns.append(now)
        elif isinstance(frame, VADUserStoppedSpeakingFrame) and not downstream:
            self.log.stops.append(frame.timestamp)
        elif isinstance(frame, VADUserStartedSpeakingFrame) and not downstream:
            self.log.starts.append(frame.timestamp)
        await self.push_frame(frame, direction)


class QuickLLM(FrameProcessor):
    """Answers every context at once."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer a context, pass on the rest."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        await self.push_frame(LLMTextFrame("Very good."))
        await self.push_frame(LLMFullResponseEndFrame())


def make_bot(stt: STTService) -> tuple[PipelineWorker, CallLog]:
    """A bot that listens with `stt`, and the log of its call."""
    log = CallLog()
    user, assistant = LLMContextAggregatorPair(
        LLMContext(),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=STOP_S))
        ),
    )
    worker = PipelineWorker(
        Pipeline([stt, Watch(log), user, Watch(log), QuickLLM(), assistant]),
        params=PipelineParams(audio_in_sample_rate=RATE),
        cancel_on_idle_timeout=False,
    )
    return worker, log


async def packets(samples: NDArray[np.float32], delay_s: float = 0.0) -> AsyncIterator[bytes]:
    """PCM16 in packets of 20 ms at the speed of speech, begun `delay_s` late."""
    await asyncio.sleep(delay_s)
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    began = time.monotonic()
    for at in range(0, pcm.size, PACKET):
        yield pcm[at : at + PACKET].tobytes()
        await asyncio.sleep(max(0.0, began + at / RATE - time.monotonic()))


async def call(
    stt: STTService,
    samples: NDArray[np.float32],
    *,
    delay_s: float = 0.0,
    on_packet: Callable[[int], None] = lambda _: None,
) -> CallLog:
    """A call in real time; `on_packet` is called with each packet's number.

    Two seconds of silence follow the recording, so that the last turn is answered.
    """
    worker, log = make_bot(stt)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    async def speak() -> None:
        number = 0
        whole = np.concatenate([samples, np.zeros(2 * RATE, np.float32)])
        async for packet in packets(whole, delay_s):
            on_packet(number)
            await worker.queue_frame(InputAudioRawFrame(packet, RATE, 1))
            number += 1
        await worker.queue_frame(EndFrame())

    await asyncio.gather(runner.run(), speak())
    return log
