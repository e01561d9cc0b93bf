"""Audio on its way in: PCM to float, any rate to 16 kHz, files to blocks of samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

from nemotron_voice.config import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, check_sample_rate
from nemotron_voice.errors import AudioDecodeError, AudioFormatError
from nemotron_voice.resampler import MODEL_SAMPLE_RATE, Resampler, Samples

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer


# Float audio is full scale 1.0. Clipping filters overshoot a little; what passes this is PCM16
# that was cast instead of scaled, and would be heard as noise.
_LOUDEST_FLOAT: Final = 16.0
_FULL_SCALE: Final = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}

# A header may round its duration, and encoders pad; a file shorter than promised by more is cut.
_SHORTFALL_S: Final = 0.25


def to_float(pcm: bytes | bytearray | memoryview | NDArray[np.generic]) -> Samples:
    """Mono PCM as float32 samples [n], full scale 1.0.

    Args:
        pcm: bytes of little-endian PCM16, or an array [n] of int16, int32 or float.

    Raises:
        AudioFormatError: odd byte count, several channels, another dtype, NaN or infinity, or
            floats that were never scaled.
    """
    if isinstance(pcm, bytes | bytearray | memoryview):
        size = pcm.nbytes if isinstance(pcm, memoryview) else len(pcm)
        if size % 2:
            raise AudioFormatError(
                f"{size} bytes can't be PCM16: a sample has two; keep a packet's odd byte for the "
                "next packet, and check that the audio is 16-bit linear and not G.711 or a file "
                "with a header"
            )
        pcm = np.frombuffer(pcm, dtype="<i2")
    if not isinstance(pcm, np.ndarray):
        raise AudioFormatError(
            f"audio of type {type(pcm).__name__} can't be read; push bytes of PCM16, or a numpy "
            "array of int16, int32 or float"
        )
    if pcm.ndim != 1:
        raise AudioFormatError(
            f"an array of shape {pcm.shape} is not mono; push one dimension [samples]: one "
            "channel of it, or the mean over channels; open one stream per speaker"
        )
    native = pcm.dtype.newbyteorder("=")
    if native in _FULL_SCALE:
        scale = np.float32(1 / _FULL_SCALE[native])
        return cast("Samples", pcm.astype(np.float32) * scale)
    if native.kind != "f":
        raise AudioFormatError(
            f"an array of {pcm.dtype} can't be read; push int16, int32 or float (full scale 1.0)"
        )
    samples = pcm.astype(np.float32, copy=False)
    if samples.size:
        loudest = float(np.abs(samples).max())  # NaN if one is
        if not np.isfinite(loudest):
            bad = int(np.flatnonzero(~np.isfinite(samples))[0])
            raise AudioFormatError(
                f"sample {bad} of {samples.size} is {samples[bad]}; push finite numbers"
            )
        if loudest > _LOUDEST_FLOAT:
            raise AudioFormatError(
                f"a float sample of {loudest:g} is far past full scale 1.0; push the int16 array "
                "itself, or divide by 32768"
            )
    return samples


class StreamResampler(Resampler):
    """One stream's resampler to 16 kHz: same samples out, whatever the packets; see resampler.py.

    Args:
        sample_rate: Hz, 8,000 to 48,000.

    Raises:
        UnsupportedSampleRateError.
    """

    def __init__(self, sample_rate: int) -> None:
        check_sample_rate(sample_rate)
        super().__init__(sample_rate)


class AudioFile:
    """An audio file as blocks of mono float samples, decoded while it is iterated.

    Attributes:
        path: the file.
        sample_rate: Hz of the blocks: the file's own, or 16,000 where that is outside 8-48 kHz.
        channels: of the file; blocks are their mean.
        duration_s: as the file's header promises, or None if it doesn't.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        container, stream = _open(self.path)
        with container:
            self._file_rate = stream.rate
            self.channels = stream.channels
            self.duration_s = _promised_duration(container, stream)
            self._is_cut_ogg = container.format.name == "ogg" and _ends_inside_page(self.path)
        in_range = MIN_SAMPLE_RATE <= self._file_rate <= MAX_SAMPLE_RATE
        self.sample_rate = self._file_rate if in_range else MODEL_SAMPLE_RATE

    def __iter__(self) -> Iterator[Samples]:
        """Blocks [n], as they are decoded.

        Raises:
            AudioDecodeError: after everything that can be decoded, if that is nothing or less
                than the file promises: a cut file loses nothing silently.
        """
        import av  # noqa: PLC0415  (its libraries take 0.1 s to load; live audio never needs them)

        resampler = None
        if self.sample_rate != self._file_rate:
            resampler = Resampler(self._file_rate)
        decoded = 0
        damaged: str | None = None
        container, stream = _open(self.path)
        with container:
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:  # where the next packet begins can't be found
                    damaged = damaged or _reason(error)
                    break
                if packet is None:
                    break
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    damaged = damaged or _reason(error)
                    continue
                for frame in frames:
                    block = _mono(frame)
                    if not np.isfinite(block).all():
                        raise AudioDecodeError(
                            f"{self.path} holds NaN or infinity after "
                            f"{decoded / self._file_rate:.1f} s; export it again"
                        )
                    decoded += block.size
                    yield block if resampler is None else resampler.process(block)
        if resampler is not None and decoded:
            yield resampler.process(np.zeros(0, np.float32), last=True)
        self._check_whole(decoded / self._file_rate, damaged)

    def _check_whole(self, decoded_s: float, damaged: str | None) -> None:
        if decoded_s == 0:
            raise AudioDecodeError(f"{self.path} holds no audio samples; give a longer recording")
        if (self.duration_s or 0.0) - decoded_s > _SHORTFALL_S:
            what = f"is cut off: its header promises {self.duration_s:.1f} s"
        elif self._is_cut_ogg:
            what = "is cut off: it ends inside an Ogg page"
        elif damaged is not None:
            what = f"is damaged ({damaged})"
        else:
            return
        raise AudioDecodeError(
            f"{self.path} {what}, and {decoded_s:.1f} s could be decoded; get the whole file, or "
            "re-encode what there is (ffmpeg -i FILE whole.flac)"
        )


def read_file(path: str | Path) -> AudioFile:
    """Open an audio file of any format that FFmpeg decodes (wav, flac, mp3, ogg, m4a, ...).

    Channels are averaged.

    Raises:
        AudioDecodeError: there is no such file, it is empty, or no audio.
    """
    return AudioFile(path)


def read_samples(path: str | Path) -> Samples:
    """A whole audio file: mono, at the model's 16 kHz.

    Raises:
        AudioDecodeError: as `read_file`, or the file is damaged.
    """
    audio = read_file(path)
    resampler = StreamResampler(audio.sample_rate)
    blocks = [resampler.process(block) for block in audio]
    return np.concatenate([*blocks, resampler.process(np.zeros(0, np.float32), last=True)])


def duration_of(path: str | Path) -> float | None:
    """Seconds of audio that a file's header promises, or None if it doesn't say.

    Raises:
        AudioDecodeError: there is no such file, it is empty, or no audio.
    """
    return AudioFile(path).duration_s


def _open(path: Path) -> tuple[InputContainer, AudioStream]:
    import av  # noqa: PLC0415  (see AudioFile.__iter__)

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "doesn't exist"
        raise AudioDecodeError(f"{path} {what}; give the path of an audio file")
    if path.stat().st_size == 0:
        raise AudioDecodeError(f"{path} is empty (0 bytes); record or copy it again")
    try:
        # An absolute path can't be taken for a URL, nor can a playlist reach out to one.
        container = av.open(path.absolute(), options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise AudioDecodeError(
            f"{path} can't be read as audio ({_reason(error)}): not an audio file, or cut off "
            "before its audio begins; give a wav, flac, mp3, ogg or m4a file"
        ) from error
    if not container.streams.audio or container.streams.audio[0].rate == 0:
        container.close()
        raise AudioDecodeError(f"{path} has no audio track; give a file that has one")
    return container, container.streams.audio[0]


def _promised_duration(container: InputContainer, stream: AudioStream) -> float | None:
    name = container.format.name
    if name == "wav":
        # FFmpeg forgives a wav header that promises more than there is; nothing else tells.
        return _wav_duration(Path(container.name))
    if name in {"mp3", "aac"} and not _counts_frames(Path(container.name)):
        return None  # FFmpeg then guesses from the bit rate
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration is not None else None


def _counts_frames(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(65536)
    return any(mark in start for mark in (b"Xing", b"Info", b"VBRI"))


def _wav_duration(path: Path) -> float | None:
    """Seconds by the data chunk's size; None where a writer of a pipe left it open."""
    with path.open("rb") as file:
        header = file.read(12)
        bytes_per_s = 0
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"fmt ":
                bytes_per_s = int.from_bytes(file.read(size)[8:12], "little")
            elif chunk[:4] == b"data":
                open_ended = size in {0, 0xFFFFFFFF} or header[:4] != b"RIFF"
                return None if open_ended or not bytes_per_s else size / bytes_per_s
            else:
                file.seek(size + size % 2, 1)
    return None


def _ends_inside_page(path: Path) -> bool:
    """Whether an Ogg file's last page is cut: its segment table tells its end [RFC 3533].

    Ogg has no header with a duration; FFmpeg takes it from the last page that is whole.
    """
    largest_page = 27 + 255 + 255 * 255
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - largest_page))
        end = file.read()
    page = end[end.rfind(b"OggS\0") :]
    segments = page[26] if len(page) > 26 else 0
    table = page[27 : 27 + segments]
    return len(page) < 27 or len(table) < segments or len(page) < 27 + segments + sum(table)


def _mono(frame: AudioFrame) -> Samples:
    """A decoded frame as float samples [n], channels averaged."""
    array = frame.to_ndarray()  # planar: [channels, n], else [1, n * channels]
    channels = len(frame.layout.channels)
    if not frame.format.is_planar:
        array = array.reshape(-1, channels).T
    kind = array.dtype.kind
    if kind == "u":  # unsigned 8 bit, silence at 128
        samples = (array.astype(np.float32) - 128) / 128
    elif kind == "i":
        samples = (array / 2.0 ** (8 * array.itemsize - 1)).astype(np.float32)
    else:
        samples = array.astype(np.float32)
    mono: Samples = samples.mean(axis=0, dtype=np.float32)
    return mono


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
