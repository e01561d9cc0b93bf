"""The commands on Ray: `serve --ray`, and `transcribe --ray MANIFEST` in the manifest's order."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rich.progress import track

from nemotron_voice.cli import screen
from nemotron_voice.cluster import serving
from nemotron_voice.cluster.bulk import BulkOptions, read_manifest, transcribe


def serve(options: serving.ClusterOptions, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl+C."""
    out = screen.out()
    with contextlib.ExitStack() as replicas:
        with screen.waiting("starting replicas"):
            replicas.enter_context(serving.running(options, host=host, port=port))
        most = options.max_replicas or options.min_replicas
        out.print(
            f"[bold]{options.model}[/bold], {options.min_replicas} to {most} replicas, "
            f"{options.engine.max_streams} streams each"
        )
        out.print(f"  streams     ws://{host}:{port}/v1/listen   (Deepgram's protocol)")
        out.print(f"  files       http://{host}:{port}/v1/audio/transcriptions   (OpenAI's form)")
        out.print("Ctrl+C ends it; what was said is still delivered.")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                signal.pause()


def transcribe_manifest(manifest: Path, options: BulkOptions, output: Path | None) -> int:
    """Write a line a file; returns how many files couldn't be read to their end."""
    entries = read_manifest(manifest, options.language)
    failures = 0
    with _writing(output) as lines:
        results = track(
            transcribe(entries, options),
            description="transcribing",
            total=len(entries),
            console=screen.err(),
            transient=True,
        )
        for result in results:
            lines.write(json.dumps(result, ensure_ascii=False) + "\n")
            lines.flush()
            if "error" in result:
                failures += 1
                screen.complain(result["error"])
    return failures


@contextlib.contextmanager
def _writing(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with output.open("w", encoding="utf-8") as lines:
        yield lines
