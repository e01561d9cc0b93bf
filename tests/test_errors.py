"""The tree of errors: everything is a NemotronVoiceError, and the drawing matches the classes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from nemotron_voice import errors

TREE = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if cls.__module__ == errors.__name__
]


def test_every_error_is_the_packages_own() -> None:
    assert all(issubclass(cls, errors.NemotronVoiceError) for cls in TREE)


def test_the_drawing_at_the_top_shows_every_class_under_its_parent() -> None:
    above: list[str] = []
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"( {4}[│ ]*)(?:[├└]── )?(\w+Error)\b", line)
        if found:
            depth = (len(found[1]) - 4) // 4 + ("── " in line)
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in TREE}


@pytest.mark.parametrize("cls", [errors.ConfigurationError, errors.AudioError])
def test_wrong_values_are_value_errors(cls: type[Exception]) -> None:
    assert issubclass(cls, ValueError)


@pytest.mark.parametrize("cls", TREE)
def test_an_error_survives_a_process_boundary(cls: type[Exception]) -> None:
    assert str(pickle.loads(pickle.dumps(cls("what happened")))) == "what happened"
