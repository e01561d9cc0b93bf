"""One engine per model or server and process, shared by every call that brings none."""

from __future__ import annotations

import asyncio
import logging
import threading

from nemotron_voice.errors import ConfigurationError, NemotronVoiceError
from nemotron_voice.recognizer import Recognizer

_log = logging.getLogger(__name__)
_loading = threading.Lock()
_engines: dict[str, Recognizer] = {}


def prewarm(model: str) -> None:
    """Begin to load the process' engine of `model`, or to reach its server; returns at once."""
    if model not in _engines:
        threading.Thread(target=_try_load, args=(model,), daemon=True, name="prewarm").start()


async def shared_engine(model: str) -> Recognizer:
    """The process' engine of `model`, loaded on a thread of its own at the first call.

    It lives as long as the process. Await this when the process starts, so that the first caller
    doesn't wait for the model.

    Args:
        model: hub id, folder, `.nemo` file or "demo"; or the URL of a server ("ws://host:8080"),
            whose API key is in the environment's NEMOTRON_VOICE_API_KEY.

    Raises:
        ModelNotFoundError, CheckpointError, ServerUnreachableError, ServerRefusedError.
    """
    return await asyncio.to_thread(_load, model)


def _try_load(model: str) -> None:
    try:
        _load(model)
    except NemotronVoiceError:
        _log.exception("loading %s failed; the first call will try again", model)


def _load(model: str) -> Recognizer:
    with _loading:  # a second call of the same model waits for the first one's engine
        if model not in _engines:
            _engines[model] = _connect(model) if is_url(model) else _load_here(model)
        return _engines[model]


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
