"""Unmodified clients, with nothing but the URL changed, hear what is said in a bilingual call.

What they hear is compared with the call's script.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import numpy as np
import openai
import pytest
import websockets

pytest.importorskip("deepgram")
pytest.importorskip("pipecat")
pytest.importorskip("livekit.plugins.deepgram")

import aiohttp
from deepgram import AsyncDeepgramClient, DeepgramClient, DeepgramClientEnvironment
from deepgram.core import ApiError
from deepgram.core.events import EventType
from deepgram.listen.v1.types import (
    ListenV1Metadata,
    ListenV1Results,
    ListenV1SpeechStarted,
    ListenV1UtteranceEnd,
)
from livekit import rtc
from livekit.agents import APIConnectOptions, APIStatusError, stt
from livekit.plugins import deepgram as livekit_deepgram
from pipecat.frames.frames import ErrorFrame
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.workers.runner import WorkerRunner

from benchmarks.pipecat_bot import call, make_bot
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls, plain_words, word_errors
from nemotron_voice.server import ServerOptions
from tests.running_server import RunningServer, running_server

pytestmark = pytest.mark.server

RATE = 16_000
KEY = "the right key"
CALL = bundled_calls()[0]  # English, Spanish, English
SAMPLES = read_samples(CALL.audio)
PAUSE_S = 0.3  # after a turn, to where it is flushed
WRONG = 0.15  # of the words at most: the bundled model mishears a tenth of this call at 320 ms

Event = stt.SpeechEventType


def pcm16(samples: np.ndarray[Any, Any] = SAMPLES) -> bytes:
    data: bytes = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    return data


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def turn_audio() -> Iterator[bytes]:
    """The call in parts that each end in the pause after a turn."""
    ends = [round((turn.end + PAUSE_S) * RATE) for turn in CALL.turns]
    return (pcm16(part) for part in np.split(SAMPLES, ends[:-1]))


def part_wrong(heard: str) -> float:
    script = plain_words(" ".join(turn.text for turn in CALL.turns))
    return word_errors(script, plain_words(heard)) / len(script)


@pytest.fixture(scope="module")
def locked() -> Iterator[RunningServer]:
    """A server that wants a key."""
    with (
        Engine.load("demo", threads=1) as engine,
        running_server(engine, ServerOptions(api_keys=(KEY,))) as server,
    ):
        yield server


# ---- Pipecat


def pipecat_service(server: RunningServer, key: str = KEY, **settings: Any) -> DeepgramSTTService:
    return DeepgramSTTService(
        api_key=key,
        base_url=server.url,
        settings=DeepgramSTTService.Settings(language="multi", **settings),
    )


async def pipecat_error(service: DeepgramSTTService) -> str:
    """The first error that the service's pipeline is told of."""
    worker, _ = make_bot(service)
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_error(_: object, frame: ErrorFrame) -> None:
        if not told.done():
            told.set_result(frame.error)

    worker.add_event_handler("on_pipeline_error", on_error)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        return await asyncio.wait_for(told, 10)
    finally:
        await worker.cancel()
        await running


async def test_pipecats_service_gets_a_finalized_transcript_for_each_stop_of_its_detector(
    server: RunningServer,
) -> None:
    log = await call(pipecat_service(server), SAMPLES)  # in real time
    assert part_wrong(log.text) <= WRONG
    assert {str(frame.language) for _, frame in log.finals} == {"en", "es"}
    to_final, _, unanswered = log.waits()
    assert len(to_final) >= len(CALL.turns) - 1  # a pause too short for the detector joins two
    assert unanswered == 0
    assert log.interims


async def test_pipecats_service_is_refused_with_a_wrong_key(locked: RunningServer) -> None:
    assert "status 401" in await pipecat_error(pipecat_service(locked, "wrong"))


async def test_pipecats_service_is_refused_what_is_not_done_here(server: RunningServer) -> None:
    assert "status 400" in await pipecat_error(pipecat_service(server, redact=["pci"]))


# ---- LiveKit


@asynccontextmanager
async def livekit_stt(server: RunningServer, key: str = KEY, **options: Any) -> AsyncIterator[Any]:
    async with aiohttp.ClientSession() as session:
        yield livekit_deepgram.STT(
            api_key=key,
            base_url=f"{server.http}/v1/listen",
            language="multi",
            http_session=session,
            **options,
        )


def livekit_frames(data: bytes) -> Iterator[rtc.AudioFrame]:
    for packet in pieces(data, RATE // 50 * 2):
        yield rtc.AudioFrame(packet, RATE, 1, len(packet) // 2)


async def livekit_events(
    ears: Any, parts: Iterable[bytes], *, flush: bool
) -> list[stt.SpeechEvent]:
    """What the plugin tells of these parts of speech, each flushed or not.

    It takes 5 s: the plugin's own stream ends after its next KeepAlive only.
    """
    async with ears.stream(conn_options=APIConnectOptions(max_retry=0, timeout=5)) as stream:
        for part in parts:
            for frame in livekit_frames(part):
                stream.push_frame(frame)
            if flush:
                stream.flush()
        stream.end_input()
        return [event async for event in stream]


def livekit_finals(events: Iterable[stt.SpeechEvent]) -> list[stt.SpeechData]:
    return [event.alternatives[0] for event in events if event.type is Event.FINAL_TRANSCRIPT]


@pytest.mark.parametrize(("endpointing_ms", "flush"), [(300, False), (0, True)])
async def test_livekits_plugin_hears_the_call_in_both_languages(
    server: RunningServer,
    endpointing_ms: int,
    flush: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with livekit_stt(server, endpointing_ms=endpointing_ms) as ears:
        events = await livekit_events(ears, turn_audio(), flush=flush)
    finals = livekit_finals(events)
    assert part_wrong(" ".join(final.text for final in finals)) <= WRONG
    assert {str(final.language) for final in finals} == {"en", "es"}
    kinds = [event.type for event in events]
    assert Event.INTERIM_TRANSCRIPT in kinds
    starts, ends = kinds.count(Event.START_OF_SPEECH), kinds.count(Event.END_OF_SPEECH)
    assert starts == ends >= len(CALL.turns) - 1
    assert "failed to process" not in caplog.text


async def test_livekits_plugin_is_told_of_an_end_of_speech_whose_words_are_final_already(
    server: RunningServer,
) -> None:
    turn = CALL.turns[1]
    speech = pcm16(SAMPLES[round(turn.start * RATE) : round(turn.end * RATE)])
    silence = bytes(2 * 3 * RATE)
    async with livekit_stt(server, endpointing_ms=1500) as ears:
        parts = [silence, speech, silence, speech, silence]
        events = await livekit_events(ears, parts, flush=False)
    edges = [Event.START_OF_SPEECH, Event.END_OF_SPEECH]
    assert [event.type for event in events if event.type in edges] == edges * 2


async def test_livekits_plugin_recognises_a_whole_recording(server: RunningServer) -> None:
    async with livekit_stt(server) as ears:
        heard = await ears.recognize(list(livekit_frames(pcm16())))
    assert part_wrong(heard.alternatives[0].text) <= WRONG


@pytest.mark.parametrize("options", [{"redact": "pci"}, {"enable_diarization": True}])
async def test_livekits_plugin_is_refused_what_is_not_done_here(
    server: RunningServer, options: dict[str, Any]
) -> None:
    async with livekit_stt(server, **options) as ears:
        with pytest.raises(APIStatusError) as refused:
            await livekit_events(ears, turn_audio(), flush=True)
    assert refused.value.status_code == 400
    assert not refused.value.retryable


async def test_livekits_plugin_is_refused_with_a_wrong_key(locked: RunningServer) -> None:
    async with livekit_stt(locked, "wrong") as ears:
        with pytest.raises(APIStatusError) as refused:
            await livekit_events(ears, turn_audio(), flush=True)
    assert refused.value.status_code == 401
    assert not refused.value.retryable


# ---- Deepgram's own SDK


def sdk(kind: Any, server: RunningServer, key: str = KEY) -> Any:
    environment = DeepgramClientEnvironment(
        base=server.http, production=server.url, agent=server.url, agent_rest=server.http
    )
    return kind(api_key=key, environment=environment)


def sdk_connection(server: RunningServer, key: str = KEY, **options: Any) -> Any:
    return sdk(AsyncDeepgramClient, server, key).listen.v1.connect(
        model="nova-3", language="multi", encoding="linear16", sample_rate=RATE, **options
    )


async def sdk_messages(server: RunningServer, **options: Any) -> list[Any]:
    """The call, finalised in the pause after each turn, and three seconds of silence."""
    messages: list[Any] = []
    async with sdk_connection(server, **options) as connection:
        connection.on(EventType.MESSAGE, messages.append)
        listening = asyncio.create_task(connection.start_listening())
        for part in turn_audio():
            for packet in pieces(part, 4096):
                await connection.send_media(packet)
            await connection.send_keep_alive()
            await connection.send_finalize()
        await connection.send_media(bytes(2 * 3 * RATE))
        await connection.send_close_stream()
        await asyncio.wait_for(listening, 30)
    return messages


async def test_deepgrams_sdk_gets_an_answer_to_each_finalize_and_the_metadata_last(
    server: RunningServer,
) -> None:
    *results, metadata = await sdk_messages(server, keyterm="paella")
    assert all(isinstance(result, ListenV1Results) and result.is_final for result in results)
    heard = [result.channel.alternatives[0] for result in results]
    assert part_wrong(" ".join(alternative.transcript for alternative in heard)) <= WRONG
    spoken = [alternative.languages for alternative in heard if alternative.transcript]
    assert {language for languages in spoken for language in languages} == {"en", "es"}
    assert all(word.punctuated_word and word.language for one in heard for word in one.words)
    answers = [result for result in results if result.from_finalize]
    assert len(answers) == len(CALL.turns)  # what CloseStream finalised is no answer
    assert isinstance(metadata, ListenV1Metadata)
    assert metadata.duration == pytest.approx(SAMPLES.size / RATE + 3, abs=0.01)
    assert metadata.request_id == results[0].metadata.request_id
    assert any("keyterm" in warning for warning in metadata.warnings)  # type: ignore[attr-defined]


async def test_deepgrams_sdk_is_told_where_speech_starts_and_utterances_end(
    server: RunningServer,
) -> None:
    messages = await sdk_messages(
        server, interim_results=True, vad_events=True, utterance_end_ms=1000
    )
    starts = [m.timestamp for m in messages if isinstance(m, ListenV1SpeechStarted)]
    for turn in CALL.turns:
        assert any(abs(start - turn.start) < 0.2 for start in starts), turn
    assert starts == sorted(set(starts))
    ends = [m.last_word_end for m in messages if isinstance(m, ListenV1UtteranceEnd)]
    assert ends == sorted(set(ends))  # no end is told twice
    assert ends[-1] == pytest.approx(CALL.turns[-1].end, abs=0.3)
    results = [m for m in messages if isinstance(m, ListenV1Results)]
    assert not all(result.is_final for result in results)
    words = [word for m in results if m.is_final for word in m.channel.alternatives[0].words]
    for end in ends:  # there is a pause behind each; audio came faster than it was decoded
        following = min((word.start for word in words if word.start >= end), default=np.inf)
        assert following - end >= 0.9


def test_deepgrams_sdk_transcribes_a_file(server: RunningServer) -> None:
    response = sdk(DeepgramClient, server).listen.v1.media.transcribe_file(
        request=CALL.audio.read_bytes(), model="nova-3", language="multi"
    )
    heard = response.results.channels[0].alternatives[0]
    assert part_wrong(heard.transcript) <= WRONG
    assert heard.languages == ["es", "en"]  # by the number of words
    metadata = response.metadata
    assert metadata.duration == pytest.approx(SAMPLES.size / RATE, abs=0.05)
    assert set(metadata.model_info) == set(metadata.models)
    assert metadata.created is not None


async def test_deepgrams_sdk_is_refused_with_a_wrong_key(locked: RunningServer) -> None:
    with pytest.raises(ApiError, match="invalid credentials") as refused:
        async with sdk_connection(locked, "wrong"):
            pass
    assert refused.value.status_code == 401
    with pytest.raises(ApiError, match="API key is missing or wrong") as refused:
        sdk(DeepgramClient, locked, "wrong").listen.v1.media.transcribe_file(request=b"audio")
    assert refused.value.status_code == 401


async def test_deepgrams_sdk_is_refused_what_is_not_done_here(server: RunningServer) -> None:
    with pytest.raises(ApiError) as refused:
        async with sdk_connection(server, diarize=True):
            pass
    assert refused.value.status_code == 400
    with pytest.raises(ApiError, match="redact=pci can't be honoured") as refused:
        sdk(DeepgramClient, server).listen.v1.media.transcribe_file(request=b"audio", redact="pci")
    assert refused.value.status_code == 400


# ---- OpenAI's client


def openai_transcriptions(server: RunningServer, key: str = KEY) -> Any:
    client = openai.OpenAI(api_key=key, base_url=f"{server.http}/v1", max_retries=0)
    return client.audio.transcriptions


def openai_heard(server: RunningServer, response_format: str, key: str = KEY) -> Any:
    with CALL.audio.open("rb") as file:
        return openai_transcriptions(server, key).create(
            file=file, model="whisper-1", response_format=response_format
        )


def test_openais_client_gets_the_text_of_a_file(locked: RunningServer) -> None:
    heard = openai_heard(locked, "json")
    assert part_wrong(heard.text) <= WRONG
    assert openai_heard(locked, "text").strip() == heard.text


def test_openais_client_gets_languages_segments_and_words(server: RunningServer) -> None:
    heard = openai_heard(server, "verbose_json")
    assert part_wrong(heard.text) <= WRONG
    assert heard.duration == pytest.approx(SAMPLES.size / RATE, abs=0.05)
    assert heard.language == "spanish"
    assert " ".join(segment.text for segment in heard.segments) == heard.text
    assert {segment.language for segment in heard.segments} == {"en-US", "es-ES"}
    assert " ".join(word.word for word in heard.words) == heard.text
    times = [time for segment in heard.segments for time in (segment.start, segment.end)]
    assert times == sorted(times)


async def test_fields_of_openais_form_that_change_nothing_are_reported(
    server: RunningServer,
) -> None:
    form = aiohttp.FormData({"prompt": "Ahoj", "temperature": "0.5", "model": "any"})
    form.add_field("file", CALL.audio.read_bytes(), filename="call.ogg")
    url = f"{server.http}/v1/audio/transcriptions"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as response:
        assert response.status == 200
        assert response.headers["x-nemotron-warnings"] == "not honoured: prompt, temperature"


@pytest.mark.parametrize("response_format", ["srt", "vtt"])
def test_openais_client_gets_captions(server: RunningServer, response_format: str) -> None:
    captions = openai_heard(server, response_format)
    assert captions.startswith("WEBVTT\n\n" if response_format == "vtt" else "1\n00:00:00,")
    assert captions.count(" --> ") >= len(CALL.turns)
    assert "¿Hay sitio para dos el viernes" in captions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"response_format": "diarized_json"}, "response_format=diarized_json is not one of"),
        ({"stream": True}, "stream over WS /v1/listen"),
        ({"language": "xx"}, "xx"),
        ({"file": b"no audio at all"}, "the file"),
    ],
)
def test_openais_client_is_told_what_is_wrong_with_a_request(
    server: RunningServer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        openai_transcriptions(server).create(
            **{"file": CALL.audio.read_bytes(), "model": "whisper-1"} | options
        )


def test_openais_client_is_refused_with_a_wrong_key(locked: RunningServer) -> None:
    with pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
        openai_heard(locked, "json", "wrong")


# ---- a plain WebSocket


async def told(
    server: RunningServer, packets: Iterable[bytes | str], **query: Any
) -> list[dict[str, Any]]:
    """All messages of a stream but the Metadata that must end it."""
    async with websockets.connect(f"{server.url}/v1/listen?{urlencode(query)}") as socket:

        async def send() -> None:
            for packet in packets:
                await socket.send(packet)
            await socket.send('{"type": "CloseStream"}')

        sending = asyncio.create_task(send())
        *messages, metadata = [json.loads(message) async for message in socket]
        await sending
    assert metadata["type"] == "Metadata", metadata
    return messages


async def streamed(server: RunningServer, packets: Iterable[bytes], **query: Any) -> str:
    """The text of a stream."""
    finals = await told(server, packets, **query)
    texts = [final["channel"]["alternatives"][0]["transcript"] for final in finals]
    return " ".join(text for text in texts if text)


def encoded(codec: str, rate: int) -> list[bytes]:
    """The call in packets of FFmpeg's encoder."""
    from av import AudioFrame, AudioResampler
    from av.codec import CodecContext

    encoder: Any = CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    encoder.open()
    whole = AudioFrame.from_ndarray(np.frombuffer(pcm16(), "<i2")[None], "s16", "mono")
    whole.sample_rate = RATE
    resampler = AudioResampler("s16", "mono", rate, encoder.frame_size or rate // 50)
    frames = [*resampler.resample(whole), *resampler.resample(None), None]
    return [bytes(packet) for frame in frames for packet in encoder.encode(frame)]


@pytest.mark.parametrize(
    ("codec", "rate", "query"),
    [
        ("pcm_mulaw", 8_000, {"encoding": "mulaw"}),
        ("pcm_alaw", 8_000, {"encoding": "alaw", "sample_rate": 8_000}),
        ("libopus", 48_000, {"encoding": "opus"}),
        ("libopus", 16_000, {"encoding": "opus", "sample_rate": 16_000}),
    ],
)
async def test_encoded_packets_are_heard(
    server: RunningServer, codec: str, rate: int, query: dict[str, Any]
) -> None:
    assert part_wrong(await streamed(server, encoded(codec, rate), **query)) <= WRONG


async def test_packets_cut_within_a_sample_give_the_text_of_whole_ones(
    server: RunningServer,
) -> None:
    query = {"encoding": "linear16", "sample_rate": RATE}
    whole = await streamed(server, pieces(pcm16(), 640), **query)
    assert part_wrong(whole) <= WRONG
    assert await streamed(server, pieces(pcm16(), 333), **query) == whole


async def test_an_utterance_that_is_finalised_after_its_end_does_not_end_again(
    server: RunningServer,
) -> None:
    speech = pcm16(SAMPLES[: round(CALL.turns[0].end * RATE)])
    silence = bytes(2 * 2 * RATE)
    messages = await told(
        server,
        [speech, silence, '{"type": "Finalize"}', silence],
        encoding="linear16",
        sample_rate=RATE,
        utterance_end_ms=1000,
        finalize="flush",
    )
    kinds = [message["type"] for message in messages]
    assert kinds == ["UtteranceEnd", "Results", "Results"]  # of Finalize, and of CloseStream
