"""NemotronSTTService in a real Pipecat pipeline: a test for each trap of the framework."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("pipecat")

from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    MetricsFrame,
    STTMetadataFrame,
    STTMuteFrame,
    STTUpdateSettingsFrame,
    SystemFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import STTUsageMetricsData, TTFBMetricsData
from pipecat.pipeline.worker import PipelineParams
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import STTSettings
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory

from nemotron_voice.errors import (
    AudioOverflowError,
    ConfigurationError,
    EngineError,
    EngineFullError,
    ModelError,
    NemotronVoiceError,
    ProtocolError,
    ServerRefusedError,
    ServerUnreachableError,
    StepFailedError,
    is_permanent,
)
from nemotron_voice.pipecat import NEMOTRON_TTFS_P99, NemotronSTTService
from nemotron_voice.pipecat.call_stream import FINISH_S
from nemotron_voice.pipecat.speech_gate import Backlog
from nemotron_voice.pipecat.stt import _category
from tests.scripted_recognizer import ScriptedRecognizer, ScriptedStream, transcript

RATE = 16_000


def audio(seconds: float, rate: int = RATE, channels: int = 1) -> InputAudioRawFrame:
    return InputAudioRawFrame(b"\1\0" * int(seconds * rate) * channels, rate, channels)


@dataclass
class Do(SystemFrame):
    """Calls `what` when the service would get this frame."""

    what: Callable[[], object] = lambda: None


class Service(NemotronSTTService):
    """Runs the test's own steps where they stand among the frames."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, Do):
            frame.what()
            await asyncio.sleep(0.02)  # let the reader take what was said
            return
        await super().process_frame(frame, direction)


def starts() -> VADUserStartedSpeakingFrame:
    return VADUserStartedSpeakingFrame(start_secs=0.2)


def stops() -> VADUserStoppedSpeakingFrame:
    return VADUserStoppedSpeakingFrame(stop_secs=0.2)


PAUSE = 0.05


def turn(seconds: float = 1.0) -> list[Frame]:
    return [audio(seconds), starts(), audio(0.2), stops(), SleepFrame(PAUSE)]


async def hear(
    recognizer: ScriptedRecognizer, frames: Sequence[Frame], **options: Any
) -> tuple[list[Frame], list[Frame]]:
    service = Service(engine=recognizer, **options)
    down, up = await run_test(
        service,
        frames_to_send=frames,
        pipeline_params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
    )
    return list(down), list(up)


def errors(frames: Sequence[Frame]) -> list[ErrorFrame]:
    return [frame for frame in frames if isinstance(frame, ErrorFrame)]


def finals(frames: Sequence[Frame]) -> list[TranscriptionFrame]:
    return [frame for frame in frames if isinstance(frame, TranscriptionFrame)]


def interims(frames: Sequence[Frame]) -> list[str]:
    return [frame.text for frame in frames if isinstance(frame, InterimTranscriptionFrame)]


def ttfb(frames: Sequence[Frame]) -> list[float]:
    data = [item for frame in frames if isinstance(frame, MetricsFrame) for item in frame.data]
    return [item.value for item in data if isinstance(item, TTFBMetricsData) if item.value]


async def test_a_stop_brings_a_finalized_transcript_with_its_language() -> None:
    recognizer = ScriptedRecognizer("A table for four.")
    down, _ = await hear(recognizer, turn())
    (final,) = finals(down)
    assert (final.text, final.language, final.finalized) == (
        "A table for four.",
        Language.EN_US,
        True,
    )
    assert final.result.text == final.text
    assert final.result.words[0].text == "A"
    assert recognizer.stream.pushed == b"\1\0" * int(1.2 * RATE)
    assert recognizer.stream.closed


async def test_vad_frames_are_heard_from_below_as_well() -> None:
    recognizer = ScriptedRecognizer("Yes.")
    service = Service(engine=recognizer)
    down, up = await run_test(
        service,
        frames_to_send=[starts(), SleepFrame(PAUSE), stops(), SleepFrame(PAUSE)],
        frames_to_send_direction=FrameDirection.UPSTREAM,
    )
    assert [final.text for final in finals(down)] == ["Yes."]
    assert any(isinstance(frame, VADUserStoppedSpeakingFrame) for frame in up)


async def test_an_interruption_does_not_drop_a_final() -> None:
    down, _ = await hear(ScriptedRecognizer("Yes."), turn())
    assert finals(down)[0].interruptible is False


async def test_an_empty_flush_pushes_nothing_and_ends_the_measurement() -> None:
    recognizer = ScriptedRecognizer("", "Hello.")
    down, _ = await hear(recognizer, [*turn(), *turn()])
    assert [final.text for final in finals(down)] == ["Hello."]
    assert finals(down)[0].finalized


async def test_no_interim_passes_between_a_final_and_the_next_speech() -> None:
    recognizer = ScriptedRecognizer("Hello.")

    def say(text: str) -> Do:
        return Do(what=lambda: recognizer.stream.say(transcript(text, start=1.0)))

    down, _ = await hear(
        recognizer,
        [audio(1.0), say("noise"), starts(), say("Hel"), stops(), SleepFrame(PAUSE), say("uh")],
    )
    assert interims(down) == ["Hel"]


@pytest.mark.parametrize(
    ("backlog_s", "said"), [(0.0, "Yes please."), (10.0, "uh uh uh Yes please.")]
)
async def test_words_where_nobody_spoke_are_not_said_with_the_next_turn(
    backlog_s: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ten seconds came at once, the detector's edge may be about any of it."""
    monkeypatch.setattr(Backlog, "at", lambda *_: backlog_s)
    noise_and_speech = transcript("uh uh uh", final=True, start=0.5)
    speech = transcript("Yes please.", final=True, start=9.8, flush_id=0)
    both = noise_and_speech.words + speech.words
    answer = transcript("x", final=True, flush_id=0)
    answer = type(answer)(
        **{
            **{name: getattr(speech, name) for name in speech.__slots__},
            "text": "uh uh uh Yes please.",
            "words": both,
            "start": 0.5,
        }
    )
    recognizer = ScriptedRecognizer(answer)
    down, _ = await hear(
        recognizer, [audio(10.0), starts(), audio(0.5), stops(), SleepFrame(PAUSE)]
    )
    assert [final.text for final in finals(down)] == [said]


async def test_a_final_that_comes_by_itself_in_a_silence_waits_for_the_next_turn() -> None:
    recognizer = ScriptedRecognizer("A table", "please.")

    def late() -> None:
        recognizer.stream.say(transcript("for four", final=True, start=1.0))

    down, _ = await hear(recognizer, [*turn(), Do(what=late), *turn()])
    assert [(final.text, final.finalized) for final in finals(down)] == [
        ("A table", True),
        ("for four", False),
        ("please.", True),
    ]


async def test_what_is_held_is_not_lost_at_the_end() -> None:
    recognizer = ScriptedRecognizer("A table")

    def late() -> None:
        recognizer.stream.say(transcript("for four", final=True, start=1.0))

    down, _ = await hear(recognizer, [*turn(), Do(what=late)])
    assert [final.text for final in finals(down)] == ["A table", "for four"]


async def test_the_last_words_come_before_the_end_frame() -> None:
    down, _ = await hear(ScriptedRecognizer("Goodbye."), [starts(), audio(1.0)])
    assert [final.text for final in finals(down)] == ["Goodbye."]


async def test_when_the_caller_goes_on_before_the_answer_the_final_does_not_end_the_turn() -> None:
    recognizer = ScriptedRecognizer("not yet", "for four.")

    def later() -> None:
        recognizer.stream.late = True

    def answers() -> None:
        recognizer.stream.late = False
        recognizer.stream.say(transcript("A table", final=True, start=0.5, flush_id=0))

    before = [Do(what=later), audio(1.0), starts(), audio(0.2), stops()]
    goes_on = [starts(), Do(what=answers), audio(1.0), stops(), SleepFrame(0.1)]
    down, _ = await hear(recognizer, [*before, *goes_on])
    assert [(final.text, final.finalized) for final in finals(down)] == [
        ("A table", False),
        ("for four.", True),
    ]


def partial(text: str) -> Any:
    return transcript(text, final=True, start=0.5, flush_id=0, complete=False)


def rest(recognizer: ScriptedRecognizer) -> Do:
    late = transcript("for four.", final=True, start=1.0, flush_id=0)
    return Do(what=lambda: recognizer.stream.say(late))


@pytest.mark.parametrize("said", ["A table", ""])
async def test_the_rest_of_an_incomplete_answer_follows_at_once(said: str) -> None:
    recognizer = ScriptedRecognizer(partial(said))
    down, _ = await hear(recognizer, [*turn(), rest(recognizer), SleepFrame(PAUSE), audio(0.1)])
    first = [(said, True)] if said else []
    # Pipecat has one finalized transcript a stop: the answer, empty or not, was it.
    assert [(f.text, f.finalized) for f in finals(down)] == [*first, ("for four.", False)]
    assert len(ttfb(down)) == 1
    # Before the EndFrame came.
    last_audio = max(at for at, frame in enumerate(down) if isinstance(frame, InputAudioRawFrame))
    assert down.index(finals(down)[-1]) < last_audio


async def test_the_rest_that_comes_when_the_caller_speaks_again_does_not_end_the_turn() -> None:
    recognizer = ScriptedRecognizer(partial("A table"), "At eight.")
    down, _ = await hear(
        recognizer,
        [*turn(), starts(), rest(recognizer), audio(0.5), stops(), SleepFrame(PAUSE)],
    )
    assert [(f.text, f.finalized) for f in finals(down)] == [
        ("A table", True),
        ("for four.", False),
        ("At eight.", True),
    ]


async def test_the_rest_that_comes_after_another_stop_does_not_answer_it() -> None:
    recognizer = ScriptedRecognizer(partial("A table"))

    def later() -> None:
        recognizer.stream.late = True

    def answers() -> None:
        recognizer.stream.say(transcript("At eight.", final=True, start=1.5, flush_id=1))

    down, _ = await hear(
        recognizer,
        [
            *turn(),
            *(Do(what=later), starts(), audio(0.5), stops(), rest(recognizer), Do(what=answers)),
            SleepFrame(PAUSE),
        ],
    )
    assert [(f.text, f.finalized) for f in finals(down)] == [
        ("A table", True),
        ("for four.", False),
        ("At eight.", True),
    ]


@pytest.mark.parametrize(
    ("locale", "language", "unspaced"),
    [
        ("ar-AR", Language.AR, False),
        ("ja-JP", Language.JA_JP, True),
        ("zh-CN", Language.ZH_CN, True),
        ("th-TH", Language.TH_TH, True),
        ("rw-RW", None, False),  # a fine-tuned model's; Pipecat has no name for it
        (None, None, False),
    ],
)
async def test_languages_and_spacing_are_the_framework_s(
    locale: str | None, language: Language | None, unspaced: bool
) -> None:
    answer = transcript("x", final=True, language=locale, start=0.5, flush_id=0)
    down, _ = await hear(ScriptedRecognizer(answer), turn())
    (final,) = finals(down)
    assert (final.language, final.includes_inter_frame_spaces) == (language, unspaced)


async def test_settings_change_in_band() -> None:
    recognizer = ScriptedRecognizer()
    delta = NemotronSTTService.Settings(language=Language.ES_ES, latency_ms=160)
    _, up = await hear(recognizer, [STTUpdateSettingsFrame(delta=delta), SleepFrame(PAUSE)])
    assert recognizer.stream.updates == [{"language": "es-ES", "latency_ms": 160}]
    assert len(recognizer.streams) == 1
    assert not [frame for frame in up if isinstance(frame, ErrorFrame)]


async def test_the_base_s_settings_change_the_language_too() -> None:
    recognizer = ScriptedRecognizer()
    frame = STTUpdateSettingsFrame(delta=STTSettings(language="Spanish (Spain)"))
    await hear(recognizer, [frame, SleepFrame(PAUSE)])
    assert [update["language"] for update in recognizer.stream.updates] == ["es-ES"]


@pytest.mark.parametrize(
    ("delta", "said"),
    [
        (NemotronSTTService.Settings(language="tlh"), "tlh"),
        (NemotronSTTService.Settings(latency_ms=100), "100"),
        (NemotronSTTService.Settings(model="other"), "engine="),
    ],
)
async def test_a_setting_that_can_t_be_is_refused_and_the_call_goes_on(
    delta: STTSettings, said: str
) -> None:
    recognizer = ScriptedRecognizer("Yes.")
    down, up = await hear(
        recognizer, [STTUpdateSettingsFrame(delta=delta), SleepFrame(PAUSE), *turn()]
    )
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert said in error.error
    assert not error.category.is_permanent
    assert [final.text for final in finals(down)] == ["Yes."]


def test_a_bad_setting_is_refused_when_the_service_is_made() -> None:
    with pytest.raises(ConfigurationError, match="100"):
        NemotronSTTService(settings=NemotronSTTService.Settings(latency_ms=100))
    with pytest.raises(ConfigurationError, match="tlh"):
        NemotronSTTService(settings=NemotronSTTService.Settings(language="tlh"))


async def test_mute_finalises_what_was_said_and_hears_nothing_more() -> None:
    recognizer = ScriptedRecognizer("Wait.", "Go on.")
    down, _ = await hear(
        recognizer,
        [
            audio(0.5),
            starts(),
            audio(0.5),
            STTMuteFrame(mute=True),
            SleepFrame(PAUSE),
            audio(1.0),
            stops(),
            SleepFrame(PAUSE),
            STTMuteFrame(mute=False),
            *turn(),
        ],
    )
    assert [final.text for final in finals(down)] == ["Wait.", "Go on."]
    assert recognizer.stream.flushes == 3  # mute, stop, end
    assert recognizer.stream.pushed_s == pytest.approx(1.0 + 1.2)


async def test_a_caller_who_speaks_when_the_mute_ends_is_heard() -> None:
    recognizer = ScriptedRecognizer("", transcript("Hello.", final=True, start=0.3, flush_id=1))
    down, _ = await hear(
        recognizer,
        [
            STTMuteFrame(mute=True),
            SleepFrame(PAUSE),
            starts(),
            SleepFrame(PAUSE),
            STTMuteFrame(mute=False),
            SleepFrame(PAUSE),
            audio(1.0),
            stops(),
            SleepFrame(PAUSE),
        ],
    )
    assert [(final.text, final.finalized) for final in finals(down)] == [("Hello.", True)]


async def test_audio_at_another_rate_gets_a_stream_of_that_rate() -> None:
    recognizer = ScriptedRecognizer("First.", "Second.")
    down, _ = await hear(
        recognizer,
        [audio(0.5), starts(), audio(0.5, 8_000), SleepFrame(PAUSE), stops(), SleepFrame(PAUSE)],
    )
    assert [stream.options.sample_rate for stream in recognizer.streams] == [16_000, 8_000]
    assert [final.text for final in finals(down)] == ["First.", "Second."]
    # on the call's clock, whatever stream heard it
    assert [final.result.end for final in finals(down)] == pytest.approx([0.5, 1.0])


async def test_stereo_is_refused_by_name() -> None:
    _, up = await hear(ScriptedRecognizer(), [audio(0.1, channels=2), SleepFrame(PAUSE)])
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert "2 channels" in error.error
    assert error.category is ErrorCategory.APPLICATION


async def test_a_broken_stream_is_replaced_and_hears_again_what_no_final_covered() -> None:
    recognizer = ScriptedRecognizer("One.", "Two.")

    def breaks() -> None:
        recognizer.stream.say(StepFailedError("the network failed"))

    down, up = await hear(
        recognizer,
        [*turn(), audio(0.6), Do(what=breaks), audio(0.4), SleepFrame(0.4), *turn(0.2)],
    )
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert error.category is ErrorCategory.SERVER
    assert len(recognizer.streams) == 2
    assert recognizer.stream.pushed_s == pytest.approx(0.6 + 0.4 + 0.2 + 0.2)
    assert [final.text for final in finals(down)] == ["One.", "Two."]


async def test_an_engine_that_falls_behind_is_reported_once_and_not_for_every_packet() -> None:
    recognizer = ScriptedRecognizer("Here I am.")

    def overflows(error: Exception | None) -> Do:
        def what() -> None:
            recognizer.stream.push_error = error

        return Do(what=what)

    full = AudioOverflowError("30 s are waiting")
    packets = [audio(0.02) for _ in range(20)]
    down, up = await hear(
        recognizer, [overflows(full), *packets, SleepFrame(PAUSE), overflows(None), *turn()]
    )
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert "30 s" in error.error
    assert not error.category.is_permanent
    assert [final.text for final in finals(down)] == ["Here I am."]


async def test_a_stream_that_breaks_at_the_stop_still_brings_the_final() -> None:
    recognizer = ScriptedRecognizer(transcript("Two.", final=True, start=0.3, flush_id=0))

    def breaks() -> None:
        recognizer.stream.deaf = True
        recognizer.stream.say(StepFailedError("the network failed"))

    down, _ = await hear(
        recognizer, [audio(0.6), starts(), audio(0.4), Do(what=breaks), stops(), SleepFrame(0.5)]
    )
    assert [(final.text, final.finalized) for final in finals(down)] == [("Two.", True)]
    assert recognizer.stream.pushed_s == pytest.approx(1.0)


async def test_a_full_engine_is_tried_again_and_no_audio_is_lost() -> None:
    recognizer = ScriptedRecognizer("Here I am.")
    recognizer.refusals = [EngineFullError("every slot is taken")]
    down, up = await hear(recognizer, [audio(1.0), SleepFrame(0.4), *turn(0.2)])
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert error.category is ErrorCategory.RATE_LIMIT
    assert recognizer.stream.pushed_s == pytest.approx(1.4)
    assert [final.text for final in finals(down)] == ["Here I am."]


class Overflowing(ScriptedStream):
    """Takes no audio."""

    def push(self, pcm: bytes) -> None:
        raise AudioOverflowError("30 s are waiting")


async def test_half_a_minute_of_kept_audio_has_room_in_the_next_stream_beside_live_audio() -> None:
    recognizer = ScriptedRecognizer("Here I am.")
    recognizer.refusals = [EngineFullError("every slot is taken")]
    packets = [audio(0.07) for _ in range(450)]
    down, up = await hear(recognizer, [*packets, SleepFrame(0.4), *turn(0.2)])
    assert [error.category for error in errors(up)] == [ErrorCategory.RATE_LIMIT]
    kept_s = recognizer.stream.pushed_s - 0.4
    assert 29.9 < kept_s <= 30.0
    assert recognizer.stream.options.max_buffered_s == pytest.approx(kept_s + 30.0)
    assert [final.text for final in finals(down)] == ["Here I am."]


async def test_a_stream_that_can_t_take_what_was_kept_is_closed_and_another_one_tried() -> None:
    recognizer = ScriptedRecognizer("Here I am.")
    recognizer.refusals = [EngineFullError("every slot is taken")]
    opened = recognizer.open
    overflowing: list[Overflowing] = []

    def open_(**options: Any) -> ScriptedStream:
        stream = opened(**options)  # or refuses
        if not overflowing:
            overflowing.append(Overflowing(stream.options, []))
            return overflowing[0]
        return stream

    recognizer.open = open_  # type: ignore[method-assign, assignment]
    down, up = await hear(recognizer, [audio(1.0), SleepFrame(1.0), *turn(0.2)])
    assert [error.category for error in errors(up)] == [
        ErrorCategory.RATE_LIMIT,
        ErrorCategory.SERVER,
    ]
    assert overflowing[0].closed
    assert recognizer.stream.pushed_s == pytest.approx(1.4)
    assert [final.text for final in finals(down)] == ["Here I am."]


async def test_half_a_sample_that_comes_before_there_is_a_stream_does_not_spoil_what_is_kept() -> (
    None
):
    recognizer = ScriptedRecognizer("Here I am.")
    recognizer.refusals = [EngineFullError("every slot is taken")]
    odd = InputAudioRawFrame(b"\1\0\1", RATE, 1)
    down, up = await hear(recognizer, [audio(1.0), odd, SleepFrame(0.4), *turn(0.2)])
    assert [error.category for error in errors(up)] == [
        ErrorCategory.RATE_LIMIT,
        ErrorCategory.APPLICATION,
    ]
    assert recognizer.stream.pushed_s == pytest.approx(1.4)
    assert [final.text for final in finals(down)] == ["Here I am."]


async def test_any_other_exception_of_a_stream_is_an_error_and_the_call_goes_on() -> None:
    recognizer = ScriptedRecognizer("One.", "Two.")

    def breaks() -> None:
        recognizer.stream.say(RuntimeError("CUDA error: an illegal memory access"))

    down, up = await hear(
        recognizer, [*turn(), audio(0.6), Do(what=breaks), SleepFrame(0.4), *turn(0.2)]
    )
    (error,) = errors(up)
    assert "illegal memory access" in error.error
    assert error.category is ErrorCategory.SERVER
    assert [stream.closed for stream in recognizer.streams] == [True, True]
    assert [final.text for final in finals(down)] == ["One.", "Two."]


async def test_any_other_exception_at_the_opening_is_an_error_and_tried_again() -> None:
    recognizer = ScriptedRecognizer("Here I am.")
    recognizer.refusals = [RuntimeError("CUDA out of memory")]
    down, up = await hear(recognizer, [audio(1.0), SleepFrame(0.4), *turn(0.2)])
    assert ["CUDA out of memory" in error.error for error in errors(up)] == [True]
    assert [final.text for final in finals(down)] == ["Here I am."]


@pytest.mark.parametrize("failure", [RuntimeError("CUDA out of memory"), ImportError("libcudart")])
async def test_a_model_that_can_t_be_loaded_takes_the_service_out_of_use(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(model: str) -> Any:
        raise failure

    monkeypatch.setattr("nemotron_voice.pipecat.stt.shared_engine", fails)
    service = NemotronSTTService()
    _, up = await run_test(service, frames_to_send=turn())
    (error,) = errors(up)
    assert str(failure) in error.error
    assert error.category.is_permanent
    assert not service.is_usable


async def test_settings_that_can_work_bring_a_refused_service_back() -> None:
    recognizer = ScriptedRecognizer("Here I am.")
    recognizer.refusals = [ConfigurationError("the model has no such language")]
    delta = NemotronSTTService.Settings(language="en-US")
    service = NemotronSTTService(engine=recognizer)
    down, up = await run_test(
        service,
        frames_to_send=[
            *(SleepFrame(PAUSE), STTUpdateSettingsFrame(delta=delta), SleepFrame(PAUSE)),
            *turn(),
        ],
    )
    assert len(errors(up)) == 1
    assert service.is_usable
    assert recognizer.stream.options.language == "en-US"
    assert [final.text for final in finals(list(down))] == ["Here I am."]


async def test_new_settings_load_a_model_that_could_not_be_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recognizer = ScriptedRecognizer("Here I am.")
    answers: list[Any] = [ModelError("no such model"), recognizer]

    async def load(model: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("nemotron_voice.pipecat.stt.shared_engine", load)
    service = NemotronSTTService()
    delta = NemotronSTTService.Settings(language="en-US")
    down, _ = await run_test(
        service,
        frames_to_send=[
            *(SleepFrame(PAUSE), STTUpdateSettingsFrame(delta=delta), SleepFrame(PAUSE)),
            *turn(),
        ],
    )
    assert service.is_usable
    assert [final.text for final in finals(list(down))] == ["Here I am."]


async def test_a_server_that_comes_late_and_refuses_takes_the_service_out_of_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals = [ServerUnreachableError("does not answer"), ServerRefusedError("401: wrong key")]
    asked: list[str] = []

    async def refuses(model: str) -> Any:
        asked.append(model)
        raise refusals[min(len(asked), len(refusals)) - 1]

    monkeypatch.setattr("nemotron_voice.pipecat.stt.shared_engine", refuses)
    monkeypatch.setattr("nemotron_voice.pipecat.stt.CONNECT_EVERY_S", 0.05)
    service = NemotronSTTService(url="ws://localhost:8080")
    _, up = await run_test(service, frames_to_send=[audio(0.5), SleepFrame(1.0)])
    assert "401" in errors(up)[-1].error
    assert not service.is_usable
    assert len(asked) == 2


@pytest.mark.parametrize(
    "error",
    [
        *(ConfigurationError("x"), ModelError("x"), ServerRefusedError("x"), ProtocolError("x")),
        *(EngineFullError("x"), EngineError("x"), ServerUnreachableError("x")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_call_gives_up_on_is_permanent_for_the_framework_too(
    error: NemotronVoiceError,
) -> None:
    assert _category(error).is_permanent is is_permanent(error)


async def test_a_call_that_ends_waits_some_seconds_at_most_for_its_last_words() -> None:
    recognizer = ScriptedRecognizer()
    waited: list[float] = []

    def goes_dead() -> None:
        async def finish(*, deadline_s: float = 60.0) -> Any:
            waited.append(deadline_s)
            raise ServerUnreachableError("no server any more")

        recognizer.stream.finish = finish  # type: ignore[method-assign]

    await hear(recognizer, [starts(), audio(0.5), Do(what=goes_dead)])
    assert waited == [FINISH_S]
    assert FINISH_S < 5.0
    assert recognizer.stream.closed


async def test_another_rate_while_the_engine_is_full_leaves_one_stream_open() -> None:
    recognizer = ScriptedRecognizer()
    recognizer.refusals = [EngineFullError("every slot is taken")]
    await hear(recognizer, [audio(0.5), audio(0.5, 8_000), SleepFrame(0.4)])
    assert [stream.options.sample_rate for stream in recognizer.streams] == [8_000]


async def test_the_time_to_the_final_is_announced_and_measured() -> None:
    down, _ = await hear(ScriptedRecognizer("Yes."), turn())
    metadata = [frame for frame in down if isinstance(frame, STTMetadataFrame)]
    assert [frame.ttfs_p99_latency for frame in metadata] == [NEMOTRON_TTFS_P99]
    data = [item for frame in down if isinstance(frame, MetricsFrame) for item in frame.data]
    (usage, *_) = [item for item in data if isinstance(item, STTUsageMetricsData)]
    assert usage.value.audio_seconds == pytest.approx(1.2)
    ttfb = [item.value for item in data if isinstance(item, TTFBMetricsData) if item.value]
    assert 0.2 <= ttfb[0] < 2.0


async def test_interruptions_in_every_place_lose_nothing() -> None:
    frames = [InterruptionFrame(), *turn(), InterruptionFrame(), *turn(), InterruptionFrame()]
    down, _ = await hear(ScriptedRecognizer("One.", "Two."), frames)
    assert [final.text for final in finals(down)] == ["One.", "Two."]


async def test_cleaning_up_twice_or_before_the_start_is_harmless() -> None:
    service = NemotronSTTService(engine=ScriptedRecognizer())
    await service._call.aclose()
    await service._call.aclose()
