"""What is shipped: pins for everything declared, a licence, an entry point, a demo that fits."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line and not line.startswith("#")
)
DEMO = ROOT / "nemotron_voice" / "demo"


def names(requirements: list[str]) -> set[str]:
    return {
        re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()
        for requirement in requirements
    }


def test_the_core_depends_on_little() -> None:
    allowed = {"torch", "numpy", "sentencepiece", "safetensors", "huggingface-hub", "av"}
    assert names(PROJECT["dependencies"]) == allowed | {"typer", "rich", "pyyaml"}


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_everything_declared_is_pinned(extra: str | None) -> None:
    declared = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    assert names(declared) - {"nemotron-voice"} <= set(PINS)  # an extra may name others


def test_no_cuda_build_of_torch_is_pinned() -> None:
    assert PINS["torch"] == "2.13.0"
    assert not [name for name in PINS if name.startswith("nvidia-")]


def test_the_entry_point_is_there() -> None:
    module, _, attribute = PROJECT["scripts"]["nemotron-voice"].partition(":")
    assert callable(getattr(import_module(module), attribute))


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert (ROOT / "nemotron_voice" / "py.typed").exists()


def test_the_demo_is_small() -> None:
    sizes = {path: path.stat().st_size for path in DEMO.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 20e6, sizes
