"""The ASGI app: routes, admission, readiness, and what its connections share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from nemotron_voice import __version__
from nemotron_voice.errors import (
    EngineClosedError,
    EngineFullError,
    NemotronVoiceError,
)
from nemotron_voice.languages import described
from nemotron_voice.protocol import ENGINE_PATH, LISTEN_PATH, Error, ListenOptions, parse_query
from nemotron_voice.server.access import Access, RefusedError
from nemotron_voice.server.files import Files
from nemotron_voice.server.health import ModelHealth
from nemotron_voice.server.listen import BLOCK_S, POLICY, TRY_LATER, Connection
from nemotron_voice.server.metrics import Metrics
from nemotron_voice.server.options import ServerOptions

if TYPE_CHECKING:
    from nemotron_voice.engine import Engine, Stream

_log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = "1"
MAX_HEADER: Final = 600  # characters of a message in a header
ERROR_HEADER: Final = "x-nemotron-error"  # the name of our exception
MESSAGE_HEADER: Final = "dg-error"  # Deepgram's clients show it


class Service:
    """An engine and what is open on it."""

    def __init__(self, engine: Engine, options: ServerOptions) -> None:
        self.engine = engine
        self.options = options
        self.access = Access(options)
        self.metrics = Metrics(engine)
        self.model_health = ModelHealth(engine)
        self.files = Files(engine, options, self.metrics, self.model_health)
        self.connections: set[Connection] = set()
        self.draining = False
        self._empty = asyncio.Event()  # set: no connection
        self._empty.set()

    async def drain(self) -> None:
        """Take nobody new, deliver what was said, end by `drain_s`. Idempotent."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.options.drain_s):
                await self._empty.wait()
        if self.connections:
            _log.warning("%d connections did not end in time", len(self.connections))

    def check_open(self) -> None:
        """Refuse while the server ends.

        Raises:
            RefusedError: 503.
        """
        if self.draining:
            raise RefusedError(503, "the server is restarting; try again", reason="draining")

    # ---- WS /v1/listen

    async def listen(self, websocket: WebSocket) -> None:
        """One streaming connection."""
        try:
            self.check_open()
            key = self.access.admit(websocket)
            with self.access.stream_of(key):
                options = parse_query(
                    websocket.query_params.multi_items(), self.engine.languages
                )  # fmt: skip
                stream = self._open(options)
                connection: Connection | None = None
                try:
                    connection = Connection(
                        websocket,
                        stream,
                        options,
                        limits=self.options,
                        metrics=self.metrics,
                        health=self.model_health,
                        model=self.engine.model_name,
                    )
                    self.connections.add(connection)
                    self._empty.clear()
                    await websocket.accept(
                        subprotocol=_subprotocol(websocket),
                        headers=[
                            (b"dg-request-id", connection.request_id.encode()),
                            (b"x-nemotron-warnings", _header("; ".join(options.warnings))),
                        ],
                    )
                    await connection.run()
                finally:
                    if connection is not None:
                        self.connections.discard(connection)
                    if not self.connections:
                        self._empty.set()
                    await stream.aclose()
        except (RefusedError, NemotronVoiceError) as error:
            await self._refuse(websocket, error)

    def _open(self, options: ListenOptions) -> Stream:
        """A stream with room for what a Connection pushes before it waits for `max_buffered_s`."""
        asked = options.stream_options()
        room_s = max(asked.max_buffered_s, self.options.max_buffered_s + BLOCK_S)
        return self.engine.open(asked, max_buffered_s=room_s)

    async def _refuse(self, websocket: WebSocket, error: Exception) -> None:
        refusal = as_refusal(error)
        kind = type(error).__name__ if isinstance(error, NemotronVoiceError) else "ServerRefused"
        self.metrics.refused.labels(refusal.reason).inc()
        _log.info("listen refused: %d %s", refusal.status, refusal.message)
        in_a_page = websocket.headers.get("origin") is not None and refusal.status != 403
        if in_a_page:  # a page sees no HTTP status, only what a connection says
            await websocket.accept(subprotocol=_subprotocol(websocket))
            await websocket.send_text(Error(kind, refusal.message).to_text())
            await websocket.close(TRY_LATER if refusal.status == 503 else POLICY, refusal.reason)
            return
        response = JSONResponse(
            {"err_code": kind, "err_msg": refusal.message}, refusal.status, _headers(refusal, kind)
        )
        await websocket.send_denial_response(response)

    # ---- HTTP

    async def health(self, _: Request) -> Response:
        """The process lives, and its model runs."""
        if self.model_health.fault is not None:
            return PlainTextResponse(self.model_health.fault, 503)
        return PlainTextResponse("ok")

    async def ready(self, _: Request) -> Response:
        """New streams are welcome: a loaded model is warm, it runs, and this isn't ending."""
        if self.draining:
            return PlainTextResponse("draining", 503)
        if self.model_health.fault is not None:
            return PlainTextResponse(self.model_health.fault, 503)
        return PlainTextResponse("ready")

    async def metrics_page(self, request: Request) -> Response:
        """Prometheus' text."""
        self.access.admit(request)
        return Response(self.metrics.to_text(), media_type="text/plain; version=0.0.4")

    async def about(self, request: Request) -> Response:
        """What the engine can hear: what a RemoteEngine asks first."""
        self.access.admit(request)
        stats = self.engine.stats()
        return JSONResponse(
            {
                "model": self.engine.model_name,
                "languages": list(self.engine.languages),
                "locales": described(self.engine.languages),  # beside the 40: what they are
                "latencies_ms": [80 * (ahead + 1) for ahead in self.engine.lookaheads],
                "streams": stats.streams,
                "max_streams": stats.max_streams,
                "version": __version__,
            }
        )

    async def playground(self, request: Request) -> Response:
        """A page to talk to."""
        self.access.admit(request)
        page = resources.files("nemotron_voice.server").joinpath("playground.html")
        return HTMLResponse(page.read_text(encoding="utf-8"), headers=_PAGE_HEADERS)

    async def listen_file(self, request: Request) -> Response:
        """A whole file, Deepgram's form."""
        return await self._upload(request, self.files.listen)

    async def transcriptions(self, request: Request) -> Response:
        """A whole file, OpenAI's form."""
        return await self._upload(request, self.files.transcriptions)

    async def _upload(
        self, request: Request, serve: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        self.check_open()
        self.access.admit(request)
        try:
            return await serve(request)
        except TimeoutError as error:
            raise RefusedError(
                408, f"the file was not here within {self.options.upload_s:g} s", reason="slow"
            ) from error
        except ClientDisconnect as error:  # nobody reads it; metrics count it
            raise RefusedError(499, "the client has gone", reason="gone") from error
        except RefusedError:
            await self.files.discard(request)
            raise

    async def on_error(self, request: HTTPConnection, error: Exception) -> Response:
        """A refusal in the form of the API that was called."""
        refusal = as_refusal(error)
        kind = type(error).__name__ if isinstance(error, NemotronVoiceError) else "ServerRefused"
        self.metrics.refused.labels(refusal.reason).inc()
        headers = _headers(refusal, kind)
        if request.url.path.startswith("/v1/audio"):
            body: object = {"error": {"message": refusal.message, "type": kind, "code": None}}
        else:
            body = {"err_code": kind, "err_msg": refusal.message}
        return JSONResponse(body, refusal.status, headers)


# The page loads nothing from elsewhere and is shown in no other page.
_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline' blob:; "
    "style-src 'unsafe-inline'; connect-src 'self' ws: wss:; worker-src blob:; img-src data:; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


def create_app(engine: Engine, options: ServerOptions | None = None) -> Starlette:
    """The app of an engine; `app.state.service` holds what is open.

    The engine stays open when the app ends: whoever loaded it closes it.
    """
    service = Service(engine, options or ServerOptions())

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await service.drain()

    app = Starlette(
        routes=[
            WebSocketRoute(LISTEN_PATH, service.listen),
            Route(LISTEN_PATH, service.listen_file, methods=["POST"]),
            Route("/v1/audio/transcriptions", service.transcriptions, methods=["POST"]),
            Route(ENGINE_PATH, service.about),
            Route("/healthz", service.health),
            Route("/readyz", service.ready),
            Route("/metrics", service.metrics_page),
            Route("/", service.playground),
        ],
        exception_handlers={
            RefusedError: service.on_error,
            NemotronVoiceError: service.on_error,
        },
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def as_refusal(error: Exception) -> RefusedError:
    """The HTTP status of an error."""
    if isinstance(error, RefusedError):
        return error
    name = type(error).__name__
    if isinstance(error, EngineFullError):
        return RefusedError(503, str(error), reason="full")
    if isinstance(error, EngineClosedError):
        return RefusedError(503, str(error), reason="closed")
    if isinstance(error, ValueError):  # a setting, audio, or the protocol
        return RefusedError(400, str(error), reason=name)
    return RefusedError(500, str(error), reason=name)


def _headers(refusal: RefusedError, kind: str) -> dict[str, str]:
    headers = {ERROR_HEADER: kind, MESSAGE_HEADER: _header(refusal.message).decode("ascii")}
    if refusal.status == 401:
        headers["www-authenticate"] = 'Basic realm="nemotron-voice"'
    if refusal.status == 503:
        headers["retry-after"] = RETRY_AFTER_S
    return headers


def _header(text: str) -> bytes:
    """Text as a header may carry it: clients take 8 KiB, and a character may become 12 bytes."""
    return quote(text[:MAX_HEADER].strip(), safe=" !#$&'()*+,/:;=?@[]\"<>|").encode("ascii")


def _subprotocol(websocket: WebSocket) -> str | None:
    offered = websocket.scope.get("subprotocols", ())
    return offered[0] if offered else None
