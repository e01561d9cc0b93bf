"""A dataset as a manifest; a local folder stands for the hub."""

from __future__ import annotations

import json

import pytest

from nemotron_voice.audio import read_samples
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation import hub
from nemotron_voice.evaluation.manifest import read_manifest

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def dataset(turns, tmp_path_factory):
    """Two turns with the columns of FLEURS."""
    folder = tmp_path_factory.mktemp("fleurs")
    rows = [json.loads(line) for line in turns.read_text().splitlines()][:2]
    table = datasets.Dataset.from_dict(
        {
            "audio": [
                {
                    "path": row["audio_filepath"],
                    "bytes": (turns.parent / row["audio_filepath"]).read_bytes(),
                }
                for row in rows
            ],
            "transcription": [row["text"].lower() for row in rows],
            "raw_transcription": [row["text"] for row in rows],
            "gender": [0, 1],
        }
    ).cast_column("audio", datasets.Audio(decode=False))
    (folder / "data").mkdir()
    table.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder, rows


def test_a_dataset_becomes_a_manifest_once(dataset, tmp_path):
    folder, rows = dataset
    told = []
    spec = hub.DatasetSpec(name=str(folder), config=None)
    path = hub.prepare(spec, lambda done, total: told.append((done, total)), folder=tmp_path / "m")
    assert told == [(1, 2), (2, 2)]
    clips = read_manifest(path)
    assert [clip.text for clip in clips] == [row["text"].lower() for row in rows]
    assert [clip.row["gender"] for clip in clips] == [0, 1]
    assert read_samples(clips[0].path).size == pytest.approx(rows[0]["duration"] * 16_000, abs=200)
    before = path.stat().st_mtime_ns
    assert hub.prepare(spec, folder=tmp_path / "m") == path
    assert path.stat().st_mtime_ns == before


def test_columns_and_counts_can_be_chosen(dataset, tmp_path):
    folder, rows = dataset
    spec = hub.DatasetSpec(name=str(folder), text_column="raw_transcription", limit=1)
    (clip,) = read_manifest(hub.prepare(spec, folder=tmp_path / "m"))
    assert clip.text == rows[0]["text"]
    with pytest.raises(ConfigurationError, match="--text-column"):
        hub.prepare(hub.DatasetSpec(name=str(folder), text_column="words"), folder=tmp_path / "n")


def test_a_dataset_that_isnt_there_is_said_so(tmp_path):
    with pytest.raises(ConfigurationError, match="can't be loaded"):
        hub.prepare(hub.DatasetSpec(name=str(tmp_path / "none")), folder=tmp_path / "m")


@pytest.mark.parametrize(
    ("config", "region"), [("el_gr", "el_gr"), ("el", "el"), ("default", None), (None, None)]
)
def test_a_config_names_the_language_of_fleurs_and_common_voice(config, region):
    assert hub._region(config) == region
