"""The plugin where LiveKit looks for it, in an editable install and in a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("livekit.agents")

from livekit.agents import Plugin

ROOT = Path(__file__).parents[2]


def test_it_is_found_and_registered() -> None:
    from livekit.plugins import nemotron

    assert nemotron.STT.__module__ == "nemotron_voice.livekit.stt"
    (plugin,) = [p for p in Plugin.registered_plugins if p.package == "livekit.plugins.nemotron"]
    assert plugin.version == nemotron.__version__


def test_download_files_says_what_to_do_where_there_is_no_hub(tmp_path: Path) -> None:
    code = (
        "from livekit.plugins import nemotron\n"
        "try: nemotron.NemotronPlugin().download_files()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=offline
    )
    assert "ModelNotFoundError" in done.stdout, done.stderr
    assert "demo" in done.stdout


def test_the_wheel_brings_the_plugin_and_no_init_in_the_namespace(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "livekit/plugins/nemotron/__init__.py" in names
    assert "livekit/plugins/nemotron/py.typed" in names
    assert not {"livekit/__init__.py", "livekit/plugins/__init__.py"} & names
    assert "nemotron_voice/livekit/stt.py" in names
