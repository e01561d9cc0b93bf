"""`nemotron-voice evaluate` and `compare`, as users type them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from nemotron_voice.cli.app import app

run = CliRunner().invoke


@pytest.fixture(scope="module")
def evaluated(turns, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "base"
    result = run(
        app,
        [
            *("evaluate", str(turns), "-m", "demo", "--latency-ms", "80,320"),
            *("-o", str(folder), "--by", "turn", "--threads", "1"),
        ],
    )
    assert result.exit_code == 0, result.output
    return folder, result.stdout


def test_tables_name_what_was_measured_and_how(evaluated, turns):
    folder, text = evaluated
    count = len(turns.read_text().splitlines())
    assert f"{count} clips" in text
    assert "| **all (WER)** |" in text
    assert "language right, %" in text
    assert "### turn: first" in text
    assert "Normalisation `multilingual`" in text
    assert (folder / "report.md").read_text() == text
    results = json.loads((folder / "results.json").read_text())
    assert results["job"]["latencies_ms"] == [80, 320]
    assert (results["job"]["device"], results["job"]["precision"]) == ("cpu", "fp32")  # not "auto"
    assert {row["latency_ms"] for row in results["figures"]} == {80, 320}
    assert len((folder / "hypotheses.jsonl").read_text().splitlines()) == 2 * count
    assert (folder / "accuracy.svg").exists()


def test_an_evaluation_that_was_cut_off_goes_on(evaluated, turns, tmp_path):
    folder, _ = evaluated
    lines = (folder / "hypotheses.jsonl").read_text().splitlines(keepends=True)
    for name in ("results.json", "hypotheses.jsonl"):
        (tmp_path / name).write_text((folder / name).read_text())
    changed = json.loads(lines[0]) | {"pred_text": "kept as it was"}
    (tmp_path / "hypotheses.jsonl").write_text(
        json.dumps(changed) + "\n" + lines[1] + lines[2][:40]
    )
    command = ["evaluate", str(turns), "-m", "demo", "--latency-ms", "80,320", "--resume"]
    result = run(app, [*command, "--threads", "1", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    again = (tmp_path / "hypotheses.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(again[0])["pred_text"] == "kept as it was"
    assert again[1:] == lines[1:]
    result = run(app, [*command, "--language", "manifest", "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert "language was other" in result.stderr


def test_two_latencies_are_compared(evaluated, tmp_path):
    lines = str(evaluated[0] / "hypotheses.jsonl")
    command = ["compare", lines, lines, "--latency-a", "80", "--latency-b", "320", "--top", "2"]
    result = run(app, [*command, "-o", str(tmp_path / "c.md")])
    assert result.exit_code == 0, result.output
    assert "A at 80 ms, B at 320 ms" in result.stdout
    assert (tmp_path / "c.md").read_text() == result.stdout
    result = run(app, ["compare", lines, lines])
    assert result.stdout.count("no difference shown") >= 2
    result = run(app, ["compare", lines, lines, "--latency-a", "560"])
    assert "it has 80, 320" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "turn"], "FIELD=VALUE"),
        (["--latency-ms", "90"], "not a mode"),
        (["--resume"], "--output DIR"),
        (["--where", "turn=none"], "no row that --where keeps"),
        (["--language", "xx"], "not a language"),
        (["-m", "no-such-model"], "there is no model"),
    ],
)
def test_wrong_options_end_before_anything_runs(turns, options, message):
    result = run(app, ["evaluate", str(turns), "-m", "demo", *options])
    assert result.exit_code != 0
    assert message in result.stderr


def test_a_bad_manifest_is_listed_whole(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"audio_filepath": "none.wav", "text": "a"}\nno json\n')
    result = run(app, ["evaluate", str(path), "-m", "demo"])
    assert result.exit_code == 2
    assert "2 problems" in result.stderr
    assert "line 2: no JSON" in result.stderr
