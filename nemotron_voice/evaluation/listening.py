"""Each clip through a stream of a recogniser, the way a call goes; many side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nemotron_voice.audio import AudioFile
from nemotron_voice.config import StreamOptions
from nemotron_voice.endpointing import Endpointer
from nemotron_voice.errors import AudioError, ConfigurationError
from nemotron_voice.evaluation.emission import Event, delays
from nemotron_voice.evaluation.hypotheses import Delays, Hypothesis, Piece
from nemotron_voice.evaluation.manifest import Clip
from nemotron_voice.evaluation.normalisation import Normaliser, normalise
from nemotron_voice.hear import PACKET_MS, packets, reading, sleep_until
from nemotron_voice.languages import AUTO
from nemotron_voice.recognizer import Recognizer, RecognizerStream
from nemotron_voice.resampler import Samples
from nemotron_voice.transcript import Transcript, join_texts, languages_by_words

MANIFEST: Final = "manifest"  # as --language: each clip's own locale is forced
PAUSE_MS: Final = 200  # of silence, at which voice agents flush
_BUFFERED_S: Final = 5.0  # of a clip's audio, undecoded
_DEADLINE_S: Final = 600.0  # accuracy doesn't depend on the speed of this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """How clips are heard.

    Raises:
        ConfigurationError: of StreamOptions, for the language or the latency.
    """

    language: str = AUTO  # "auto", "manifest" (each clip's own is forced), or a locale to force
    latency_ms: int = 320
    flush_at_pauses: bool = False  # as an agent does, where Silero hears 200 ms of silence
    realtime: bool = False  # paced as if spoken now: delays can be measured
    at_once: int = 32  # clips side by side; the text doesn't depend on it in fp32 and int8
    normaliser: Normaliser = Normaliser.multilingual  # tells which words were heard right

    def __post_init__(self) -> None:
        """Refuse what no stream takes."""
        language = AUTO if self.language == MANIFEST else self.language
        StreamOptions(language=language, latency_ms=self.latency_ms)
        if self.at_once < 1:
            raise ConfigurationError(f"at_once={self.at_once} must be 1 or more")


async def listen(
    recognizer: Recognizer,
    clips: Sequence[Clip],
    options: ListenOptions,
    on_heard: Callable[[Hypothesis], None] = lambda _: None,
) -> list[Hypothesis]:
    """Hear every clip.

    Args:
        recognizer: an engine with `at_once` slots, or the client of one.
        clips: in any order.
        options: how.
        on_heard: called with each clip's hypothesis when it is there.

    Returns:
        A hypothesis for each clip, in order. One whose file is damaged has `error` and what was
        heard until there.
    """
    room = asyncio.Semaphore(options.at_once)

    async def one(clip: Clip) -> Hypothesis:
        async with room:
            heard = await _Listener(recognizer, clip, options).hear()
        on_heard(heard)
        return heard

    tasks = [asyncio.create_task(one(clip)) for clip in clips]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Listener:
    """One clip on its way through a stream."""

    recognizer: Recognizer
    clip: Clip
    options: ListenOptions
    events: list[Event] = field(default_factory=list)
    began: float = 0.0  # the loop's time at the clip's first sample
    answer_s: float = 0.0  # from its last to its last final

    async def hear(self) -> Hypothesis:
        try:
            audio = AudioFile(self.clip.path)
        except AudioError as damage:  # since the manifest was checked
            return self._hypothesis(str(damage))
        stream = self.recognizer.open(
            StreamOptions(
                language=self._prompt,
                sample_rate=audio.sample_rate,
                latency_ms=self.options.latency_ms,
                interim_results=self.options.realtime,
                max_buffered_s=2 * _BUFFERED_S,
            )
        )
        clock = asyncio.get_running_loop()
        error: str | None = None

        def keep(transcript: Transcript) -> None:
            self.events.append(Event(clock.time() - self.began, transcript))

        async with reading(stream, keep):
            try:
                await self._speak(stream, audio)
            except AudioError as damage:
                error = str(damage)
            ended = clock.time()
            await stream.finish(deadline_s=_DEADLINE_S)
            self.answer_s = clock.time() - ended
        return self._hypothesis(error)

    @property
    def _prompt(self) -> str:
        own = self.clip.locale or AUTO
        return own if self.options.language == MANIFEST else self.options.language

    async def _speak(self, stream: RecognizerStream, audio: AudioFile) -> None:
        rate = audio.sample_rate
        endpointer = Endpointer(rate, PAUSE_MS) if self.options.flush_at_pauses else None
        flushes: list[asyncio.Task[Transcript]] = []
        self.began = asyncio.get_running_loop().time()
        fed = 0
        for packet in packets(blocks(self.clip, audio), rate * PACKET_MS // 1000):
            fed += packet.size
            if self.options.realtime:
                await sleep_until(self.began + fed / rate)
            stream.push(packet)
            edges = endpointer.push(packet) if endpointer else ()
            flushes += [
                asyncio.create_task(stream.flush(deadline_s=_DEADLINE_S))
                for edge in edges
                if edge.kind == "end"
            ]
            if not self.options.realtime:
                await stream.drained(max_buffered_s=_BUFFERED_S)
        await asyncio.gather(*flushes)

    def _hypothesis(self, error: str | None) -> Hypothesis:
        clip, options = self.clip, self.options
        finals = [event.transcript for event in self.events if event.transcript.is_final]
        detected = languages_by_words(finals)
        comparable = partial(normalise, locale=clip.locale, normaliser=options.normaliser)
        ours = Hypothesis.__dataclass_fields__
        return Hypothesis(
            id=clip.name,
            audio_filepath=str(clip.path),
            duration=round(clip.duration_s, 3),
            text=clip.text,
            target_lang=clip.locale,
            regional=clip.regional,
            latency_ms=options.latency_ms,
            prompt=self._prompt,
            pred_text=join_texts(finals),
            pred_lang=detected[0] if detected else None,
            finals=tuple(Piece(f.text, f.start, f.end, f.language) for f in finals if f.text),
            delays=delays(clip.words, self.events, comparable) if options.realtime else Delays(),
            answer_ms=round(1e3 * self.answer_s, 1) if options.realtime else None,
            error=error,
            row={name: value for name, value in clip.row.items() if name not in ours},
        )


def blocks(clip: Clip, audio: AudioFile) -> Iterator[Samples]:
    """The clip's part of its file."""
    first = round((clip.offset_s or 0.0) * audio.sample_rate)
    last = first + round(clip.duration_s * audio.sample_rate)
    at = 0
    for block in audio:
        part = block[max(first - at, 0) : max(last - at, 0)] if clip.offset_s is not None else block
        at += block.size
        if part.size:
            yield part
