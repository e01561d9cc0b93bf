"""The int8 copy of a checkpoint on disk: made once, read from then on, never trusted too far."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from nemotron_voice.model import int8_store
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.int8_store import CACHE_VARIABLE, Int8Store, fingerprint
from nemotron_voice.model.network import Network
from tests.model.tiny import random_weights, stream, sweep, tiny_json

IDENTITY = "ab" * 16


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(int8_store, "_SMALLEST_BYTES", 0)
    return tmp_path / "cache"


def matrix() -> torch.Tensor:
    return torch.arange(12.0).view(3, 4) - 5


def not_again() -> torch.Tensor:
    raise AssertionError("the matrix was made again")


def stored() -> tuple[torch.Tensor, torch.Tensor]:
    store = Int8Store(IDENTITY)
    made = store.get("one", matrix)
    store.save()
    return made


def test_what_was_made_is_read_the_next_time():
    made = stored()
    read = Int8Store(IDENTITY).get("one", not_again)
    assert torch.equal(made[0], read[0])
    assert torch.equal(made[1], read[1])


def test_another_checkpoint_has_another_copy():
    stored()
    with pytest.raises(AssertionError, match="made again"):
        Int8Store("cd" * 16).get("one", not_again)


def test_nothing_is_kept_of_a_checkpoint_without_files_or_when_switched_off(cache, monkeypatch):
    store = Int8Store(None)
    store.get("one", matrix)
    store.save()
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    stored()
    assert not cache.exists()


def test_a_small_model_is_not_kept(cache, monkeypatch):
    monkeypatch.setattr(int8_store, "_SMALLEST_BYTES", 1000)
    stored()
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"not a file of tensors"])
def test_a_damaged_copy_is_made_again_and_replaced(cache, damage, caplog):
    stored()
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    stored()
    assert "can't be read" in caplog.text
    Int8Store(IDENTITY).get("one", not_again)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_a_folder_that_cannot_be_written_costs_a_warning_only(cache, caplog):
    cache.write_text("a file where the folder should be")
    made = stored()
    assert made[0].dtype == torch.int8
    assert "can't be kept" in caplog.text
    assert CACHE_VARIABLE in caplog.text


def test_a_file_that_changed_is_another_checkpoint(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"1234")
    first = fingerprint([file])
    assert fingerprint([file]) == first
    os.utime(file, ns=(1, 1))
    assert fingerprint([file]) != first


def test_another_checkpoint_of_the_same_size_and_time_is_another_checkpoint(tmp_path):
    """As in images whose files all have the time 0."""
    file = tmp_path / "model.safetensors"
    prints = set()
    for value in (1.0, 2.0):
        save_file({"weight": torch.full((1000, 1000), value)}, file)
        os.utime(file, ns=(0, 0))
        prints.add(fingerprint([file]))
    assert len(prints) == 2


def test_what_a_copy_lacks_is_added_to_it(caplog):
    stored()
    store = Int8Store(IDENTITY)
    store.get("one", not_again)
    store.get("two", matrix)
    store.save()
    assert "lacks two" in caplog.text
    again = Int8Store(IDENTITY)
    again.get("one", not_again)
    again.get("two", not_again)


def test_a_copy_may_be_read_by_whoever_may_read_other_new_files(cache):
    stored()
    (file,) = cache.iterdir()
    (cache / "other").touch()
    assert file.stat().st_mode == (cache / "other").stat().st_mode


def test_a_network_from_its_copy_says_the_same(cache):
    config = ModelConfig.from_huggingface(tiny_json())
    weights = random_weights(config)
    audio = sweep(2.0)
    first = Network(weights, config, arithmetic="int8", identity=IDENTITY)
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    again = Network(weights, config, arithmetic="int8", identity=IDENTITY)
    assert file.stat().st_mtime_ns == written
    assert stream(first, audio, 3, 9)[1] == stream(again, audio, 3, 9)[1]
