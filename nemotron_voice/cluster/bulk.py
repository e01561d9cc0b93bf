"""A manifest of audio files transcribed by Ray Data, on actors that each hold an engine."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from nemotron_voice import languages
from nemotron_voice.audio import read_file
from nemotron_voice.cluster.failures import failure
from nemotron_voice.config import (
    DEFAULT_MODEL,
    LATENCIES_MS,
    EngineOptions,
    Precision,
    StreamOptions,
)
from nemotron_voice.engine import Engine
from nemotron_voice.errors import ConfigurationError, NemotronVoiceError
from nemotron_voice.evaluation.manifest import LANGUAGE_FIELDS
from nemotron_voice.hear import hear
from nemotron_voice.transcript import Transcript, join_texts, languages_by_words

PATH_FIELDS: Final = ("audio_filepath", "path")  # the first is NeMo's


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOptions:
    """How a manifest is transcribed.

    BulkOptions(model="demo", device="cuda", actors=4)

    Raises:
        ConfigurationError: naming the value, what is allowed and the remedy.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    offline: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    language: str = languages.AUTO  # of files whose line names none
    latency_ms: int = LATENCIES_MS[-1]  # the most accurate and the cheapest
    actors: int | None = None  # None: one for each GPU of the cluster, or for each CPU core
    files_at_once: int = 32  # that one actor streams side by side: they share batches

    def __post_init__(self) -> None:
        """Refuse what no engine could do."""
        EngineOptions(device=self.device, precision=self.precision)
        StreamOptions(language=self.language, latency_ms=self.latency_ms)
        for name in ("actors", "files_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name}={value} must be 1 or more")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a manifest."""

    named: str  # as the manifest has it
    path: Path
    language: str


def read_manifest(manifest: Path, language: str = languages.AUTO) -> list[Entry]:
    """The files of a manifest: JSON lines, or a path a line; relative paths begin at its folder.

    A JSON line has "audio_filepath" or "path", and may have "target_lang" or "language". Empty
    lines don't count.

    Raises:
        ConfigurationError: the manifest can't be read, names no file, or has another kind of line.
    """
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the manifest {manifest} can't be read: {error}") from error
    entries = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        named, spoken = text, None
        if text.startswith("{"):
            named, spoken = _read_line(text, f"{manifest}, line {number}")
        path = manifest.parent.absolute() / named
        entries.append(Entry(named, path, language if spoken is None else spoken))
    if not entries:
        raise ConfigurationError(f"the manifest {manifest} names no file")
    return entries


def _read_line(text: str, where: str) -> tuple[str, str | None]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{where} is no JSON: {error}") from error
    named = next((row[name] for name in PATH_FIELDS if name in row), None)
    spoken = next((row[name] for name in LANGUAGE_FIELDS if name in row), None)
    if not isinstance(named, str) or not isinstance(spoken, str | None):
        raise ConfigurationError(
            f'{where} has no text "audio_filepath" or "path", or a language that is no text'
        )
    return named, spoken


def transcribe(entries: list[Entry], options: BulkOptions) -> Iterator[dict[str, Any]]:
    """One result a file, in the order of the entries, as they are done.

    A result has audio_filepath, duration (seconds), text, language (of most words, or None) and
    finals with start, end, language and text. Of a file that can't be read to its end, `error` says
    why; the rest is what was heard until there.

    Connects to the cluster of RAY_ADDRESS, or this machine's, or starts one. Each machine must have
    the files under the same paths.

    Raises:
        ModelNotFoundError, CheckpointError, EngineError: no actor can start, or go on.
    """
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    device, actors = _resources(options)
    actors = min(actors, len(entries))
    batch = min(options.files_at_once, math.ceil(len(entries) / actors))
    rows = [
        {"named": entry.named, "path": str(entry.path), "language": entry.language}
        for entry in entries
    ]
    results = ray.data.from_items(
        rows, override_num_blocks=math.ceil(len(rows) / batch)
    ).map_batches(
        Transcriber,
        fn_constructor_args=(options, device),
        batch_size=batch,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=1,
        num_gpus=0 if device == "cpu" else 1,
    )
    try:
        for row in results.iter_rows():
            yield json.loads(row["result"])
    except RayError as error:
        raise failure(str(error), "an actor could not go on") from error


class Transcriber:
    """One actor: an engine, and batches of files through it."""

    def __init__(self, options: BulkOptions, device: str) -> None:
        self._options = options
        self._engine = Engine.load(
            options.model,
            revision=options.revision,
            offline=options.offline,
            device=device,
            precision=options.precision,
            max_streams=options.files_at_once,
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Results of a batch, as JSON: Arrow would have to find a type for each field."""
        rows = zip(batch["named"], batch["path"], batch["language"], strict=True)
        return {"result": asyncio.run(self._all([tuple(map(str, row)) for row in rows]))}

    async def _all(self, rows: list[tuple[str, ...]]) -> list[str]:
        results = await asyncio.gather(*(self._one(*row) for row in rows))
        return [json.dumps(result, ensure_ascii=False) for result in results]

    async def _one(self, named: str, path: str, language: str) -> dict[str, Any]:
        finals: list[Transcript] = []
        heard_s = 0.0
        problem: dict[str, str] = {}

        def take(transcript: Transcript) -> None:
            if transcript.is_final and transcript.text:
                finals.append(transcript)

        def progress(seconds: float) -> None:
            nonlocal heard_s
            heard_s = seconds

        try:
            options = StreamOptions(
                language=language,
                latency_ms=self._options.latency_ms,
                finalize="sentence",
                interim_results=False,
            )
            audio = read_file(path)
            await hear(
                self._engine.open(options, sample_rate=audio.sample_rate),
                audio,
                realtime=False,
                on_transcript=take,
                on_progress=progress,
            )
        except (NemotronVoiceError, OSError) as error:  # of this file: the others go on
            problem = {"error": str(error)}
        return {
            "audio_filepath": named,
            "duration": round(heard_s, 3),
            "text": join_texts(finals),
            "language": next(iter(languages_by_words(finals)), None),
            "finals": [
                {"start": one.start, "end": one.end, "language": one.language, "text": one.text}
                for one in finals
            ],
            **problem,
        }


def _resources(options: BulkOptions) -> tuple[str, int]:
    """The device of an actor, and how many actors there are.

    An actor sees no GPU that Ray hasn't given it, so "auto" is settled here.
    """
    has = ray.cluster_resources()
    device = options.device
    if device == "auto":
        device = "cuda" if has.get("GPU") else "cpu"
    return device, options.actors or max(1, int(has.get("CPU" if device == "cpu" else "GPU", 1)))
