"""One audio file through one stream of a recogniser, paced or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import numpy as np

from nemotron_voice.audio import AudioFile
from nemotron_voice.errors import AudioDecodeError, StreamClosedError
from nemotron_voice.recognizer import RecognizerStream
from nemotron_voice.resampler import Samples
from nemotron_voice.transcript import Transcript

PACKET_MS = 20  # what telephony and WebRTC send


async def hear(
    stream: RecognizerStream,
    audio: AudioFile,
    *,
    realtime: bool,
    on_transcript: Callable[[Transcript], None],
    on_progress: Callable[[float], None],
) -> None:
    """Stream a whole file, then close the stream.

    Args:
        stream: just opened, at the file's sample rate.
        audio: the file.
        realtime: pace packets as if they were spoken now.
        on_transcript: called with each transcript, in order.
        on_progress: called with the seconds of audio given so far.

    Raises:
        AudioDecodeError: the file is damaged; what could be decoded has been heard to its end.
    """
    damage: AudioDecodeError | None = None
    async with reading(stream, on_transcript):
        try:
            await _feed(stream, audio, realtime=realtime, on_progress=on_progress)
        except AudioDecodeError as error:
            damage = error
        await stream.finish()
    if damage is not None:
        raise damage


@contextlib.asynccontextmanager
async def reading(
    stream: RecognizerStream, on_transcript: Callable[[Transcript], None]
) -> AsyncIterator[None]:
    """Hand over a stream's transcripts while the block feeds and finishes it; then close it.

    Args:
        stream: just opened.
        on_transcript: called with each transcript, in order; all have been when the block is left.
    """

    async def read() -> None:
        async for transcript in stream:
            on_transcript(transcript)

    reader = asyncio.create_task(read())
    try:
        yield
        await reader
    except StreamClosedError:
        await reader  # the engine failed the stream: the iteration knows why
        raise
    finally:
        reader.cancel()
        await stream.aclose()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


async def _feed(
    stream: RecognizerStream,
    audio: AudioFile,
    *,
    realtime: bool,
    on_progress: Callable[[float], None],
) -> None:
    rate = audio.sample_rate
    fed = 0
    if not realtime:
        # On a thread, since damage takes FFmpeg long to skip (0.6 s for 30 MB of an MP3); a second
        # at a time, since each trip there takes as long as decoding a packet.
        seconds = packets(audio, rate)
        while (block := await asyncio.to_thread(next, seconds, None)) is not None:
            stream.push(block)
            fed += block.size
            on_progress(fed / rate)
            await stream.drained(max_buffered_s=5.0)
        return
    began = asyncio.get_running_loop().time()
    for packet in packets(audio, rate * PACKET_MS // 1000):
        fed += packet.size
        await sleep_until(began + fed / rate)  # a packet is there once it has been spoken
        stream.push(packet)
        on_progress(fed / rate)


async def sleep_until(moment: float) -> None:
    """Sleep until the event loop's clock shows `moment`."""
    await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))


def packets(blocks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Cut blocks anew into packets of `size` samples; the last may be shorter.

    Raises:
        AudioDecodeError: the blocks' own, after all that came before it.
    """
    rest = np.zeros(0, np.float32)
    damage: AudioDecodeError | None = None
    try:
        for block in blocks:
            rest = np.concatenate((rest, block))
            whole = rest.size // size * size
            yield from np.split(rest[:whole], range(size, whole, size)) if whole else ()
            rest = rest[whole:]
    except AudioDecodeError as error:
        damage = error
    if rest.size:
        yield rest
    if damage is not None:
        raise damage
