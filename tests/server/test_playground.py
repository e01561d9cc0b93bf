"""The playground in a real browser: a microphone that plays a bundled call, and files."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import Call, bundled_calls, plain_words
from nemotron_voice.server import ServerOptions
from tests.running_server import RunningServer
from tests.server.chromium import EXECUTABLE, chromium
from tests.server.conftest import Serve

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        EXECUTABLE is None, reason="neither chromium nor google-chrome is on the PATH"
    ),
]

LOADED = "document.querySelector('#language').options.length === 6"
STATE = "document.body.dataset.state"
ERROR = "document.querySelector('#error').textContent"
FINALS = "[...document.querySelectorAll('#finals .text')].map(text => text.textContent)"
NOTES = "[...document.querySelectorAll('#finals .note')].map(note => note.textContent)"
RUNS = """[...document.querySelectorAll('#finals .language')].map(
    run => ({locale: run.lang, text: run.textContent, colour: getComputedStyle(run).color}))"""
RATE = 16_000


def bundled(name: str) -> Call:
    return next(call for call in bundled_calls() if call.audio.stem == name)


def write_wav(path: Path, call: Call, start_s: float, end_s: float) -> Path:
    """A part of a call; the fake microphone reads nothing but WAV."""
    samples = read_samples(call.audio)[round(start_s * RATE) : round(end_s * RATE)]
    with wave.open(str(path), "wb") as wav:
        wav.setparams((1, 2, RATE, 0, "NONE", ""))
        wav.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def words_of(finals: list[str]) -> list[str]:
    return plain_words(" ".join(finals))


async def test_microphone_gives_interims_and_finals_coloured_by_language(
    server: RunningServer, tmp_path: Path
) -> None:
    # "Can we speak Spanish? ¿Hay sitio para dos el viernes a las ocho menos cuarto?"
    wav = write_wav(tmp_path / "call.wav", bundled("english-spanish"), 5.6, 11.6)
    async with chromium(microphone=wav) as page:
        await page.open(f"{server.http}/")
        await page.until(LOADED)
        await page.click("#microphone")
        await page.until(f"{STATE} === 'listening'")
        await page.until("/Can we/.test(document.querySelector('#interim .text').textContent)")
        await page.until(f"{FINALS}.some(text => /Can we speak/.test(text))")

        await page.choose("#latency", "160")
        await page.until(f"{NOTES}.some(note => /^From .* on: auto, 160 ms$/.test(note))")
        await page.until(f"{FINALS}.some(text => /viernes/.test(text))", 15)
        await page.click("#finalize")
        await page.click("#stop")
        await page.until(f"{STATE} === 'idle'")

        runs = await page.evaluate(RUNS)
        colours = {run["locale"]: run["colour"] for run in runs}
        assert set(colours) == {"en-US", "es-ES"}
        assert colours["en-US"] != colours["es-ES"]
        assert all(run["colour"] == colours[run["locale"]] for run in runs)
        legend = await page.evaluate("document.querySelector('#legend').innerText")
        assert "English (United States)" in legend
        assert "Spanish (Spain)" in legend
        median = await page.evaluate("document.querySelector('#p50').textContent")
        assert 0 < int(median.removesuffix(" ms")) < 5_000
        assert await page.evaluate(ERROR) == ""
        assert page.complaints == []


async def test_language_changes_mid_stream_and_a_file_may_come_fast(
    server: RunningServer, tmp_path: Path
) -> None:
    call = bundled("french-english")
    async with chromium() as page:
        await page.open(f"{server.http}/")
        await page.until(LOADED)
        await page.give_file("#file", write_wav(tmp_path / "paced.wav", call, 0.0, 3.9))
        await page.until(f"{STATE} === 'listening'")
        await page.choose("#language", "fr-FR")
        await page.until(f"{NOTES}.some(note => /^From .* on: fr-FR, 320 ms$/.test(note))")
        await page.until(f"{STATE} === 'idle'", 15)
        assert {"réserver", "table"} <= set(words_of(await page.evaluate(FINALS)))

        await page.click("#clear")
        await page.choose("#language", "auto")
        await page.click("#fast")
        await page.give_file("#file", call.audio)
        await page.until(f"{STATE} !== 'idle'")
        await page.until(f"{STATE} === 'idle'", 20)
        assert {"réserver", "risotto", "robert"} <= set(words_of(await page.evaluate(FINALS)))
        assert {run["locale"] for run in await page.evaluate(RUNS)} == {"fr-FR", "en-US"}
        assert page.complaints == []


async def test_a_key_is_asked_for_and_taken(serve: Serve, tmp_path: Path) -> None:
    server = serve(ServerOptions(api_keys=("right-key",)))
    wav = write_wav(tmp_path / "short.wav", bundled("english-spanish"), 0.0, 2.7)

    async def speak(page: Any) -> None:
        await page.give_file("#file", wav)
        await page.until(f"{STATE} !== 'idle'")
        await page.until(f"{STATE} === 'idle'")

    async with chromium() as page:
        # The page itself needs the key. Not in its address: the browser would then send that key
        # with all that the page asks for, and what is in the field would not be tried.
        await page.command("Network.enable")
        key = {"Authorization": "Token right-key"}
        await page.command("Network.setExtraHTTPHeaders", headers=key)
        await page.open(f"{server.http}/")
        await page.until(LOADED)
        await page.command("Network.setExtraHTTPHeaders", headers={})
        await page.choose("#key", "wrong-key")
        await page.until(f"/API key is missing or wrong/.test({ERROR})")
        await speak(page)
        assert "Enter the right one" in await page.evaluate(ERROR)
        await page.choose("#key", "right-key")
        await page.until(LOADED)
        await speak(page)
        assert "evening" in words_of(await page.evaluate(FINALS))
        assert await page.evaluate(ERROR) == ""
