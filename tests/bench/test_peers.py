"""What stands round the peers' own code: what they hear, and the tables of what was measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sentencepiece
import typer

from benchmarks.peers.__main__ import begun, fastest
from benchmarks.peers.nemo_peer import made_up_pieces
from benchmarks.peers.onnx_export import _tokens
from benchmarks.peers.peer import RATE, speech
from benchmarks.peers.table import summary, table
from nemotron_voice.bench.machine import describe
from nemotron_voice.bench.speech import recordings
from nemotron_voice.config import LATENCIES_MS


def test_each_stream_hears_its_call_chunk_by_chunk():
    chunks = list(itertools.islice(speech(2, 3), 50))
    assert {samples.shape for row in chunks for samples in row} == {(4 * 1280,)}
    second = np.concatenate([row[1] for row in chunks])
    sound = recordings()[1 % len(recordings())].samples
    places = np.arange(RATE, RATE + second.size)
    assert np.array_equal(second, np.take(sound, places, mode="wrap"))


def test_as_many_pieces_as_the_model_has_outputs():
    pieces = sentencepiece.SentencePieceProcessor(model_proto=made_up_pieces(200))
    assert pieces.get_piece_size() == 199
    lines = _tokens(199).splitlines()
    assert len(lines) == 200
    assert lines[-1] == "<blk> 199"
    assert all(len(line.split()) == 2 for line in lines)


MACHINE = {
    "cpu": "one",
    "cores": 2,
    "instructions": [],
    "gpus": [],
    "memory_gb": 1,
    "torch": "2",
    "nemotron_voice": "0",
}


def rows(peer: str, factors: dict[int, float]) -> list[dict[str, object]]:
    return [
        {"peer": peer, "latency_ms": mode, "streams": streams, "real_time_factor": factor}
        for mode in LATENCIES_MS
        for streams, factor in factors.items()
    ]


def test_the_tables_say_who_holds_how_many():
    measured = {
        "machine": MACHINE,
        "rows": [
            *rows("ours, int8", {1: 0.2, 4: 0.6, 8: 1.0}),
            *rows("slow", {1: 0.9, 4: 4.2}),
            *rows("wide", {1: 0.95, 4: 1.0, 8: 1.2}),
        ],
    }
    assert "| 80 ms | **ours, int8** | 0.20 | 0.60 | 1.00 | 8+ |" in table(measured)
    assert "| 80 ms | slow | 0.90 | 4.20 | - | 1 |" in table(measured)
    assert "| 560 ms | 0.20 | 0.90, slow | 8 or more | 4, wide |" in summary(measured)


def test_figures_of_another_machine_are_not_mixed_in():
    here = {"machine": describe(), "rows": [*rows("ours, int8", {1: 0.2}), *rows("slow", {1: 0.9})]}
    peers = {row["peer"] for row in begun(here, ["slow"], add=False)["rows"]}
    assert peers == {"ours, int8"}
    assert begun(here, ["slow"], add=True)["rows"] == here["rows"]
    there = here | {"machine": here["machine"] | {"cpu": "another"}}
    with pytest.raises(typer.BadParameter, match="another machine"):
        begun(there, ["slow"], add=True)


def test_of_several_rounds_the_fastest_stands_and_the_table_says_how_far_apart_they_are():
    disturbed, quiet = rows("ours, int8", {1: 0.6})[0], rows("ours, int8", {1: 0.4})[0]
    once = rows("slow", {1: 0.9})[0]
    best = fastest([disturbed, quiet])
    assert best["real_time_factor"] == 0.4
    assert best["rounds"] == [disturbed, quiet]
    assert fastest([once]) == once
    shown = table({"machine": MACHINE, "rows": [best, once]})
    assert "The fastest of 1 to 2 rounds of a cell, of which the slowest took 50% longer" in shown
