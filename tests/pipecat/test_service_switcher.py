"""NemotronSTTService among others in Pipecat's ServiceSwitcher."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("pipecat")

from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    ManuallySwitchServiceFrame,
    STTUpdateSettingsFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.service_switcher import (
    ServiceSwitcher,
    ServiceSwitcherStrategyFailover,
    ServiceSwitcherStrategyManual,
)
from pipecat.tests.utils import SleepFrame, run_test

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.pipecat import NemotronSTTService
from tests.scripted_recognizer import ScriptedRecognizer, transcript

RATE = 16_000
PAUSE = 0.05


def audio(seconds: float) -> InputAudioRawFrame:
    return InputAudioRawFrame(b"\1\0" * int(seconds * RATE), RATE, 1)


def starts() -> VADUserStartedSpeakingFrame:
    return VADUserStartedSpeakingFrame(start_secs=0.2)


def stops() -> VADUserStoppedSpeakingFrame:
    return VADUserStoppedSpeakingFrame(stop_secs=0.2)


async def heard(
    services: list[NemotronSTTService],
    frames: Sequence[Frame],
    strategy: type[ServiceSwitcherStrategyManual] = ServiceSwitcherStrategyManual,
) -> list[tuple[str, bool]]:
    switcher = ServiceSwitcher(services=list(services), strategy_type=strategy)
    down, _ = await run_test(switcher, frames_to_send=frames)
    return [(f.text, f.finalized) for f in down if isinstance(f, TranscriptionFrame)]


@pytest.fixture(autouse=True)
def soon_out_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemotron_voice.pipecat.stt.OUT_OF_CALL_S", 0.15)


async def test_the_service_switched_to_in_mid_speech_keeps_what_it_hears() -> None:
    first = ScriptedRecognizer("Not this.")
    second = ScriptedRecognizer(transcript("for four.", final=True, start=0.3, flush_id=0))
    services = [NemotronSTTService(engine=first), NemotronSTTService(engine=second)]
    texts = await heard(
        services,
        [
            audio(0.5),
            starts(),
            SleepFrame(PAUSE),
            ManuallySwitchServiceFrame(service=services[1]),
            SleepFrame(PAUSE),
            audio(1.0),
            stops(),
            SleepFrame(0.2),
            audio(0.1),
        ],
    )
    assert texts == [("for four.", True)]
    assert (first.streams[0].pushed_s, second.stream.pushed_s) == pytest.approx((0.5, 1.1))
    assert first.streams[0].closed
    assert second.stream.closed


async def test_back_again_it_has_forgotten_what_it_heard_before() -> None:
    first = ScriptedRecognizer("Yes please.")
    second = ScriptedRecognizer("In between.")
    services = [NemotronSTTService(engine=first), NemotronSTTService(engine=second)]
    texts = await heard(
        services,
        [
            starts(),
            audio(0.5),  # nobody asks for a final of this
            SleepFrame(PAUSE),
            ManuallySwitchServiceFrame(service=services[1]),
            SleepFrame(PAUSE),
            audio(1.0),
            stops(),
            SleepFrame(PAUSE),
            ManuallySwitchServiceFrame(service=services[0]),
            SleepFrame(PAUSE),
            starts(),
            audio(1.0),
            stops(),
            SleepFrame(PAUSE),
        ],
    )
    assert texts == [("In between.", True), ("Yes please.", True)]
    before, after = first.streams
    assert (before.flushes, before.closed) == (0, True)
    assert (after.pushed_s, after.closed) == (pytest.approx(1.0), True)


async def test_a_service_that_can_t_work_hands_over() -> None:
    refusing = ScriptedRecognizer()
    refusing.refusals = [ConfigurationError("the model has no such language")]
    working = ScriptedRecognizer("Hello.")
    services = [NemotronSTTService(engine=refusing), NemotronSTTService(engine=working)]
    texts = await heard(
        services,
        [SleepFrame(PAUSE), audio(0.5), starts(), audio(0.5), stops(), SleepFrame(PAUSE)],
        ServiceSwitcherStrategyFailover,
    )
    assert texts == [("Hello.", True)]


async def test_settings_reach_the_inactive_one_when_they_are_meant_for_it() -> None:
    recognizers = [ScriptedRecognizer(), ScriptedRecognizer()]
    services = [NemotronSTTService(engine=each) for each in recognizers]
    delta = NemotronSTTService.Settings(language="es-ES")
    await heard(
        services,
        [
            STTUpdateSettingsFrame(delta=delta, service=services[1]),
            SleepFrame(PAUSE),
        ],
    )
    assert [each.stream.updates for each in recognizers] == [[], [{"language": "es-ES"}]]
