"""A manifest through Ray Data: in order, as one engine hears it, past files that can't be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")

import ray
from typer.testing import CliRunner

from nemotron_voice import Engine, join_texts
from nemotron_voice.cli import app, cluster
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.cluster import bulk
from nemotron_voice.cluster.bulk import BulkOptions, read_manifest, transcribe
from nemotron_voice.errors import ConfigurationError, ModelNotFoundError

pytestmark = pytest.mark.cluster

NAMES = [call.audio.name for call in bundled_calls()]


@pytest.fixture(scope="module")
def a_ray() -> Iterator[None]:
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for call in bundled_calls():
        shutil.copy(call.audio, tmp_path)
    (tmp_path / "noise.wav").write_bytes(b"no audio at all")
    (tmp_path / "cut.ogg").write_bytes((tmp_path / NAMES[0]).read_bytes()[:40_000])
    return tmp_path


@pytest.mark.usefixtures("a_ray")
def test_results_are_in_order_and_those_of_one_engine_and_bad_files_stop_nothing(
    folder: Path,
) -> None:
    lines = [
        {"audio_filepath": NAMES[2], "text": "a reference", "duration": 9.9},
        {"path": "noise.wav"},
        {"path": str(folder / NAMES[0]), "language": "en-US"},
        {"path": "missing.wav"},
        {"path": NAMES[1], "language": "Klingon"},
        {"path": "cut.ogg"},
        *({"path": name} for name in NAMES),
    ]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = folder / "out.jsonl"
    chosen = ("--model", "demo", "--actors", "2", "--device", "cpu", "--output", str(output))
    said = CliRunner().invoke(app, ["transcribe", "--ray", str(manifest), *chosen])
    assert said.exit_code == 1, said.output
    results = [json.loads(line) for line in output.read_text().splitlines()]
    named = [line.get("audio_filepath") or line["path"] for line in lines]
    assert [result["audio_filepath"] for result in results] == named
    errors = {result["audio_filepath"]: result.get("error", "") for result in results}
    assert "can't be read as audio" in errors["noise.wav"]
    assert "doesn't exist" in errors["missing.wav"]
    assert "Klingon" in results[4]["error"]
    assert "is cut off" in errors["cut.ogg"]
    assert results[5]["text"], "what could be decoded is there"
    assert all(error in said.stderr for error in errors.values())

    with Engine.load("demo", threads=1) as engine:
        automatic = engine.transcribe([folder / name for name in [NAMES[2], *NAMES]])
        forced = engine.transcribe([folder / NAMES[0]], language="en-US")
    good = [results[0], *results[6:], results[2]]
    for result, finals in zip(good, [*automatic, *forced], strict=True):
        assert "error" not in result
        assert result["text"] == join_texts(finals)
        assert [(one["start"], one["end"], one["text"]) for one in result["finals"]] == [
            (final.start, final.end, final.text) for final in finals
        ]
        assert 20 < result["duration"] < 30
    assert results[2]["language"] == "en-US"


@pytest.mark.usefixtures("a_ray")
def test_a_plain_list_of_paths_goes_to_standard_output(folder: Path) -> None:
    manifest = folder / "files.txt"
    manifest.write_text(f"{NAMES[1]}\n\n  {folder / NAMES[0]}\n")
    said = CliRunner().invoke(app, ["transcribe", "--ray", str(manifest), "--model", "demo"])
    assert said.exit_code == 0, said.output
    results = [json.loads(line) for line in said.stdout.splitlines()]
    assert [one["audio_filepath"] for one in results] == [NAMES[1], str(folder / NAMES[0])]
    assert all(one["text"] for one in results)


@pytest.mark.usefixtures("a_ray")
def test_a_model_that_no_actor_can_load_is_named(folder: Path) -> None:
    manifest = folder / "files.txt"
    manifest.write_text(NAMES[0])
    with pytest.raises(ModelNotFoundError, match="no-such-folder"):
        list(transcribe(read_manifest(manifest), BulkOptions(model="/no-such-folder")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no file"),
        ('{"audio": "a.wav"}', 'line 1 has no text "audio_filepath"'),
        ('a.wav\n{"path": 3}', "line 2 has no text"),
        ('{"path": "a.wav", "language": 4}', "a language that is no text"),
        ('{"path": "a.wav"', "line 1 is no JSON"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    manifest = tmp_path / "manifest"
    manifest.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_manifest(manifest)
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_manifest(tmp_path / "none")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.wav", "--output", "x"],
        ["a.wav", "--ray", "m.txt"],
        ["--ray", "m.txt", "--format", "srt"],
        ["--ray", "m.txt", "--precision", "int4"],
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str]) -> None:
    said = CliRunner().invoke(app, ["transcribe", *arguments])
    assert said.exit_code == 2
    assert "--ray" in said.stderr or "precision='int4'" in said.stderr


def test_the_command_s_precision_is_that_of_the_actors_engines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[BulkOptions] = []
    loaded: dict[str, object] = {}
    monkeypatch.setattr(
        cluster, "transcribe_manifest", lambda _, options, __: asked.append(options)
    )
    monkeypatch.setattr(bulk.Engine, "load", lambda _, **options: loaded.update(options))
    chosen = ("--model", "demo", "--precision", "bf16")
    said = CliRunner().invoke(app, ["transcribe", "--ray", str(folder / "list"), *chosen])
    assert said.exit_code == 0, said.output
    bulk.Transcriber(asked[0], "cpu")
    assert loaded["precision"] == "bf16"


def test_options_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="actors=0"):
        BulkOptions(actors=0)
    with pytest.raises(ConfigurationError, match="latency_ms"):
        BulkOptions(latency_ms=100)
