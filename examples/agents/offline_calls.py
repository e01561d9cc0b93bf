"""Which recordings an offline bot is called with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nemotron_voice.cli.demo import Call, bundled_calls


def chosen_calls(options: argparse.Namespace, default: Sequence[str]) -> list[Call]:
    """The file of `--file`, the calls of `--call`, or those of `default`."""
    if options.file:
        return [Call(options.file, options.file.name, ())]
    known = {call.audio.stem: call for call in bundled_calls()}
    names = options.call or default
    if unknown := set(names) - set(known):
        raise SystemExit(f"no call {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [known[name] for name in names]
