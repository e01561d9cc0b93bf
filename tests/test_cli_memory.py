"""The commands keep what they free; what the user has set stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Frees a tensor of 64 MB and says how much of it stayed with the process, and two settings.
PROGRAM = """
import os
import {module}
import torch
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
torch.ones(1 << 20)
before = resident()
tensor = torch.ones(1 << 24)
del tensor
kept = (resident() - before) / (1 << 26)
print(round(kept), os.environ.get("MALLOC_ARENA_MAX"), os.environ.get("THP_MEM_ALLOC_ENABLE"))
"""


def run(module: str, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    kept.pop("THP_MEM_ALLOC_ENABLE", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_the_commands_keep_what_they_free_and_a_library_does_not() -> None:
    assert run("nemotron_voice.cli") == ["1", "1", "1"]
    assert run("nemotron_voice.engine") == ["0", "None", "None"]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_the_user_has_set_stays() -> None:
    arguments = {"MALLOC_ARENA_MAX": "3", "THP_MEM_ALLOC_ENABLE": "0"}
    assert run("nemotron_voice.cli", **arguments)[1:] == ["3", "0"]
