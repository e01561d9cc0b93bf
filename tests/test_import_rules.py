"""The house: imports point down only, and the door is cheap to open."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nemotron_voice

PACKAGE = Path(nemotron_voice.__file__).parent

# Floors, lowest first (docs/architecture.md). A module may import from its own floor and below.
FLOORS = (
    {"errors"},
    {"languages", "resampler"},
    {"config", "language_tags"},
    {"audio", "transcript", "language_switch", "replay"},
    {"endpointing", "events", "captions"},
    {"model"},
    {"recognizer"},
    {"hear"},
    {"protocol"},
    {"engine", "remote"},
    {"shared_engine"},
    {"pipecat", "livekit", "server", "bench", "evaluation"},
    {"cluster"},
    {"cli"},
    {"__main__"},
)
FLOOR_OF = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
TORCH_ROOMS = {"model", "engine", "bench"}  # adapters, audio, text and the commands never do


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Absolute names of modules that a file imports, anywhere in it."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                module = child.module or ""
                found.update(
                    f"{module}.{alias.name}" if module == "nemotron_voice" else module
                    for alias in child.names
                )
            else:
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "demo")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_only(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        pytest.skip("the door: its names are fetched when first used")
    assert room in FLOOR_OF, f"{path.name} stands on no floor: add it to FLOORS"
    for name in imports(path):
        if name.startswith("nemotron_voice."):
            target = name.split(".")[1]
            if target == "__version__":
                continue
            assert FLOOR_OF[target] <= FLOOR_OF[room], f"{room} imports {name} from above"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_model_and_the_engine_know_torch(path: Path) -> None:
    if room_of(path) not in TORCH_ROOMS:
        assert not {name for name in imports(path) if name == "torch"}


def test_the_model_has_no_threads_and_no_event_loop() -> None:
    for path in (PACKAGE / "model").glob("*.py"):
        assert not imports(path) & {"threading", "asyncio", "multiprocessing"}


def in_a_fresh_process(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_importing_the_package_brings_neither_torch_nor_numpy_nor_a_thread() -> None:
    seen = in_a_fresh_process(
        "import sys, threading, nemotron_voice\n"
        "heavy = {'torch', 'numpy', 'av', 'typer', 'rich', 'huggingface_hub', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())"
    )
    assert seen.split() == ["[]", "1"]


@pytest.mark.parametrize(
    "name", ["StreamOptions", "Transcript", "Word", "NemotronVoiceError", "Recognizer", "Locale"]
)
def test_light_names_stay_light(name: str) -> None:
    seen = in_a_fresh_process(
        f"import sys; from nemotron_voice import {name}\n"
        "print({'torch', 'huggingface_hub'} & set(sys.modules) or 'light')"
    )
    assert seen.strip() == "light"


FIRST_CALL = """
import asyncio, sys
from nemotron_voice import Engine
from nemotron_voice.bench.speech import RATE, recordings

said = recordings()[0].samples[: 4 * RATE]

async def call(engine, sample_rate):
    stream = engine.open(sample_rate=sample_rate)
    stream.push(said[:: RATE // sample_rate])
    final = await stream.flush()
    await stream.aclose()
    return final.text

with Engine.load("demo") as engine:
    before = set(sys.modules)
    texts = [asyncio.run(call(engine, sample_rate)) for sample_rate in (RATE, 8_000)]
    print(all(texts), sorted(set(sys.modules) - before))
"""


def test_a_first_call_doesnt_wait_for_imports() -> None:
    assert in_a_fresh_process(FIRST_CALL).strip() == "True []"


def test_help_is_quick_because_it_brings_no_torch() -> None:
    seen = in_a_fresh_process(
        "import sys; from nemotron_voice.cli import app\n"
        "print('torch' in sys.modules, 'av' in sys.modules)"
    )
    assert seen.split() == ["False", "False"]


def test_every_public_name_can_be_had_and_is_listed() -> None:
    for name in nemotron_voice.__all__:
        assert getattr(nemotron_voice, name) is not None
        assert name in dir(nemotron_voice)
    with pytest.raises(AttributeError, match="Missing"):
        nemotron_voice.Missing  # noqa: B018


def test_type_checkers_see_the_same_names_as_users() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) | {"__version__"} == set(nemotron_voice.__all__)
    for name, module in seen.items():
        home = nemotron_voice._HOME.get(name, "errors")
        assert module == f"nemotron_voice.{home}"
