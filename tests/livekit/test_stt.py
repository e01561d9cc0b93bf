"""The LiveKit STT on scripted recognisers: what LiveKit is told, and when."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("livekit.agents")

from livekit import rtc
from livekit.agents import APIConnectionError, APIConnectOptions, APIError, stt

from nemotron_voice.errors import (
    AudioOverflowError,
    ConfigurationError,
    EngineFullError,
    StepFailedError,
)
from nemotron_voice.livekit import STT, RecognizeStream
from nemotron_voice.livekit.stt import MANUAL_FLUSH
from nemotron_voice.transcript import Transcript
from tests.scripted_recognizer import ScriptedRecognizer, transcript

RATE = 24_000  # as a room gives it
Event = stt.SpeechEventType
QUICK = APIConnectOptions(max_retry=3, retry_interval=0.05, timeout=10.0)


def frame(seconds: float = 0.05, rate: int = RATE, channels: int = 1) -> rtc.AudioFrame:
    samples = int(seconds * rate)
    return rtc.AudioFrame(b"\1\0" * samples * channels, rate, channels, samples)


class Listener:
    """Pushes into a stream and collects its events."""

    def __init__(self, stream: RecognizeStream) -> None:
        self.stream = stream
        self.events: list[stt.SpeechEvent] = []
        self.error: Exception | None = None
        self.ended = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        try:
            async for event in self.stream:
                self.events.append(event)
        except APIError as error:
            self.error = error

    async def push(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.stream.push_frame(frame())
        await settle()

    async def flush(self) -> None:
        self.stream.flush()
        await settle()

    async def end(self) -> None:
        self.stream.end_input()
        await asyncio.wait_for(self.ended, 5)

    def kinds(self) -> list[str]:
        """Without usage, and without the empty final that answers a flush with nothing new."""
        told = [e for e in self.events if e.type is not Event.RECOGNITION_USAGE]
        return [e.type.name for e in told if not e.alternatives or e.alternatives[0].text]

    def texts(self, kind: stt.SpeechEventType = Event.FINAL_TRANSCRIPT) -> list[str]:
        return [text for text in self.all_texts(kind) if text]

    def all_texts(self, kind: stt.SpeechEventType = Event.FINAL_TRANSCRIPT) -> list[str]:
        return [event.alternatives[0].text for event in self.events if event.type is kind]


async def settle() -> None:
    await asyncio.sleep(0.03)


@asynccontextmanager
async def listening(recogniser: STT) -> AsyncIterator[Listener]:
    stream = recogniser.stream(conn_options=QUICK)
    try:
        yield Listener(stream)
    finally:
        await stream.aclose()


def flushing(recognizer: ScriptedRecognizer, **options: object) -> STT:
    return STT(engine=recognizer, end_of_utterance_s=1e9, preflight_s=None, **options)


async def test_a_flush_brings_a_final_then_the_end_of_speech_and_the_stream_goes_on() -> None:
    recognizer = ScriptedRecognizer("A table for four.", "On Friday.")
    async with listening(flushing(recognizer)) as caller:
        await caller.push(1.0)
        recognizer.stream.say(transcript("A table", start=0.1))
        await settle()
        await caller.flush()
        await caller.push(1.0)
        await caller.flush()
        await caller.end()
    assert caller.kinds() == [
        *("START_OF_SPEECH", "INTERIM_TRANSCRIPT", "FINAL_TRANSCRIPT", "END_OF_SPEECH"),
        *("START_OF_SPEECH", "FINAL_TRANSCRIPT", "END_OF_SPEECH"),
    ]
    assert caller.texts() == ["A table for four.", "On Friday."]
    assert recognizer.stream.options.sample_rate == RATE
    assert recognizer.stream.pushed_s == pytest.approx(2.0)
    assert recognizer.stream.closed


async def test_a_flush_with_nothing_new_is_answered_empty_so_that_a_commit_needn_t_wait() -> None:
    async with listening(flushing(ScriptedRecognizer())) as caller:
        await caller.flush()  # before any audio
        await caller.push(0.5)
        await caller.flush()
        await caller.end()
    assert caller.all_texts() == ["", "", ""]  # the end of the input is a flush as well
    assert caller.kinds() == []


async def test_what_a_final_tells() -> None:
    answer = transcript("Hola mundo", final=True, language="es-ES", start=0.2, flush_id=0)
    async with listening(flushing(ScriptedRecognizer(answer))) as caller:
        caller.stream.start_time_offset = 10.0
        await caller.push(1.0)
        await caller.flush()
        await caller.end()
    final = next(e for e in caller.events if e.type is Event.FINAL_TRANSCRIPT)
    (data,) = final.alternatives
    assert (data.language, data.text, data.confidence) == ("es-ES", "Hola mundo", 0.9)
    assert (data.start_time, data.end_time) == pytest.approx((10.2, 10.6))
    assert data.words is not None
    assert [(str(w), w.start_time) for w in data.words] == [
        ("Hola", pytest.approx(10.2)),
        ("mundo", pytest.approx(10.4)),
    ]


async def test_an_undecided_language_is_the_last_one_and_never_auto() -> None:
    first = transcript("Hola", final=True, language="es-ES", start=0.2, flush_id=0)
    second = transcript("eh", final=True, language=None, start=1.2, flush_id=1)
    async with listening(flushing(ScriptedRecognizer(first, second))) as caller:
        for _ in range(2):
            await caller.push(1.0)
            await caller.flush()
        await caller.end()
    finals = [e for e in caller.events if e.type is Event.FINAL_TRANSCRIPT]
    assert {str(e.alternatives[0].language) for e in finals} == {"es-ES"}


async def test_quiet_first_brings_a_preflight_and_then_the_end() -> None:
    recognizer = ScriptedRecognizer("A table for four.")
    ears = STT(engine=recognizer, latency_ms=80, end_of_utterance_s=0.6, preflight_s=0.2)
    async with listening(ears) as caller:
        await caller.push(1.0)
        recognizer.stream.say(transcript("A table for four.", start=0.2))  # until 1.0
        await settle()
        await caller.push(0.2)
        assert "PREFLIGHT_TRANSCRIPT" not in caller.kinds()
        await caller.push(0.1)
        assert caller.kinds()[-1] == "PREFLIGHT_TRANSCRIPT"
        await caller.push(0.3)
        assert "END_OF_SPEECH" not in caller.kinds()
        await caller.push(0.2)
        assert caller.kinds()[-2:] == ["FINAL_TRANSCRIPT", "END_OF_SPEECH"]
        await caller.end()
    assert caller.kinds().count("PREFLIGHT_TRANSCRIPT") == 1
    assert caller.texts() == ["A table for four."]


async def test_who_goes_on_talking_isn_t_cut_off() -> None:
    recognizer = ScriptedRecognizer()
    ears = STT(engine=recognizer, latency_ms=80, end_of_utterance_s=0.6)
    async with listening(ears) as caller:
        for end in (1.0, 1.6, 2.2):
            await caller.push(end - recognizer.stream.pushed_s if recognizer.streams else end)
            recognizer.stream.say(transcript("still talking", start=end - 0.4))
            await settle()
        assert recognizer.stream.flushes == 0
        assert "END_OF_SPEECH" not in caller.kinds()


async def mid_speech(caller: Listener, recognizer: ScriptedRecognizer) -> None:
    """A caller whose flush brings only the words before the last one, as in loud noise."""
    await caller.push(1.0)
    recognizer.stream.say(transcript("A table for four", start=0.2))
    await settle()
    await caller.push(0.8)


def ours(recognizer: ScriptedRecognizer) -> STT:
    return STT(engine=recognizer, latency_ms=80, end_of_utterance_s=0.6, preflight_s=None)


def rest(*, flush_id: int = 0) -> Transcript:
    return transcript("four.", final=True, start=0.8, flush_id=flush_id)


FIRST_WORDS = transcript("A table for", final=True, start=0.2, flush_id=0, complete=False)
BEGINNING = ["START_OF_SPEECH", "INTERIM_TRANSCRIPT", "FINAL_TRANSCRIPT"]


@pytest.mark.parametrize("shown", [False, True])
async def test_the_end_of_speech_waits_for_the_word_that_a_flush_in_mid_speech_left(
    shown: bool,
) -> None:
    recognizer = ScriptedRecognizer(FIRST_WORDS)
    async with listening(ours(recognizer)) as caller:
        await mid_speech(caller, recognizer)
        assert caller.kinds() == BEGINNING
        if shown:
            recognizer.stream.say(transcript("four", start=0.8))
            await settle()
        recognizer.stream.say(rest())
        await settle()
        assert caller.kinds()[3:] == [
            *(["INTERIM_TRANSCRIPT"] if shown else []),
            *("FINAL_TRANSCRIPT", "END_OF_SPEECH"),
        ]
        await caller.push(3.0)
        await caller.end()
    assert caller.texts() == ["A table for", "four."]
    assert [kind for kind in caller.kinds() if kind.endswith("_OF_SPEECH")] == [
        *("START_OF_SPEECH", "END_OF_SPEECH"),
    ]


async def test_the_session_s_own_flush_ends_the_speech_and_what_it_left_is_closed_as_well() -> None:
    recognizer = ScriptedRecognizer(FIRST_WORDS)
    async with listening(flushing(recognizer)) as caller:
        await mid_speech(caller, recognizer)
        await caller.flush()
        assert caller.kinds() == [*BEGINNING, "END_OF_SPEECH"]
        recognizer.stream.say(rest())
        await settle()
        assert caller.kinds()[4:] == ["START_OF_SPEECH", "FINAL_TRANSCRIPT", "END_OF_SPEECH"]


async def test_an_end_that_waits_for_words_comes_without_them_in_the_end() -> None:
    recognizer = ScriptedRecognizer(FIRST_WORDS)
    async with listening(ours(recognizer)) as caller:
        await mid_speech(caller, recognizer)
        await caller.push(2.0)
        assert caller.kinds() == [*BEGINNING, "END_OF_SPEECH"]


async def test_who_goes_on_after_a_flush_in_mid_speech_is_still_speaking() -> None:
    recognizer = ScriptedRecognizer(FIRST_WORDS, "four on Friday.")
    async with listening(ours(recognizer)) as caller:
        await mid_speech(caller, recognizer)
        for end_s in (2.2, 2.6, 3.0, 3.4):
            recognizer.stream.say(transcript("four on Friday", start=end_s - 0.6))
            await settle()
            await caller.push(0.4)
        assert "END_OF_SPEECH" not in caller.kinds()
        await caller.push(0.8)
        assert caller.kinds()[-2:] == ["FINAL_TRANSCRIPT", "END_OF_SPEECH"]
    assert caller.texts() == ["A table for", "four on Friday."]


async def test_punctuation_alone_is_no_final() -> None:
    async with listening(flushing(ScriptedRecognizer("."))) as caller:
        await caller.push(0.5)
        await caller.flush()
        await caller.end()
    assert caller.texts() == []


async def test_a_broken_stream_is_opened_again_and_hears_what_no_final_covered() -> None:
    recognizer = ScriptedRecognizer("One.", "Two.")
    errors: list[stt.STTError] = []
    ears = flushing(recognizer)
    ears.on("error", errors.append)
    async with listening(ears) as caller:
        await caller.push(1.0)
        await caller.flush()
        await caller.push(0.5)
        recognizer.stream.say(StepFailedError("the network failed"))
        await settle()
        await caller.push(0.5)
        await asyncio.sleep(0.3)
        assert recognizer.stream.pushed_s == pytest.approx(1.0, abs=0.06)
        await caller.flush()
        await caller.end()
    assert caller.texts() == ["One.", "Two."]
    assert [error.recoverable for error in errors] == [True]
    assert caller.error is None
    # times go on over the break
    told = [e.alternatives[0] for e in caller.events if e.type is Event.FINAL_TRANSCRIPT]
    ends = [data.end_time for data in told if data.text]
    assert ends == pytest.approx([0.2, 1.2], abs=0.06)  # a word in the last second of each


async def test_a_stream_that_breaks_at_a_flush_still_brings_the_final() -> None:
    recognizer = ScriptedRecognizer("Two.")
    async with listening(flushing(recognizer)) as caller:
        await caller.push(1.0)
        recognizer.stream.deaf = True
        await caller.flush()
        recognizer.stream.say(StepFailedError("the network failed"))
        await asyncio.sleep(0.3)
        assert caller.texts() == ["Two."]
        await caller.end()


async def test_a_stream_that_breaks_always_ends_with_an_error_of_livekit_s() -> None:
    recognizer = ScriptedRecognizer()
    recognizer.refusals = [EngineFullError("every slot is taken")] * 20
    async with listening(flushing(recognizer)) as caller:
        await caller.push(0.5)
        await asyncio.sleep(0.6)
    assert isinstance(caller.error, APIConnectionError)


async def test_a_full_engine_is_tried_again_and_no_audio_is_lost() -> None:
    recognizer = ScriptedRecognizer("Here I am.")
    recognizer.refusals = [EngineFullError("every slot is taken")]
    async with listening(flushing(recognizer)) as caller:
        await caller.push(1.0)
        await asyncio.sleep(0.3)
        await caller.flush()
        await caller.end()
    assert caller.texts() == ["Here I am."]
    assert recognizer.stream.pushed_s == pytest.approx(1.0)


async def test_an_engine_that_falls_behind_is_told_once_and_heals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recognizer = ScriptedRecognizer("Later.")
    async with listening(flushing(recognizer)) as caller:
        await caller.push(0.1)
        recognizer.stream.push_error = AudioOverflowError("30 s are waiting")
        await caller.push(1.0)
        recognizer.stream.push_error = None
        await caller.push(1.0)
        await caller.flush()
        await caller.end()
    assert caller.texts() == ["Later."]
    assert sum("30 s" in record.message for record in caplog.records) == 1


async def test_a_first_frame_longer_than_what_is_kept_for_a_break_is_pushed_all_the_same() -> None:
    recognizer = ScriptedRecognizer("All of it.")
    async with listening(flushing(recognizer)) as caller:
        caller.stream.push_frame(frame(35.0))
        await caller.flush()
    assert recognizer.stream.pushed_s == pytest.approx(35.0)


async def test_several_channels_are_refused_and_not_retried() -> None:
    async with listening(flushing(ScriptedRecognizer())) as caller:
        for _ in range(4):  # LiveKit 1.5 tries again all the same
            caller.stream.push_frame(frame(channels=2))
        await asyncio.wait_for(caller.ended, 5)
    assert isinstance(caller.error, APIConnectionError)
    assert "2 channels" in f"{caller.error} {caller.error.__cause__}"


async def test_closing_in_the_middle_of_a_flush_frees_the_slot() -> None:
    recognizer = ScriptedRecognizer("Never heard.")
    ears = flushing(recognizer)
    stream = ears.stream()
    stream.push_frame(frame(1.0))
    await settle()
    stream.flush()
    await stream.aclose()
    assert recognizer.stream.closed
    left = {task.get_name() for task in asyncio.all_tasks()}
    assert not [name for name in left if name.startswith("nemotron")]


async def test_options_change_in_band() -> None:
    recognizer = ScriptedRecognizer()
    ears = flushing(recognizer)
    async with listening(ears) as caller:
        await caller.push(0.5)
        ears.update_options(language="es-MX", latency_ms=160)
        assert recognizer.stream.updates == [{"language": "es-ES", "latency_ms": 160}]
        with pytest.raises(ConfigurationError):
            ears.update_options(language="tlh")
        with pytest.raises(ConfigurationError):
            ears.update_options(latency_ms=100)
        assert len(recognizer.stream.updates) == 1
    async with listening(ears) as later:
        await later.push(0.1)
    assert recognizer.stream.options.latency_ms == 160


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: STT(latency_ms=100), "100"),
        (lambda: STT(language="tlh"), "tlh"),
        (lambda: STT(endpointing="never"), "never"),
        (lambda: STT(endpointing="vad"), "vad="),
    ],
)
def test_what_can_t_be_is_refused_when_it_is_made(make: Callable[[], STT], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_capabilities() -> None:
    told = STT().capabilities
    assert (told.streaming, told.interim_results, told.offline_recognize) == (True, True, True)
    assert told.aligned_transcript == "word"
    assert getattr(told, "manual_flush", False) is MANUAL_FLUSH
    if MANUAL_FLUSH:
        assert not STT(endpointing="engine").capabilities.manual_flush


async def test_usage_is_reported_every_five_seconds_and_at_the_end() -> None:
    async with listening(flushing(ScriptedRecognizer())) as caller:
        await caller.push(12.0)
        await caller.end()
    usage = [e.recognition_usage for e in caller.events if e.recognition_usage]
    assert [u.audio_duration for u in usage] == pytest.approx([5.0, 5.0, 2.0], abs=0.06)


async def test_recognize_takes_a_whole_recording() -> None:
    recognizer = ScriptedRecognizer("All of it.")
    event = await flushing(recognizer).recognize([frame(1.0), frame(1.0)])
    assert event.type is Event.FINAL_TRANSCRIPT
    assert event.alternatives[0].text == "All of it."
    assert recognizer.stream.pushed_s == pytest.approx(2.0)
    assert recognizer.stream.closed


async def test_two_streams_at_once_are_two_callers() -> None:
    recognizer = ScriptedRecognizer("One.", "Two.")
    ears = flushing(recognizer)
    async with listening(ears) as first, listening(ears) as second:
        await first.push(0.5)
        await second.push(0.7)
        await first.flush()
        await second.flush()
        await first.end()
        await second.end()
    assert (first.texts(), second.texts()) == (["One."], ["Two."])
    assert [stream.closed for stream in recognizer.streams] == [True, True]


def test_importing_brings_neither_torch_nor_a_thread() -> None:
    code = (
        "import sys, threading, nemotron_voice.livekit as n; n.STT();"
        "assert 'torch' not in sys.modules, 'torch';"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
