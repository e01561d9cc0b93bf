"""Real AgentSessions, the bundled detector and checkpoint: turns close, languages switch."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

pytest.importorskip("livekit.agents")

from livekit.agents import AgentSession

from benchmarks.livekit_bot import RecordedCaller, ScriptedLLM, SilentTTS, talking
from nemotron_voice import Engine
from nemotron_voice.audio import read_samples
from nemotron_voice.cli.demo import bundled_calls
from nemotron_voice.livekit import STT, switch_language

RATE = 16_000


def turns(count: int) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The first turns of the bundled bilingual call, and what is said in them."""
    call = bundled_calls()[0]
    said = call.turns[:count]
    samples = read_samples(call.audio)[: int((said[-1].end + 0.2) * RATE)]
    return np.concatenate([samples, np.zeros(2 * RATE, np.float32)]), [t.text for t in said]


async def finish(caller: RecordedCaller) -> None:
    await caller.ended.wait()
    await asyncio.sleep(1.0)


@pytest.mark.parametrize("turn_detection", ["vad", "stt", "manual"])
async def test_every_mode_closes_turns(turn_detection: Any) -> None:
    samples, _ = turns(1)
    with Engine.load("demo", threads=1) as engine:
        caller = RecordedCaller(samples)
        ears = STT(engine=engine, latency_ms=160)
        async with talking(caller, stt=ears, turn_detection=turn_detection) as (session, log):
            await finish(caller)
            if turn_detection == "manual":
                assert log.committed == []
                await session.commit_user_turn()
                await asyncio.sleep(0.5)
        assert engine.stats().streams == 0
    heard = " ".join(event.transcript for _, event in log.finals)
    assert heard
    assert " ".join(text for _, text in log.committed if text) == heard
    assert {str(event.language) for _, event in log.finals} == {"en-US"}
    assert log.errors == []


async def test_noise_after_the_last_word_splits_no_turn() -> None:
    """The engine takes it for speech: what it finalises at first lacks the last word."""
    call = bundled_calls()[0]
    turn = call.turns[2]
    said = read_samples(call.audio)[int((turn.start - 0.4) * RATE) : int(turn.end * RATE)]
    level = 10 ** (-8 / 20) * float(np.sqrt(np.mean(said**2)))
    noise = level * np.random.default_rng(1).standard_normal(3 * RATE)
    silence = np.zeros(RATE // 2)
    samples = np.concatenate([silence, said, noise, silence]).astype(np.float32)
    with Engine.load("demo", threads=1) as engine:
        caller = RecordedCaller(samples)
        ears = STT(engine=engine, latency_ms=160)
        async with talking(caller, stt=ears, turn_detection="stt") as (session, log):
            await finish(caller)
            assert session.user_state != "speaking"
    finals = [event.transcript for _, event in log.finals]
    assert len(finals) > 1  # or it tests nothing
    assert [text for _, text in log.committed if text] == [" ".join(finals)]


async def test_the_voice_changes_before_the_first_spanish_answer() -> None:
    call = bundled_calls()[0]
    first = next(n for n, turn in enumerate(call.turns) if turn.language == "es-ES")
    samples, _ = turns(first + 1)
    model, voice = ScriptedLLM(), SilentTTS(voice="anna")
    changes = []
    with Engine.load("demo", threads=1) as engine:
        caller = RecordedCaller(samples)
        ears = STT(engine=engine, latency_ms=160)
        async with talking(caller, stt=ears, llm=model, tts=voice, turn_detection="vad") as (
            session,
            log,
        ):
            switcher = switch_language(
                session,
                languages=["en-US", "es-ES"],
                tts_options={"es-ES": {"language": "es", "voice": "carmen"}},
                on_switched=changes.append,
            )
            await finish(caller)
            assert switcher.current == "es-ES"
    languages = [str(event.language) for _, event in log.finals]
    assert languages[0] == "en-US"
    assert languages[-1] == "es-ES"
    assert [(change.before, change.after) for change in changes] == [("en-US", "es-ES")]
    assert voice.spoken[0][1]["voice"] == "anna"
    assert voice.spoken[-1][1] == {"language": "es", "voice": "carmen"}
    assert "Spanish" in str(model.asked[-1].items[0].text_content)  # the instructions
    assert isinstance(session, AgentSession)
