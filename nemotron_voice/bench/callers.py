"""The load: callers who speak in real time, pushed by one loop that watches its own lateness."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from nemotron_voice.bench.speech import RATE, Recording
from nemotron_voice.errors import AudioOverflowError
from nemotron_voice.recognizer import RecognizerStream
from nemotron_voice.transcript import Transcript

PACKET_MS: Final = 20  # what telephony and WebRTC send
PACKET: Final = RATE * PACKET_MS // 1000
_TICK_S: Final = 0.004  # packets that are due within one tick are pushed together
_APART_S: Final = 7.3  # of the recording, between one caller's beginning and the next one's
_FLUSH_DEADLINE_S: Final = 30.0  # a trial that gets there has failed long before


@dataclass(slots=True)
class Load:
    """What was pushed, how late, and what came back."""

    packets: int = 0
    lateness_s: list[float] = field(default_factory=list)  # of each packet, after it was due
    samples: int = 0
    chunks_at: list[float] = field(default_factory=list)  # when each chunk's last sample came
    finals_s: list[float] = field(default_factory=list)  # from each flush to its answer
    failed_pushes: int = 0  # refused: the engine is more than 30 s behind
    began: float = 0.0
    lasted_s: float = 0.0
    loop_s: float = 0.0  # CPU time of the loop's thread


class Said:
    """A recording as it comes from a socket: PCM16 in packets; shared by all who say it."""

    def __init__(self, recording: Recording) -> None:
        pcm = (np.clip(recording.samples, -1, 1) * 32_767).astype("<i2").tobytes()
        size = 2 * PACKET
        # What is left over at the end isn't said.
        self.packets = [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]
        self.flush_before = frozenset(at // PACKET for at in recording.pauses)


class Caller:
    """One caller's place in a recording, and in the chunks of the engine."""

    def __init__(
        self,
        stream: RecognizerStream,
        said: Said,
        first: int,
        chunk_ends: Callable[[int], int],
    ) -> None:
        """Place a caller.

        Args:
            stream: open, at 16 kHz.
            said: over and over.
            first: sample at which this caller begins.
            chunk_ends: of so many samples pushed, how many whole chunks they hold.
        """
        self.stream = stream
        self.chunks = 0
        self.pushed = 0
        self._chunk_ends = chunk_ends
        self._said = said
        self._place = first // PACKET % len(said.packets)

    def speak(self) -> bool:
        """Push the next packet; returns whether an agent would flush after it."""
        self.stream.push(self._said.packets[self._place])
        self.pushed += PACKET
        self._place = (self._place + 1) % len(self._said.packets)
        return self._place in self._said.flush_before

    def new_chunks(self) -> int:
        """Whole chunks since the last time this was asked."""
        before, self.chunks = self.chunks, self._chunk_ends(self.pushed)
        return self.chunks - before


def place_callers(
    streams: Sequence[RecognizerStream],
    recordings: Sequence[Recording],
    chunk_ends: Callable[[int], int],
) -> list[Caller]:
    """Callers at different places of the recordings, so that they don't pause together."""
    said = [Said(recording) for recording in recordings]
    return [
        Caller(
            stream,
            said[number % len(said)],
            round(number // len(said) * _APART_S * RATE),
            chunk_ends,
        )
        for number, stream in enumerate(streams)
    ]


def packets_in(seconds: float) -> int:
    """Packets that are complete after so long; one at least."""
    return max(1, int(seconds * 1000 / PACKET_MS + 1e-6))


async def speak(callers: Sequence[Caller], *, duration_s: float, stagger_s: float) -> Load:
    """Let all callers speak until `duration_s` after the first one began.

    One loop pushes for all of them, and sleeps for ticks: a task for each caller would cost more
    than the packets do.

    Args:
        callers: not yet begun.
        duration_s: of the whole load.
        stagger_s: the beginnings are spread evenly over so long.
    """
    load = Load()
    flushes: set[asyncio.Task[None]] = set()
    packet_s = PACKET_MS / 1000
    load.began = time.monotonic()
    cpu_s = time.thread_time()
    offsets = [stagger_s * number / len(callers) for number in range(len(callers))]
    # When the next packet has been spoken, of which caller, and how many the caller has yet to say.
    due = [
        (load.began + offset + packet_s, number, packets_in(duration_s - offset))
        for number, offset in enumerate(offsets)
    ]
    heapq.heapify(due)
    while due:
        now = time.monotonic()
        while due and due[0][0] <= now:
            moment, number, left = due[0]
            caller = callers[number]
            if _push(caller, load):
                # Asked for now, whenever the task begins.
                now = time.monotonic()
                answer = caller.stream.flush(deadline_s=_FLUSH_DEADLINE_S)
                flushes.add(task := asyncio.create_task(_time(answer, now, load)))
                task.add_done_callback(flushes.discard)
            pushed_at = time.monotonic()
            load.lateness_s.append(pushed_at - moment)
            load.chunks_at.extend([pushed_at] * caller.new_chunks())
            if left > 1:
                heapq.heapreplace(due, (moment + packet_s, number, left - 1))
            else:
                heapq.heappop(due)
        if due:
            await asyncio.sleep(max(due[0][0] - time.monotonic(), _TICK_S))
    load.lasted_s = time.monotonic() - load.began
    load.loop_s = time.thread_time() - cpu_s
    await asyncio.gather(*flushes)
    return load


def _push(caller: Caller, load: Load) -> bool:
    load.packets += 1
    try:
        flush = caller.speak()
    except AudioOverflowError:
        load.failed_pushes += 1
        return False
    load.samples += PACKET
    return flush


async def _time(answer: Coroutine[Any, Any, Transcript], began: float, load: Load) -> None:
    await answer
    load.finals_s.append(time.monotonic() - began)


async def words_heard(stream: RecognizerStream) -> int:
    """Read a stream to its end, as an agent does: words, final or still provisional."""
    finals = interim = 0
    async for transcript in stream:
        interim = 0 if transcript.is_final else len(transcript.words)
        finals += len(transcript.words) if transcript.is_final else 0
    return finals + interim
