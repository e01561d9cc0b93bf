"""Whole files over HTTP: Deepgram's `POST /v1/listen` and OpenAI's `/v1/audio/transcriptions`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from nemotron_voice import languages
from nemotron_voice.audio import read_file
from nemotron_voice.captions import WRITERS
from nemotron_voice.config import LATENCIES_MS, StreamOptions
from nemotron_voice.errors import AudioDecodeError, ConfigurationError, StepFailedError
from nemotron_voice.hear import hear
from nemotron_voice.protocol.listen_options import parse_file_query
from nemotron_voice.protocol.messages import alternative
from nemotron_voice.server.access import RefusedError
from nemotron_voice.transcript import Transcript, join_texts, languages_by_words

if TYPE_CHECKING:
    from nemotron_voice.engine import Engine
    from nemotron_voice.server.health import ModelHealth
    from nemotron_voice.server.metrics import Metrics
    from nemotron_voice.server.options import ServerOptions

_T = TypeVar("_T")

# Times of words and of segments are told in any case.
_KNOWN = {"file", "model", "language", "response_format", "stream", "timestamp_granularities[]"}
DISCARD_S, DISCARD_BYTES = 1.0, 64 << 20
FORMATS = ("json", "verbose_json", "text", "srt", "vtt")


class Files:
    """Takes in and transcribes files, a few at a time; each takes a slot like a caller."""

    def __init__(
        self, engine: Engine, options: ServerOptions, metrics: Metrics, health: ModelHealth
    ) -> None:
        self._engine = engine
        self._options = options
        self._metrics = metrics
        self._health = health
        self._places = asyncio.Semaphore(options.max_uploads)
        self._waiting = 0  # for a place

    async def listen(self, request: Request) -> Response:
        """Deepgram's form: the file is the body, options are in the query."""
        if request.headers.get("content-type", "").startswith("application/json"):
            raise ConfigurationError("the server fetches no URLs; send the file itself as the body")
        pairs = request.query_params.multi_items()
        language, warnings = parse_file_query(pairs, self._engine.languages)
        async with self._place():
            with tempfile.NamedTemporaryFile(prefix="nemotron-") as file:
                async with asyncio.timeout(self._options.upload_s):
                    await self._store(request.stream(), file)
                finals, duration_s = await _while_there(
                    request, self._hear(Path(file.name), language)
                )
        self._metrics.files.labels("listen").inc()
        return JSONResponse(
            _deepgram_body(finals, duration_s, self._engine.model_name, warnings),
        )

    async def transcriptions(self, request: Request) -> Response:
        """OpenAI's form: a multipart form with the file in it."""
        self._check_length(request)
        async with self._place():
            return await self._transcribe(request)

    async def _transcribe(self, request: Request) -> Response:
        async with asyncio.timeout(self._options.upload_s):
            form = await request.form(max_files=1, max_fields=20)
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise ConfigurationError("the form has no file; send it as the field 'file'")
        output = str(form.get("response_format", "json"))
        if output not in FORMATS:
            raise ConfigurationError(
                f"response_format={output} is not one of {', '.join(FORMATS)}"
            )  # fmt: skip
        if str(form.get("stream", "false")).casefold() == "true":
            raise ConfigurationError("stream=true is not honoured; stream over WS /v1/listen")
        name = form.get("language")
        language = languages.AUTO
        if isinstance(name, str) and name:
            language = languages.nearest(name, self._engine.languages)
        with tempfile.NamedTemporaryFile(prefix="nemotron-") as file:
            await self._store(_blocks(upload), file)
            await form.close()  # a second copy of the file
            finals, duration_s = await _while_there(request, self._hear(Path(file.name), language))
        self._metrics.files.labels("transcriptions").inc()
        response = _openai_response(finals, duration_s, output)
        if ignored := sorted(name for name in form if name not in _KNOWN):
            response.headers["x-nemotron-warnings"] = quote(
                f"not honoured: {', '.join(ignored)}"[:500], safe=" :,_[]"
            )
        return response

    async def discard(self, request: Request) -> None:
        """Read on for a while what is refused: else many a client sees a reset, and no reason."""
        left = DISCARD_BYTES
        with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):
            async with asyncio.timeout(DISCARD_S):
                async for block in request.stream():
                    left -= len(block)
                    if left < 0:
                        return

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait for a place; of a file without one, nothing is read.

        Raises:
            RefusedError: 503, as many wait as may.
        """
        if self._waiting >= self._options.max_waiting_uploads:
            raise RefusedError(
                503, f"{self._waiting} files wait already; try again later", reason="uploads"
            )
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()

    def _check_length(self, request: Request) -> None:
        """Refuse a form by its announced length: without one its size can't be bounded."""
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise RefusedError(411, "send a Content-Length", reason="length")
        if int(length) > self._options.max_upload_bytes:
            raise self._too_large()

    async def _store(self, blocks: AsyncIterable[bytes], file: Any) -> None:
        size = 0
        async for block in blocks:
            size += len(block)
            if size > self._options.max_upload_bytes:
                raise self._too_large()
            await asyncio.to_thread(file.write, block)
        await asyncio.to_thread(file.flush)

    def _too_large(self) -> RefusedError:
        return RefusedError(
            413,
            f"the file is larger than {self._options.max_upload_bytes / 2**20:.0f} MiB; send "
            "compressed audio, or stream it over WS /v1/listen",
            reason="too large",
        )

    async def _hear(self, path: Path, language: str) -> tuple[list[Transcript], float]:
        finals: list[Transcript] = []
        heard_s = 0.0

        def take(transcript: Transcript) -> None:
            if transcript.is_final and transcript.text:
                finals.append(transcript)
                self._health.heard()

        def progress(seconds: float) -> None:
            nonlocal heard_s
            heard_s = seconds

        options = StreamOptions(
            language=language,
            latency_ms=LATENCIES_MS[-1],
            finalize="sentence",
            interim_results=False,
        )
        try:
            audio = await asyncio.to_thread(read_file, path)
            await hear(
                self._engine.open(options, sample_rate=audio.sample_rate),
                audio,
                realtime=False,
                on_transcript=take,
                on_progress=progress,
            )
        except StepFailedError as error:
            self._health.ended(error)
            raise
        except AudioDecodeError as error:  # the name on this machine is nobody's business
            raise AudioDecodeError(str(error).replace(str(path), "the file")) from None
        return finals, heard_s


async def _while_there(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Work for a client whose request has been read, and no longer than it waits for the answer.

    Raises:
        ClientDisconnect: it has gone.
    """

    async def until_gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.create_task(work, name="file-hear")
    leaving = asyncio.create_task(until_gone(), name="file-leave")
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _blocks(upload: UploadFile) -> AsyncIterable[bytes]:
    while block := await upload.read(1 << 20):
        yield block


def _deepgram_body(
    finals: list[Transcript], duration_s: float, model: str, warnings: tuple[str, ...]
) -> dict[str, Any]:
    whole = alternative(finals)
    detected = {"detected_language": whole["languages"][0]} if whole.get("languages") else {}
    return {
        "metadata": {
            "transaction_key": "deprecated",
            "request_id": uuid.uuid4().hex,
            "sha256": "",
            "created": datetime.now(UTC).isoformat(),
            "duration": round(duration_s, 3),
            "channels": 1,
            "models": [model],
            "model_info": {model: {"name": model, "version": "3.5", "arch": "nemotron"}},
            "warnings": [{"message": warning} for warning in warnings],
        },
        "results": {"channels": [{"alternatives": [whole], **detected}]},
    }


def _openai_response(finals: list[Transcript], duration_s: float, output: str) -> Response:
    text = join_texts(finals)
    if output == "text":
        return PlainTextResponse(text + "\n")
    if output in {"srt", "vtt"}:
        page = io.StringIO()
        writer = WRITERS[output](page, Path())
        for final in finals:
            writer.final(final)
        return PlainTextResponse(page.getvalue())
    if output == "json":
        return JSONResponse({"text": text})
    most = next(iter(languages_by_words(finals)), None)
    return JSONResponse(
        {
            "task": "transcribe",
            "language": languages.BY_CODE[most].english.casefold() if most else None,
            "duration": round(duration_s, 3),
            "text": text,
            "segments": [
                {
                    "id": place,
                    "start": final.start,
                    "end": final.end,
                    "text": final.text,
                    "language": final.language,
                }
                for place, final in enumerate(finals)
            ],
            "words": [
                {"word": word.text, "start": word.start, "end": word.end}
                for final in finals
                for word in final.words
            ],
        }
    )
