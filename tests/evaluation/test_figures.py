"""Figures, comparisons and tables of hypotheses made by hand."""

from __future__ import annotations

import math

import pytest

from nemotron_voice.errors import ConfigurationError
from nemotron_voice.evaluation import report
from nemotron_voice.evaluation.comparison import compare
from nemotron_voice.evaluation.hypotheses import Delays, Hypothesis
from nemotron_voice.evaluation.normalisation import Normaliser
from nemotron_voice.evaluation.summary import ALL, MEAN, by_field, summarise

PLAIN = Normaliser.multilingual


def heard(name: str, text: str, pred: str, locale: str | None = "en-US", **fields) -> Hypothesis:
    options = {"pred_lang": locale, "latency_ms": 80, "prompt": "auto", "regional": True} | fields
    return Hypothesis(
        id=name,
        audio_filepath=f"{name}.wav",
        duration=1.0,
        text=text,
        target_lang=locale,
        pred_text=pred,
        **options,
    )


SET = [
    heard("a", "one two three four", "one two three four"),
    heard("b", "one two", "one too"),
    heard("c", "uno dos", "uno dos", "es-ES", pred_lang="en-US"),
    heard("d", "東京都", "東京", "ja-JP"),
]


def test_words_and_characters_arent_added_up():
    rows = {(row.group, row.unit): row for row in summarise(SET, PLAIN)}
    assert rows[ALL, "WER"].error_rate.value == pytest.approx(100 * 1 / 8)
    assert rows[ALL, "CER"].error_rate.value == pytest.approx(100 / 3)
    assert rows["en-US", "WER"].clips == 2
    assert rows["es-ES", "WER"].language.value == 0.0
    mean = rows[MEAN, "WER"]
    assert mean.error_rate.value == pytest.approx((100 / 6 + 0 + 100 / 3) / 3)
    assert math.isnan(mean.error_rate.low)


def test_one_locale_needs_no_row_for_all():
    assert [row.group for row in summarise(SET[:2], PLAIN)] == ["en-US"]


def test_a_region_counts_only_where_the_manifest_says_one():
    vague = heard("a", "hello", "hello", "es-ES", pred_lang="es-US", regional=False)
    assert vague.right_language is True
    exact = heard("a", "hello", "hello", "es-ES", pred_lang="es-US")
    assert exact.right_language is False
    assert heard("a", "hello", "hello", pred_lang=None).right_language is False
    assert heard("a", "hello", "hello", prompt="en-US").right_language is None


def test_groups_of_a_field_keep_their_order():
    rows = [heard(str(n), "a", "a", row={"kind": kind}) for n, kind in enumerate("bab")]
    assert {value: len(own) for value, own in by_field(rows, "kind").items()} == {"b": 2, "a": 1}


def test_tables_have_latencies_across_and_delays_only_where_measured():
    timed = [
        heard(
            "a", "one", "one", delays=Delays(shown=(100.0, 200.0), final=(300.0,)), answer_ms=40.0
        ),
        heard("a", "one", "two", latency_ms=320),
    ]
    text = report.tables(summarise(timed, PLAIN))
    assert "|  | clips | 80 ms | 320 ms |" in text
    assert "| en-US (WER) | 1 | 0.0 (0.0-0.0) | 100.0 (100.0-100.0) |" in text
    assert "| en-US (WER) | 1 | 150; 195 / 300; 300 / 40; 40 |" in text
    assert "fell behind" not in text
    late = [heard("a", "one", "one", answer_ms=4000.0)]
    assert "fell behind" in report.tables(summarise(late, PLAIN))
    assert "word end" not in report.tables(summarise(SET, PLAIN))


def test_a_plot_is_drawn(tmp_path):
    rows = summarise(
        [*SET, *(heard(one.id, one.text, "x", one.target_lang, latency_ms=320) for one in SET)],
        PLAIN,
    )
    report.plot(rows, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_a_comparison_pairs_clips_and_names_what_changed_most():
    better = [
        heard("a", "one two three four", "one two three four"),
        heard("b", "one two", "one two"),
    ]
    (found,) = compare(SET, better, PLAIN)
    (whole,) = found.groups
    assert (whole.clips, whole.changed, whole.better, whole.worse) == (2, 1, 1, 0)
    assert whole.difference.value == pytest.approx(-100 / 6)
    assert found.unpaired == 2
    assert found.pairs[0].one.id == "b"
    text = report.comparison(found, ("old", "new"), top=3)
    assert "b: 1 -> 0 errors" in text
    assert "2 hypotheses are of clips that only one of them has" in text


def test_the_verdict_follows_the_interval():
    texts = [("one two three", "one two four")] * 50
    worse = [heard(str(n), said, got) for n, (said, got) in enumerate(texts)]
    right = [heard(str(n), said, said) for n, (said, _) in enumerate(texts)]
    assert compare(worse, right, PLAIN)[0].groups[0].verdict == "B is better"
    assert compare(right, worse, PLAIN)[0].groups[0].verdict == "A is better"
    assert compare(right, right, PLAIN)[0].groups[0].verdict == "no difference shown"


def test_latencies_are_compared_like_with_like_unless_there_is_one_of_each():
    def at(*modes):
        return [heard("a", "one", "one", latency_ms=ms) for ms in modes]

    assert [one.latency_ms for one in compare(at(80, 320), at(320, 1120), PLAIN)] == [320]
    (crossed,) = compare(at(80), at(1120), PLAIN)
    assert (crossed.latency_ms, crossed.other_latency_ms) == (80, 1120)
    with pytest.raises(ConfigurationError, match="no latency is in both"):
        compare(at(80, 160), at(320, 560), PLAIN)


def test_other_clips_and_other_texts_arent_compared():
    with pytest.raises(ConfigurationError, match="no clip in common"):
        compare(SET, [heard("z", "one", "one")], PLAIN)
    with pytest.raises(ConfigurationError, match="same manifest"):
        compare(SET, [heard("a", "other words", "one")], PLAIN)
