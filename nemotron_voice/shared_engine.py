"""One engine per model and process, loaded once and shared by every call that brings none."""

from __future__ import annotations

import asyncio
import logging
import threading

from nemotron_voice.errors import NemotronVoiceError
from nemotron_voice.recognizer import Recognizer

_log = logging.getLogger(__name__)
_loading = threading.Lock()
_engines: dict[str, Recognizer] = {}


def prewarm(model: str) -> None:
    """Begin to load the process' engine of `model` and return at once."""
    if model not in _engines:
        threading.Thread(target=_try_load, args=(model,), daemon=True, name="prewarm").start()


async def shared_engine(model: str) -> Recognizer:
    """The process' engine of `model`, loaded on a thread of its own at the first call.

    It lives as long as the process. Await this when the process starts, so that the first caller
    doesn't wait for the model.

    Raises:
        ModelNotFoundError, CheckpointError.
    """
    return await asyncio.to_thread(_load, model)


def _try_load(model: str) -> None:
    try:
        _load(model)
    except NemotronVoiceError:
        _log.exception("loading %s failed; the first call will try again", model)


def _load(model: str) -> Recognizer:
    from nemotron_voice.engine import Engine  # noqa: PLC0415 - brings torch, only when needed

    with _loading:  # a second call of the same model waits for the first one's engine
        if model not in _engines:
            _engines[model] = Engine.load(model)
        return _engines[model]
