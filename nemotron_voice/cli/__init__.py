"""The command line: transcribe, demo, languages."""

from nemotron_voice.cli.app import app

__all__ = ["app"]
