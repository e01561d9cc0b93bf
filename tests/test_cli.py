"""The command line against a fake engine: what it prints, refuses, and exits with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from nemotron_voice import __version__, captions, hear
from nemotron_voice.cli import app, demo, screen
from nemotron_voice.config import StreamOptions
from nemotron_voice.errors import (
    AudioOverflowError,
    EngineFullError,
    ModelNotFoundError,
    StepFailedError,
)
from nemotron_voice.languages import LOCALES
from nemotron_voice.recognizer import Recognizer, RecognizerStream
from nemotron_voice.transcript import LanguageRun, Transcript, Word
from tests.test_audio import encoded, noise

runner = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb"})
app_module = import_module("nemotron_voice.cli.app")  # its name is taken by the app in it


def said(
    text: str, language: str | None = "es-ES", *, is_final: bool = True, start: float = 1.0
) -> Transcript:
    """A transcript of words half a second each."""
    words = tuple(
        Word(word, start + place / 2, start + place / 2 + 0.4, 0.9, language)
        for place, word in enumerate(text.split())
    )
    end = words[-1].end if words else start
    runs = (LanguageRun(language, text, start, end),) if text else ()
    source = "tag" if language else None
    return Transcript(text, is_final, language, source, runs, words, start, end, 0.9, None, 1)


class FakeStream:
    """Says its script: an interim at the first packet, each line when flushed or finished."""

    def __init__(self, script: list[Transcript], options: StreamOptions) -> None:
        self.options = options
        self.samples = 0
        self.script = script
        self.failure: Exception | None = None
        self._events: asyncio.Queue[Transcript | None] = asyncio.Queue()

    def push(self, pcm: Any) -> None:
        if self.failure is not None:
            raise self.failure
        if self.samples == 0 and self.options.interim_results and self.script:
            self._events.put_nowait(replace(self.script[0], is_final=False))
        self.samples += len(pcm)

    def update(self, *, language: object | None = None, latency_ms: int | None = None) -> None:
        raise AssertionError("not used")

    async def flush(self, *, deadline_s: float = 2.0) -> Transcript:
        final = self.script.pop(0) if self.script else said("")
        self._events.put_nowait(final)
        return final

    async def finish(self, *, deadline_s: float = 60.0) -> Transcript:
        final = said("")
        while self.script:
            final = await self.flush()
        self._events.put_nowait(None)
        return final

    async def drained(self, max_buffered_s: float = 0.5) -> None:
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        self._events.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while (event := await self._events.get()) is not None:
            yield event


class FakeEngine:
    """A Recognizer whose streams all say the same."""

    languages = ("en-US", "es-ES")

    def __init__(self, *script: Transcript) -> None:
        self.script = script
        self.streams: list[FakeStream] = []
        self.loaded: dict[str, Any] = {}
        self.failure: Exception | None = None

    def open(self, options: StreamOptions | None = None, **overrides: Any) -> RecognizerStream:
        stream = FakeStream(list(self.script), replace(options or StreamOptions(), **overrides))
        stream.failure = self.failure
        self.streams.append(stream)
        return stream

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(said("Hola."), said("Una mesa.", start=3.0))

    def load(model: str, **options: Any) -> FakeEngine:
        fake.loaded = {"model": model, **options}
        return fake

    monkeypatch.setattr(app_module, "load", load)
    return fake


@pytest.fixture
def call(tmp_path: Path) -> Path:
    path = tmp_path / "call.wav"
    path.write_bytes(encoded("wav", noise(1.0, 8_000), 8_000))
    return path


def test_the_fake_is_a_recognizer() -> None:
    fake = FakeEngine()
    assert isinstance(fake, Recognizer)
    assert isinstance(fake.open(), RecognizerStream)


# ---- transcribe


def test_text_is_a_sentence_a_line(engine: FakeEngine, call: Path) -> None:
    result = runner.invoke(app, ["transcribe", str(call)])
    assert (result.exit_code, result.stdout) == (0, "Hola.\nUna mesa.\n")
    assert engine.loaded["model"] == "nvidia/nemotron-3.5-asr-streaming-0.6b"
    stream = engine.streams[0]
    assert stream.samples == 8_000
    assert (stream.options.sample_rate, stream.options.latency_ms) == (8_000, 1120)
    assert (stream.options.finalize, stream.options.interim_results) == ("sentence", False)


def test_options_reach_the_engine(engine: FakeEngine, call: Path) -> None:
    model = ["--model", "demo", "--device", "cpu", "--offline", "--precision", "int8"]
    stream = ["--language", "Spanish", "--latency-ms", "80"]
    assert runner.invoke(app, ["transcribe", str(call), *model, *stream]).exit_code == 0
    assert engine.loaded == {
        "model": "demo",
        "device": "cpu",
        "precision": "int8",
        "revision": None,
        "offline": True,
    }
    assert engine.streams[0].options.latency_ms == 80
    assert engine.streams[0].options.language == "Spanish"


def test_json_is_an_event_a_line_with_every_field(engine: FakeEngine, call: Path) -> None:
    result = runner.invoke(app, ["transcribe", str(call), "--format", "json"])
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0] == {"file": str(call), **json.loads(json.dumps(engine.script[0].to_dict()))}
    assert [event["text"] for event in events] == ["Hola.", "Una mesa."]


def test_srt_numbers_its_cues(engine: FakeEngine, call: Path) -> None:
    result = runner.invoke(app, ["transcribe", str(call), "--format", "srt"])
    assert result.stdout == (
        "1\n00:00:01,000 --> 00:00:01,400\nHola.\n\n2\n00:00:03,000 --> 00:00:03,900\nUna mesa.\n\n"
    )


def test_vtt_names_the_language(engine: FakeEngine, call: Path) -> None:
    result = runner.invoke(app, ["transcribe", str(call), "--format", "vtt"])
    assert result.stdout.startswith(
        "WEBVTT\n\n00:00:01.000 --> 00:00:01.400\n<lang es-ES>Hola.</lang>\n\n"
    )


def test_several_files_are_told_apart_and_keep_their_order(
    engine: FakeEngine, call: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(call.read_bytes())
    result = runner.invoke(app, ["transcribe", str(other), str(call)])
    assert result.stdout.splitlines() == [
        f"== {other}",
        "Hola.",
        "Una mesa.",
        f"== {call}",
        "Hola.",
        "Una mesa.",
    ]


def test_a_file_each_goes_into_the_output_folder(
    engine: FakeEngine, call: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "subtitles"
    arguments = [str(call), "--format", "srt", "--output-dir", str(folder)]
    result = runner.invoke(app, ["transcribe", *arguments])
    assert (result.exit_code, result.stdout) == (0, "")
    assert (folder / "call.wav.srt").read_text().startswith("1\n00:00:01,000")


def test_files_of_one_name_are_refused_before_one_overwrites_the_other(
    engine: FakeEngine, call: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / call.name
    other.parent.mkdir()
    other.write_bytes(call.read_bytes())
    folder = tmp_path / "texts"
    files = [str(call), str(other)]
    result = runner.invoke(app, ["transcribe", *files, "--output-dir", str(folder)])
    assert result.exit_code == 2
    message = result.stderr.replace("\n", "")
    for named in (*files, str(folder / "call.wav.txt"), "rename"):
        assert named in message
    assert not folder.exists()
    assert engine.loaded == {}, "a model was loaded for nothing"
    assert runner.invoke(app, ["transcribe", *files]).exit_code == 0


def test_subtitles_of_several_files_need_a_folder(engine: FakeEngine, call: Path) -> None:
    result = runner.invoke(app, ["transcribe", str(call), str(call), "--format", "srt"])
    assert result.exit_code == 2
    assert "--output-dir" in result.stderr


def test_realtime_shows_interims_and_paces(engine: FakeEngine, call: Path) -> None:
    result = runner.invoke(app, ["transcribe", str(call), "--realtime"])
    lines = result.stdout.splitlines()
    assert lines[0] == "~ Hola."
    assert [line.split(" s ")[1].split() for line in lines[1:]] == [
        ["es-ES", "Hola."],
        ["es-ES", "Una", "mesa."],
    ]
    assert engine.streams[0].options.latency_ms == 320


async def test_realtime_gives_a_packet_when_it_has_been_spoken(call: Path) -> None:
    loop = asyncio.get_running_loop()
    moments: list[float] = []
    began = loop.time()
    audio = hear.AudioFile(call)
    await hear.hear(
        FakeEngine(said("Hola.")).open(sample_rate=audio.sample_rate),
        audio,
        realtime=True,
        on_transcript=lambda _: None,
        on_progress=lambda _: moments.append(loop.time() - began),
    )
    assert len(moments) == 50
    assert all(moment >= 0.02 * (place + 1) - 0.005 for place, moment in enumerate(moments))


def test_a_damaged_file_is_heard_to_its_end_and_named_and_the_next_one_goes_on(
    engine: FakeEngine, call: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes(call.read_bytes()[:9_000])
    result = runner.invoke(app, ["transcribe", str(cut), str(call)])
    assert result.exit_code == 1
    assert result.stdout.count("Una mesa.") == 2
    assert "cut.wav is cut off" in result.stderr
    assert engine.streams[0].samples == (9_000 - 78) // 2  # after the header


def test_a_missing_file_is_named(engine: FakeEngine, tmp_path: Path) -> None:
    result = runner.invoke(app, ["transcribe", str(tmp_path / "no.wav")])
    assert result.exit_code == 1
    assert "doesn't exist" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--language", "Klingon"], "Klingon"),
        (["--latency-ms", "100"], "80, 160, 320, 560, 1120"),
        (["--format", "docx"], "docx"),
    ],
)
def test_a_wrong_option_is_usage(
    arguments: list[str], what: str, engine: FakeEngine, call: Path
) -> None:
    result = runner.invoke(app, ["transcribe", str(call), *arguments])
    assert result.exit_code == 2
    assert what in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "error",
    [EngineFullError("all taken"), StepFailedError("it failed"), AudioOverflowError("bound")],
)
def test_an_engine_that_fails_is_a_failure_in_one_line(
    error: Exception, engine: FakeEngine, call: Path
) -> None:
    engine.failure = error
    result = runner.invoke(app, ["transcribe", str(call)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.strip() == f"error: {error}"


def test_a_model_that_can_t_be_had_names_the_one_that_can(
    monkeypatch: pytest.MonkeyPatch, call: Path
) -> None:
    def load(model: str, **options: Any) -> FakeEngine:
        raise ModelNotFoundError(f"{model} is not here and no hub answers")

    monkeypatch.setattr(app_module, "load", load)
    result = runner.invoke(app, ["transcribe", str(call)])
    assert result.exit_code == 1
    assert "--model demo" in result.stderr


# ---- formats


def test_a_long_final_becomes_several_readable_cues() -> None:
    final = said(" ".join(["palabra"] * 40), start=0.0)
    found = list(captions.cues(final))
    assert " ".join(text for _, _, text in found) == final.text
    assert all(len(text) <= captions.CUE_CHARACTERS for _, _, text in found)
    assert all(0 < end - start <= captions.CUE_S for start, end, _ in found)


def test_cues_keep_text_without_spaces() -> None:
    words = tuple(
        Word(word, place, place + 0.5, 1.0, "ja-JP") for place, word in enumerate("今日は")
    )
    final = replace(said("", "ja-JP"), text="今日は", words=words)
    assert [text for _, _, text in captions.cues(final)] == ["今日は"]


def test_a_clock_passes_an_hour() -> None:
    final = said("Hola.", start=3_725.5)
    assert captions._clock(final.start, ",") == "01:02:05,500"


def test_packets_are_cut_from_any_blocks() -> None:
    blocks = [noise(0.1, 800), noise(0.03, 800), np.zeros(0, np.float32), noise(0.5, 800)]
    cut = list(hear.packets(blocks, 16))
    assert {packet.size for packet in cut[:-1]} == {16}
    np.testing.assert_array_equal(np.concatenate(cut), np.concatenate(blocks))


# ---- live text on a terminal


def test_an_interim_gives_way_to_its_final() -> None:
    console = Console(force_terminal=True, width=60, record=True, _environ={})
    with console.capture() as capture, screen.LiveText(console) as live:
        live.interim(said("Una me", None, is_final=False))
        live.final(said("Una mesa."), "31 ms")
    shown = capture.get()
    assert "Una me" in shown
    assert "31 ms" in shown.split("Una mesa.")[1]
    assert "\x1b[2K" in shown  # the interim's line is wiped


# ---- demo


CALL = demo.Call(
    Path("call.wav"),
    "A table",
    (
        demo.Turn(0.1, 0.4, "es-ES", "¡Hola!"),
        demo.Turn(0.5, 0.9, "en-US", "One table, please."),
    ),
)


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch, call: Path) -> demo.Call:
    one = replace(CALL, audio=call)
    monkeypatch.setattr(demo, "bundled_calls", lambda: [one])
    return one


@pytest.mark.parametrize("pace", [[], ["--fast"]])
def test_the_demo_scores_each_turn_against_its_script(
    pace: list[str], engine: FakeEngine, bundled: demo.Call
) -> None:
    engine.script = (said("Hola."), said("One cable, please.", "es-ES"))
    result = runner.invoke(app, ["demo", *pace])
    assert result.exit_code == 0, result.output
    assert engine.streams[0].samples == 8_000
    assert engine.streams[0].options.language == "auto"
    row = next(line for line in result.stdout.splitlines() if "A table" in line and "│" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert cells[:5] == ["A table", "2", "4", "25.0 %", "1/2"]
    assert cells[5].endswith(" ms")


def test_words_after_the_last_turn_count_as_errors(engine: FakeEngine, bundled: demo.Call) -> None:
    engine.script = (said("Hola."), said("One table, please.", "en-US"), said("Ghost words."))
    result = runner.invoke(app, ["demo", "--fast"])
    assert "50.0 %" in result.stdout


def test_the_calls_are_read_from_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "files", lambda _: tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"calls\.jsonl is missing"):
        demo.bundled_calls()
    folder = tmp_path / "demo" / "calls"
    folder.mkdir(parents=True)
    turn = {"start": 0.1, "end": 0.4, "language": "es-ES", "text": "¡Hola!"}
    line = {"audio": "a.flac", "title": "A table", "turns": [turn]}
    (folder / "calls.jsonl").write_text(json.dumps(line) + "\n")
    assert demo.bundled_calls() == [
        demo.Call(folder / "a.flac", "A table", (demo.Turn(0.1, 0.4, "es-ES", "¡Hola!"),))
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("C’est l'été, à 20h30 !", ["c'est", "l'été", "à", "20h30"]),
        ("¿Qué tal?", ["qué", "tal"]),
        ("", []),
    ],
)
def test_scoring_forgets_case_and_punctuation(text: str, words: list[str]) -> None:
    assert demo.plain_words(text) == words


def test_errors_are_the_edit_distance_as_jiwer_counts_it() -> None:
    import jiwer

    generator = np.random.default_rng(3)
    for _ in range(50):
        reference, heard = (
            ["abcd"[letter] for letter in generator.integers(0, 4, generator.integers(1, 9))]
            for _ in range(2)
        )
        counted = jiwer.process_words(" ".join(reference), " ".join(heard))
        errors = counted.substitutions + counted.insertions + counted.deletions
        assert demo.word_errors(reference, heard) == errors


# ---- languages, help, version


def test_languages_are_a_table_of_all_40() -> None:
    result = runner.invoke(app, ["languages"])
    assert result.exit_code == 0
    for locale in LOCALES:
        assert locale.code in result.stdout
    for cell in ("transcription-ready", "CER", "102", "español"):
        assert cell in result.stdout


def test_languages_as_json() -> None:
    rows = json.loads(runner.invoke(app, ["languages", "--format", "json"]).stdout)
    assert [row["code"] for row in rows] == [locale.code for locale in LOCALES]
    assert rows[2]["prompt_index"] == 2
    assert rows[3]["aliases"] == ["es", "spa"]


@pytest.mark.parametrize("command", [[], ["transcribe"], ["demo"], ["languages"]])
def test_help_teaches(command: list[str]) -> None:
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "nemotron-voice" in result.stdout or command == ["languages"]


def test_version() -> None:
    assert runner.invoke(app, ["--version"]).stdout == f"nemotron-voice {__version__}\n"
