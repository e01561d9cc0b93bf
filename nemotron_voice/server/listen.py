"""`WS /v1/listen`: one connection, one stream of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from starlette.websockets import WebSocket, WebSocketDisconnect

from nemotron_voice.errors import (
    AudioError,
    ConfigurationError,
    NemotronVoiceError,
    ProtocolError,
    ServerRefusedError,
    StreamError,
)
from nemotron_voice.protocol import (
    Audio,
    ClientEvent,
    CloseStream,
    Configure,
    ConfigureSuccess,
    Error,
    Finalize,
    ListenOptions,
    ListenSession,
    Metadata,
    Results,
    SpeechStarted,
    UtteranceEnd,
)
from nemotron_voice.server.decoding import PacketDecoder

if TYPE_CHECKING:
    from nemotron_voice.endpointing import Endpointer
    from nemotron_voice.recognizer import RecognizerStream
    from nemotron_voice.server.health import ModelHealth
    from nemotron_voice.server.metrics import Metrics
    from nemotron_voice.server.options import ServerOptions
    from nemotron_voice.transcript import Transcript

_log = logging.getLogger(__name__)

FINALIZE_S = 2.0  # a Finalize is answered by then, with what is known
FINISH_S = 60.0  # a CloseStream; on a busy engine much may be undecoded
WATCH_S = 0.5  # how often idleness is looked at
BLOCK_S = 1  # of audio put into the stream at once: a message may be half a minute long

# WebSocket close codes, RFC 6455 and the IANA registry.
NORMAL, GOING_AWAY, POLICY, FAILED, RESTARTING, TRY_LATER = 1000, 1001, 1008, 1011, 1012, 1013

Asker = Literal["client", "detector", "end"]


@dataclass(slots=True)
class _Ending:
    """How a connection ends."""

    code: int
    reason: str = ""
    error: NemotronVoiceError | None = None
    gone: bool = False  # nobody is there to be told


_UNREAD = _Ending(POLICY, "results are not being read", gone=True)


class Connection:
    """Reads a client's audio, writes what the stream says, and ends in order.

    Whatever ends it but a vanished client, what was said so far is finalised and delivered first;
    not for a client that will replay it: half a word made final is not what the whole will be.
    """

    def __init__(
        self,
        websocket: WebSocket,
        stream: RecognizerStream,
        options: ListenOptions,
        *,
        limits: ServerOptions,
        metrics: Metrics,
        health: ModelHealth,
        model: str,
    ) -> None:
        self.request_id = uuid.uuid4().hex
        self._socket = websocket
        self._stream = stream
        self._options = options
        self._limits = limits
        self._metrics = metrics
        self._health = health
        self._model = model
        self._session = ListenSession(options)
        self._decoder = PacketDecoder(options)
        self._endpointer = _endpointer(options)
        self._draining = asyncio.Event()
        self._flushes = 0
        self._askers: dict[int, tuple[Asker, float]] = {}  # by flush_id, and when they asked
        self._answers: set[asyncio.Task[None]] = set()
        self._heard_at = time.monotonic()
        self._began = self._heard_at
        self._audio_s = 0.0
        self._utterance_end_at: float | None = None  # on the audio's clock
        self._last_word_s = 0.0
        self._utterance_ended_s = 0.0  # the last word's end that was told
        self._window_began, self._window_count = self._heard_at, 0

    def drain(self) -> None:
        """The server ends: take no more audio, deliver what was said, close."""
        self._draining.set()

    async def run(self) -> None:
        """Serve the connection to its end; the stream is closed then."""
        writer = asyncio.create_task(self._write(), name="listen-write")
        reader = asyncio.create_task(self._read(), name="listen-read")
        watcher = asyncio.create_task(self._watch(), name="listen-watch")
        tasks = (writer, reader, watcher)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ending = next(ended.result() for ended in (reader, writer, watcher) if ended.done())
            reader.cancel()
            watcher.cancel()
            keeps_all = self._options.replays and ending.code != NORMAL
            if not (ending.gone or keeps_all):
                ending = await self._finish(ending, writer)
            await self._close(ending)
        finally:
            for task in (*tasks, *self._answers):
                task.cancel()
            await self._stream.aclose()
            await asyncio.gather(*tasks, *self._answers, return_exceptions=True)
            self._metrics.audio.labels(str(self._options.latency_ms)).inc(self._audio_s)

    # ---- in

    async def _read(self) -> _Ending:
        try:
            while True:
                for event in self._receive(await self._socket.receive()):
                    if isinstance(event, CloseStream):
                        return _Ending(NORMAL)
                    await self._handle(event)
                await self._slow_down()
                self._heard_at = time.monotonic()
        except WebSocketDisconnect as gone:
            return _Ending(gone.code, gone=True)
        except TimeoutError:
            return _UNREAD
        except (ProtocolError, AudioError, ConfigurationError) as error:
            return _Ending(POLICY, type(error).__name__, error)
        except StreamError as error:  # the stream failed; the writer knows why, if it is faster
            return _Ending(FAILED, type(error).__name__, error)

    def _receive(self, message: Any) -> list[ClientEvent]:
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        self._heard_at = math.inf  # a client that waits for us isn't idle
        data = message.get("bytes")
        if len(data or message.get("text") or "") > self._limits.max_message_bytes:
            raise ProtocolError(  # our own server's sockets refuse it before, with 1009
                f"a message larger than {self._limits.max_message_bytes} bytes; send smaller ones"
            )
        if data is not None:
            return self._session.receive_bytes(data)
        return self._session.receive_text(message["text"])

    async def _handle(self, event: ClientEvent) -> None:
        if isinstance(event, Audio):
            await self._hear(self._decoder.decode(event.data))
        elif isinstance(event, Finalize):
            deadline_s = FINALIZE_S if event.deadline_ms is None else event.deadline_ms / 1000
            await self._flush("client", deadline_s)
        elif isinstance(event, Configure):
            self._stream.update(language=event.language, latency_ms=event.latency_ms)
            await self._send(ConfigureSuccess(self.request_id).to_text())

    async def _hear(self, pcm: bytes) -> None:
        """Put audio into the stream; wait, and with it the client, while too much is undecoded."""
        if not pcm:
            return
        second = 2 * self._options.sample_rate
        for at in range(0, len(pcm), BLOCK_S * second):
            block = pcm[at : at + BLOCK_S * second]
            self._stream.push(block)
            self._audio_s += len(block) / second
            if self._endpointer is not None:
                await self._endpoint(self._endpointer, block)
            await self._end_utterance()
            await self._stream.drained(self._limits.max_buffered_s)

    async def _endpoint(self, endpointer: Endpointer, pcm: bytes) -> None:
        for edge in endpointer.push(pcm):
            if edge.kind == "start":
                if self._options.vad_events:
                    await self._send(SpeechStarted(edge.at_s).to_text())
            elif self._options.endpointing_ms is not None:
                await self._flush("detector", FINALIZE_S)

    async def _end_utterance(self) -> None:
        if self._options.utterance_end_ms is None:
            return
        # Audio may come faster than it is decoded: a word may be under way in it.
        await self._stream.drained(0.0)
        await asyncio.sleep(0)  # the writer learns of it
        if self._utterance_end_at is not None and self._audio_s >= self._utterance_end_at:
            self._utterance_end_at = None
            self._utterance_ended_s = self._last_word_s
            await self._send(UtteranceEnd(self._last_word_s).to_text())

    async def _flush(self, asker: Asker, deadline_s: float) -> None:
        while len(self._answers) >= self._limits.max_pending_finalize:
            if self._options.replays:  # a minute of a call comes at once, with all its pauses
                await asyncio.wait(self._answers, return_when=asyncio.FIRST_COMPLETED)
                continue
            raise ProtocolError(
                f"{len(self._answers)} Finalize messages wait for an answer, the limit; send one "
                "for a pause"
            )
        answer = self._stream.flush(deadline_s=deadline_s)
        self._note(asker)
        task = asyncio.create_task(_await(answer), name="listen-flush")
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def _note(self, asker: Asker) -> None:
        """Who asked for the next flush: one with an earlier deadline may be answered first."""
        self._askers[self._flushes] = (asker, time.monotonic())
        self._flushes += 1

    async def _slow_down(self) -> None:
        """Read no more than so many messages a second: tiny ones cost as much as others."""
        self._window_count += 1
        if self._window_count < self._limits.max_messages_per_s:
            return
        left_s = self._window_began + 1.0 - time.monotonic()
        if left_s > 0:
            await asyncio.sleep(left_s)
        self._window_began, self._window_count = time.monotonic(), 0

    async def _watch(self) -> _Ending:
        """End what is idle, too long, or on a server that ends."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._draining.wait()
            if self._draining.is_set():
                return _Ending(RESTARTING, "the server is restarting")
            now = time.monotonic()
            if now - self._began > self._limits.session_s:
                limit = ServerRefusedError(
                    f"a connection may last {self._limits.session_s:g} s; open another one"
                )
                return _Ending(POLICY, "session length", limit)
            if now - self._heard_at > self._limits.idle_s:
                idle = ServerRefusedError(
                    f"NET-0001: neither audio nor KeepAlive for {self._limits.idle_s:g} s; send "
                    '{"type": "KeepAlive"} every 5 s while there is no audio'
                )
                return _Ending(FAILED, "NET-0001", idle)

    # ---- out

    async def _write(self) -> _Ending:
        try:
            async for transcript in self._stream:
                if transcript.text:
                    self._health.heard()
                asker: Asker | None = None
                if transcript.flush_id in self._askers:  # its first answer; a rest may follow
                    asker, asked_at = self._askers.pop(transcript.flush_id)
                    waited_s = time.monotonic() - asked_at
                    self._metrics.final.labels(str(self._options.latency_ms)).observe(waited_s)
                await self._tell(transcript, asker)
        except NemotronVoiceError as error:
            return _Ending(FAILED, type(error).__name__, error)
        except (WebSocketDisconnect, RuntimeError):  # the client has gone
            return _Ending(NORMAL, gone=True)
        except TimeoutError:
            return _UNREAD
        return _Ending(NORMAL)

    async def _tell(self, transcript: Transcript, asker: Asker | None) -> None:
        if transcript.words and self._options.utterance_end_ms is not None:
            last = transcript.words[-1]
            if last.start >= self._utterance_ended_s:  # not the word whose end has been told
                self._last_word_s = last.end
                self._utterance_end_at = last.end + self._options.utterance_end_ms / 1000
        if not (transcript.is_final or self._options.interim_results):
            return
        results = Results(
            transcript,
            from_finalize=asker == "client",
            speech_final=transcript.flush_id is not None,  # also the rest of a flush in mid-word
            request_id=self.request_id,
            model=self._model,
        )
        await self._send(results.to_text())

    async def _send(self, text: str) -> None:
        async with asyncio.timeout(self._limits.send_s):
            await self._socket.send_text(text)

    # ---- the end

    async def _finish(self, ending: _Ending, writer: asyncio.Task[_Ending]) -> _Ending:
        """Finalise what was said and let the writer deliver it."""
        if not writer.done():
            self._note("end")
            with contextlib.suppress(NemotronVoiceError):
                in_time = FINISH_S if ending.code == NORMAL else self._limits.drain_s
                await self._stream.finish(deadline_s=in_time)
        written = await writer
        return written if written.error is not None or written.gone else ending

    async def _close(self, ending: _Ending) -> None:
        self._metrics.ended.labels(str(ending.code)).inc()
        self._health.ended(ending.error)
        _log.info(
            "listen %s ended: code=%d reason=%r audio_s=%.1f lasted_s=%.1f",
            *(self.request_id, ending.code, ending.reason, self._audio_s),
            time.monotonic() - self._began,
        )
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            if not ending.gone:
                if ending.error is not None:
                    kind = type(ending.error).__name__
                    await self._send(Error(kind, str(ending.error)).to_text())
                else:
                    await self._send(self._metadata().to_text())
            async with asyncio.timeout(self._limits.send_s):
                code = POLICY if ending.gone else ending.code
                await self._socket.close(code, ending.reason[:120])

    def _metadata(self) -> Metadata:
        return Metadata(
            self.request_id,
            round(self._audio_s, 3),
            datetime.now(UTC).isoformat(),
            self._model,
            self._options.warnings,
        )


def _endpointer(options: ListenOptions) -> Endpointer | None:
    if not options.needs_detector:
        return None
    from nemotron_voice.endpointing import Endpointer  # noqa: PLC0415 - loads a model

    return Endpointer(options.sample_rate, options.endpointing_ms)


async def _await(answer: Coroutine[Any, Any, Transcript]) -> None:
    with contextlib.suppress(NemotronVoiceError):  # the writer tells it as well
        await answer
