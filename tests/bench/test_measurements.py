"""Each measurement gives figures that fit together, and tables and files of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nemotron_voice.bench import call_length, capacity, packets, plots, report, results, roofline
from nemotron_voice.bench import startup as startup_bench
from nemotron_voice.bench.fresh_process import MeasurementError, in_fresh_process
from nemotron_voice.bench.machine import describe, summary
from nemotron_voice.bench.random_model import REAL_SIZE
from nemotron_voice.bench.speech import RATE, pauses, recordings, speech_like
from nemotron_voice.bench.steps import StepOptions, measure_here
from nemotron_voice.bench.subject import Subject
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.features import window_samples
from nemotron_voice.model.network import Network
from nemotron_voice.model.weights import expected_shapes
from tests.bench.test_trial import GOOD

DEMO = Subject(model="demo", threads=1)


def quiet(message: str) -> None:
    """Progress that nobody sees."""


def test_steps_have_all_streams_and_their_factor_is_their_time():
    options = StepOptions(latencies_ms=(320,), streams=(1, 3), steps=5, budget_s=10)
    rows = measure_here(DEMO, options, quiet)
    assert [row["streams"] for row in rows] == [1, 3]
    for row in rows:
        assert row["steps"] >= 5
        assert row["real_time_factor"] == pytest.approx(row["step_ms"]["p50"] / 320, abs=1e-3)
        assert row["step_ms"]["p10"] <= row["step_ms"]["p90"]
        assert row["words_per_s"] > 0.5
    assert "| 320 ms |" in report.table(results.results_of("steps", rows))


def test_a_call_is_as_long_as_asked():
    call = call_length.measure_here(DEMO, 1, 1120, (), quiet)
    assert 45 <= call["minutes"][0]["steps"] <= 80  # 53 chunks, and flushes of one or two steps
    assert call["growth"] == 1.0
    turns = call["in_turn"]
    assert turns["quotient"] == pytest.approx(
        turns["long"]["p50"] / turns["fresh"]["p50"], abs=0.01
    )
    assert "demo" in report.table(results.results_of("call_length", [call]))


def test_start_up_adds_up():
    subject = {"model": "demo", "precision": "fp32", "device": "cpu", "threads": 1}
    row = startup_bench.measure(subject, latency_ms=320, repetitions=1, progress=quiet)
    (run,) = row["runs"]
    parts = run["interpreter_s"] + run["import_s"] + run["load_s"]
    assert parts == pytest.approx(run["ready_s"], abs=0.01)
    assert run["stream_mb"] >= 0
    assert "ready, s" in report.table(results.results_of("startup", [row]))


def test_a_start_that_fails_says_why():
    subject = {"model": "nothing-here", "precision": "fp32", "device": "cpu", "threads": 1}
    with pytest.raises(MeasurementError, match="there is no model 'nothing-here'"):
        startup_bench.measure(subject, latency_ms=320, repetitions=1, progress=quiet)


def test_packets_are_pushed_without_an_engine(monkeypatch):
    monkeypatch.setattr(packets, "_SECONDS", 1)
    rows = packets.measure(quiet)
    assert len(rows) == 9
    assert all(row["packets_per_s"] > 1000 for row in rows)
    assert "50 ms at 48000 Hz" in report.table(results.results_of("packets", rows))


@pytest.mark.parametrize("lookahead", [0, 3, 13])
def test_operations_are_those_that_pytorch_counts(lookahead):
    meta = torch.device("meta")
    weights = {
        name: torch.empty(shape, device=meta) for name, shape in expected_shapes(REAL_SIZE).items()
    }
    network = Network(weights, REAL_SIZE, device=meta)
    state, frames = network.initial_state(2), lookahead + 1
    samples = torch.empty(2, window_samples(lookahead), device=meta)
    rows = torch.zeros(2, dtype=torch.int64, device=meta)
    with FlopCounterMode(display=False) as counter:
        network.encode(samples, state, rows, rows, lookahead)
    work = roofline.work_of(REAL_SIZE, "fp32", frames=frames, streams=2)
    joint = 2 * 2 * frames * (1024 * 640 + 640 * 13_088)
    # The network counts a few mel frames and distances more than it has to.
    assert work.operations - joint == pytest.approx(counter.get_total_flops(), rel=0.08)


def test_bytes_are_those_of_the_weights_and_of_the_states():
    one = roofline.work_of(REAL_SIZE, "bf16", frames=1, streams=1)
    many = roofline.work_of(REAL_SIZE, "bf16", frames=1, streams=10)
    assert one.weight_bytes == many.weight_bytes
    assert 1.1e9 < one.weight_bytes < 1.276e9  # all 638 M in bf16, but for what isn't multiplied
    assert many.state_bytes == 10 * one.state_bytes
    assert 5.5e6 < one.state_bytes < 7e6  # 5.5 MB of K and V
    assert roofline.work_of(REAL_SIZE, "int8", frames=1, streams=1).weight_bytes * 2 == (
        one.weight_bytes
    )


def test_each_number_is_tried_once_for_all_bounds(monkeypatch):
    tried = []

    def fake(function, subject, options, callers):
        tried.append(callers)
        seen = json.loads(json.dumps(GOOD))
        seen |= {"callers": callers, "process_cores": 1, "state_mb_per_stream": 1.0}
        seen |= {"resident_mb": 100}
        seen["load"]["cores"] = 0.1
        seen["final_ms"]["p95"] = 2.0 * callers
        seen["chunks"]["late"] = 0 if callers <= 300 else 5000
        return seen

    monkeypatch.setattr(capacity, "in_fresh_process", fake)
    options = capacity.SearchOptions(resolution=0.0)
    found = capacity.measure(DEMO, capacity.TrialOptions(), options, quiet)
    assert [row["callers"] for row in found["capacity"]] == [50, 300]
    assert [row["next_tried"] for row in found["capacity"]] == [51, 301]
    assert len(tried) == len(set(tried)) < 25
    assert "**300**" in report.table(results.results_of("capacity", [found]))


def test_a_refused_trial_is_tried_again(monkeypatch):
    tried = []

    def fake(function, subject, options, callers):
        tried.append(callers)
        seen = json.loads(json.dumps(GOOD)) | {"callers": callers, "process_cores": 1}
        seen["load"]["cores"] = 0.1
        seen["load"]["late_packets"] = 5000 if len(tried) == 1 else 0
        return seen

    monkeypatch.setattr(capacity, "in_fresh_process", fake)
    options = capacity.SearchOptions(start=1, most=1, final_limits_ms=(100.0,))
    found = capacity.measure(DEMO, capacity.TrialOptions(), options, quiet)
    assert (found["capacity"][0]["callers"], tried) == (1, [1, 1])


def test_the_machine_is_in_every_file(tmp_path):
    path = tmp_path / "deep" / "packets.json"
    results.write(results.results_of("packets", []), path)
    machine = results.read(path)["machine"]
    assert machine == describe()
    assert f"{machine['cores']} cores" in summary(machine)
    path.write_text("[]")
    with pytest.raises(MeasurementError, match="holds no results"):
        results.read(path)


def test_plots_are_drawn_or_the_extra_is_named(tmp_path, monkeypatch):
    row = {"precision": "fp32", "latency_ms": 80, "streams": 1, "real_time_factor": 0.5}
    figures = results.results_of("steps", [row])
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"nemotron-voice\[bench\]"):
        plots.plot(figures, tmp_path)
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    (path,) = plots.plot(figures, tmp_path)
    drawn = path.read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert ">80 ms mode<" in drawn
    (again,) = plots.plot(figures, tmp_path / "again")
    assert again.read_text(encoding="utf-8") == drawn  # the same figures, the same file


def test_an_error_in_the_measured_process_comes_here():
    with pytest.raises(ConfigurationError, match="no option"):
        in_fresh_process(complain, "no option")


def complain(message: str) -> None:
    raise ConfigurationError(message)


def test_pauses_are_where_quiet_has_lasted():
    sound = speech_like(3.0)
    sound += np.where(np.abs(sound) < 1, 0.1, 0.0).astype(np.float32)
    sound[RATE : RATE + RATE // 2] = 0.0
    assert pauses(sound) == (RATE + 4 * RATE // 10,)


def test_a_recording_that_is_too_short_is_refused(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(800), 16_000)
    with pytest.raises(ConfigurationError, match="a second or more"):
        recordings((path,))
