"""What a manifest may say, and that everything wrong with it is found at once."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation.manifest import (
    ManifestError,
    ManifestOptions,
    read_manifest,
    supported_locale,
)
from nemotron_voice.evaluation.normalisation import Normaliser, normalise

DEMO = ("en-US", "es-ES", "fr-FR", "it-IT", "pt-BR")
GOOD = {"audio_filepath": "ok.wav", "text": "Hello.", "duration": 1.0, "target_lang": "en-US"}


def problems(path, **options) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, ManifestOptions(**options))
    assert "nothing was run" in str(caught.value)
    return list(caught.value.problems)


def test_a_row_is_a_clip(manifest, tmp_path):
    row = GOOD | {"id": "one", "speaker": 7, "words": [{"word": "Hello.", "start": 0, "end": 0.5}]}
    (clip,) = read_manifest(manifest([row]))
    assert (clip.name, clip.text, clip.locale, clip.regional) == ("one", "Hello.", "en-US", True)
    assert clip.path == tmp_path / "ok.wav"
    assert clip.duration_s == 1.0
    assert clip.offset_s is None
    assert clip.words[0].end == 0.5
    assert clip.row["speaker"] == 7


BAD = {
    "a missing file": ({"audio_filepath": "missing.wav"}, "missing.wav doesn't exist"),
    "no audio": ({"audio_filepath": "junk.wav"}, "can't be read as audio"),
    "0-length audio": ({"audio_filepath": "empty.wav", "duration": 0.0}, "no audio samples"),
    "stereo": ({"audio_filepath": "stereo.wav"}, "2 channels"),
    "another duration": ({"duration": 2.0}, '"duration" is 2.00 s, but'),
    "a duration of words": ({"duration": "long"}, "no number of seconds"),
    "a clip past its file": ({"offset": 0.5, "duration": 0.9}, "the clip ends at 1.40 s"),
    "no text": ({"text": ""}, 'no "text"'),
    "text of nothing": ({"text": "...!"}, "nothing is left"),
    "an unknown locale": ({"target_lang": "xx-YY"}, "xx-YY"),
    "a locale that the model lacks": ({"target_lang": "de-DE"}, "can't transcribe"),
    "no path": ({"audio_filepath": None}, 'no "audio_filepath"'),
    "words without times": ({"words": ["Hello"]}, '"words" is no list'),
}


@pytest.fixture
def bad_files(tmp_path):
    (tmp_path / "junk.wav").write_text("no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(tmp_path / "stereo.wav", np.zeros((16_000, 2), np.float32), 16_000)


def strict() -> dict:
    return {
        "supported": DEMO,
        "normalise": lambda text, code: normalise(text, code, Normaliser.multilingual),
    }


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_with_its_line(name, manifest, bad_files):
    change, message = BAD[name]
    (problem,) = problems(manifest([GOOD, GOOD | {"id": "bad"} | change]), **strict())
    assert problem.startswith("line 2: ")
    assert message in problem


def test_all_bad_rows_are_listed_at_once(manifest, bad_files):
    rows = [GOOD | {"id": str(n)} | change for n, (change, _) in enumerate(BAD.values())]
    path = manifest(rows)
    path.write_text(path.read_text() + "not json\n[1]\n")
    found = problems(path, **strict())
    assert [problem.split(":")[0] for problem in found] == [
        f"line {n + 1}" for n in range(len(BAD) + 2)
    ]


def test_a_long_list_is_counted(manifest):
    rows = [GOOD | {"audio_filepath": f"{n}.wav"} for n in range(150)]
    with pytest.raises(ManifestError, match="and 50 more") as caught:
        read_manifest(manifest(rows))
    assert len(caught.value.problems) == 150


def test_a_problem_of_many_rows_is_said_once(manifest):
    bad = {1, 2, 3, 5, *range(7, 30, 2)}
    rows = [GOOD | {"id": n} | ({"text": ""} if n in bad else {}) for n in range(30)]
    assert problems(manifest(rows)) == [
        'lines 2-4, 6, 8, 10, 12, 14, 16, 18, 20, 22, and 4 more places (16 rows): no "text"'
    ]


def test_two_rows_of_one_name_are_refused(manifest):
    assert problems(manifest([GOOD, GOOD])) == ["2 rows are named ok.wav"]


def test_rows_are_chosen_by_their_fields_before_they_are_checked(manifest):
    rows = [GOOD | {"kind": "digit"}, GOOD | {"audio_filepath": "missing.wav", "kind": "noise"}]
    (clip,) = read_manifest(manifest(rows), ManifestOptions(where={"kind": {"digit", "word"}}))
    assert clip.row["kind"] == "digit"
    assert problems(manifest(rows), where={"kind": {"word"}}) == [
        "it has no row that --where keeps"
    ]


def test_a_part_of_a_file_is_a_clip(manifest):
    rows = [GOOD | {"offset": 0.25, "duration": 0.5}, GOOD | {"id": 2, "duration": None}]
    part, whole = read_manifest(manifest(rows))
    assert (part.offset_s, part.duration_s) == (0.25, 0.5)
    assert whole.duration_s == 1.0


def test_tags_of_training_texts_are_no_words_and_tell_the_language(manifest):
    row = {"audio_filepath": "ok.wav", "text": "Hola. <es-ES>"}
    (clip,) = read_manifest(manifest([row]))
    assert (clip.text, clip.locale) == ("Hola.", "es-ES")


def test_a_forced_language_must_be_there(manifest):
    row = {"audio_filepath": "ok.wav", "text": "Hello."}
    assert "add --locale" in problems(manifest([row]), needs_locale=True)[0]
    (clip,) = read_manifest(manifest([row]), ManifestOptions(needs_locale=True, locale="en-GB"))
    assert clip.locale == "en-GB"


@pytest.mark.parametrize(
    ("name", "supported", "expected"),
    [
        ("es-ES", DEMO, ("es-ES", True)),
        ("es", DEMO, ("es-ES", False)),  # the model's dictionary would say es-US
        ("es-MX", DEMO, ("es-ES", False)),
        ("fr-CA", DEMO, ("fr-FR", False)),
        ("fr-CA", None, ("fr-CA", True)),
        ("el_gr", None, ("el-GR", True)),
    ],
)
def test_a_region_that_the_model_lacks_is_its_language_elsewhere(name, supported, expected):
    assert supported_locale(name, supported) == expected


def test_a_manifest_that_is_none(tmp_path):
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    assert problems(tmp_path / "empty.jsonl") == ["it has no row"]
