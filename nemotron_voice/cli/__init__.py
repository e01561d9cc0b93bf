"""The command line: transcribe, demo, serve, bench, languages."""

from nemotron_voice.cli.memory import keep_memory

keep_memory()

from nemotron_voice.cli.app import app  # noqa: E402 - torch reads some of it when it is imported

__all__ = ["app"]
