"""One engine per model or server and process, shared by every call that brings none."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.recognizer import Recognizer

_log = logging.getLogger(__name__)
_lock = threading.Lock()  # of the table; never held while an engine is loaded
_engines: dict[str, Future[Recognizer]] = {}


def prewarm(model: str) -> None:
    """Begin to load the process' engine of `model`, or to reach its server; returns at once."""
    _engine(model).add_done_callback(lambda engine: _log_failure(model, engine))


async def shared_engine(model: str) -> Recognizer:
    """The process' engine of `model`, loaded on a thread of its own at the first call.

    It lives as long as the process. Await this when the process starts, so that the first caller
    doesn't wait for the model. Calls that come meanwhile wait for the same engine, and fail as the
    first does; a later one tries again.

    Args:
        model: hub id, folder, `.nemo` file or "demo"; or the URL of a server ("ws://host:8080"),
            whose API key is in the environment's NEMOTRON_VOICE_API_KEY.

    Raises:
        ModelNotFoundError, CheckpointError, ServerUnreachableError, ServerRefusedError.
    """
    return await asyncio.wrap_future(_engine(model))


def _engine(model: str) -> Future[Recognizer]:
    """The engine, loaded or on its way, or begun now."""
    with _lock:
        engine = _engines.get(model)
        if engine is None or (engine.done() and engine.exception() is not None):
            engine = Future()
            engine.set_running_or_notify_cancel()  # a call that is cancelled leaves it to others
            # Not of the loop's pool: calls that wait for a dead server would fill it.
            threading.Thread(target=_load, args=(model, engine), daemon=True, name="load").start()
            _engines[model] = engine
        return engine


def _load(model: str, engine: Future[Recognizer]) -> None:
    try:
        engine.set_result(_connect(model) if is_url(model) else _load_here(model))
    except BaseException as error:  # noqa: BLE001 - whoever waits for the engine must hear of it
        engine.set_exception(error)


def _log_failure(model: str, engine: Future[Recognizer]) -> None:
    error = engine.exception()
    if error is not None:
        _log.error("loading %s failed; the first call will try again", model, exc_info=error)


def is_url(model: str) -> bool:
    """Whether a model's name is the address of a server."""
    return model.startswith(("ws://", "wss://"))


def _load_here(model: str) -> Recognizer:
    from nemotron_voice.engine import Engine  # noqa: PLC0415 - brings torch, only when needed

    return Engine.load(model)


def _connect(url: str) -> Recognizer:
    try:
        from nemotron_voice.remote import RemoteEngine  # noqa: PLC0415 - brings aiohttp
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is missing, which a server's client needs; "
            "pip install 'nemotron-voice[remote]'"
        ) from error
    return RemoteEngine(url)
