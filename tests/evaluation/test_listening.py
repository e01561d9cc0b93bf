"""Clips through the engine: the same text however they are batched, and nothing lost."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import replace

import pytest

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation import hypotheses
from nemotron_voice.evaluation.hypotheses import Delays
from nemotron_voice.evaluation.listening import ListenOptions, listen
from nemotron_voice.evaluation.manifest import TimedWord, read_manifest
from nemotron_voice.evaluation.normalisation import Normaliser


def hear(engine, clips, **options):
    return asyncio.run(listen(engine, clips, ListenOptions(**options)))


@pytest.fixture(scope="module")
def clips(turns):
    return read_manifest(turns)


@pytest.fixture(scope="module")
def heard(engine, clips):
    return hear(engine, clips, at_once=8)


def test_a_clip_is_heard_as_in_a_call(engine, clips, heard):
    assert [one.id for one in heard] == [clip.name for clip in clips]
    errors = sum(
        (one.errors(Normaliser.multilingual) for one in heard[1:]),
        heard[0].errors(Normaliser.multilingual),
    )
    assert errors.rate < 25
    right = [one.right_language for one in heard]
    assert sum(right) > 0.8 * len(right)
    assert all(one.finals and one.error is None for one in heard)
    assert heard[0].row == {"turn": "first"}
    assert engine.stats().streams == 0


@pytest.mark.parametrize("at_once", [1, 3])
def test_texts_dont_depend_on_how_clips_are_batched(engine, clips, heard, at_once):
    shuffled = random.Random(at_once).sample(clips, len(clips))
    others = {one.id: one for one in hear(engine, shuffled, at_once=at_once)}
    assert [others[one.id] for one in heard] == heard


def test_a_language_is_forced_on_all_or_each_its_own(engine, clips):
    (spanish,) = [clip for clip in clips if clip.locale == "es-ES"][:1]
    (own,) = hear(engine, [spanish], language="manifest")
    assert (own.prompt, own.pred_lang, own.right_language) == ("es-ES", "es-ES", None)
    (forced,) = hear(engine, [spanish], language="en-US")
    assert (forced.prompt, forced.pred_lang) == ("en-US", "en-US")


def test_flushing_at_pauses_gives_finals_between(engine, turns, clips):
    from nemotron_voice.cli.demo import bundled_calls

    call = bundled_calls()[0]
    whole = replace(clips[0], path=call.audio, duration_s=60.0, text="-")
    (once,) = hear(engine, [whole])
    (flushed,) = hear(engine, [whole], flush_at_pauses=True)
    assert len(once.finals) == 1
    assert len(flushed.finals) >= 5
    assert len(flushed.pred_text) == pytest.approx(len(once.pred_text), rel=0.1)


def test_in_real_time_delays_are_measured(engine, clips):
    first = min(clips, key=lambda clip: clip.duration_s)
    words = tuple(TimedWord(word, 0.0, first.duration_s - 0.3) for word in first.text.split())
    (heard,) = hear(engine, [replace(first, words=words)], realtime=True, latency_ms=80)
    assert heard.answer_ms is not None
    assert 0 < heard.answer_ms < 1000
    assert heard.delays.shown
    assert all(
        shown <= final for shown, final in zip(heard.delays.shown, heard.delays.final, strict=True)
    )


def test_a_part_of_a_file_is_heard_alone(engine, clips):
    from nemotron_voice.cli.demo import bundled_calls

    call = bundled_calls()[0]
    turn = call.turns[0]
    part = replace(
        clips[0], path=call.audio, offset_s=turn.start - 0.1, duration_s=turn.end - turn.start + 0.3
    )
    (heard,) = hear(engine, [part])
    assert heard.errors(Normaliser.multilingual).rate < 40


def test_a_damaged_file_is_heard_in_part_and_the_others_whole(engine, clips, heard, tmp_path):
    longest = max(range(len(clips)), key=lambda n: clips[n].duration_s)
    cut = tmp_path / "cut.flac"
    data = clips[longest].path.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    gone = tmp_path / "gone.flac"
    shutil.copy(clips[0].path, gone)
    damaged = replace(clips[longest], path=cut)
    vanished = replace(clips[0], path=gone)
    gone.unlink()
    found = hear(engine, [damaged, vanished, *clips], at_once=8)
    assert "cut off" in found[0].error or "damaged" in found[0].error
    assert found[0].pred_text
    assert "doesn't exist" in found[1].error
    assert found[2:] == heard


def test_hypotheses_survive_their_file(heard, tmp_path):
    timed = replace(heard[0], delays=Delays(shown=(1.0,), final=(2.0,)), answer_ms=3.0)
    hypotheses.write([timed, *heard[1:]], tmp_path / "h.jsonl")
    assert hypotheses.read(tmp_path / "h.jsonl") == [timed, *heard[1:]]
    (tmp_path / "h.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ConfigurationError, match="line 1 is no hypothesis"):
        hypotheses.read(tmp_path / "h.jsonl")


def test_wrong_options_are_refused():
    for wrong in ({"language": "xx"}, {"latency_ms": 100}, {"at_once": 0}):
        with pytest.raises(ConfigurationError):
            ListenOptions(**wrong)
