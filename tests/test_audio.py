"""PCM, resampling and files: exact where it can be, refused by name where it must be."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from nemotron_voice.audio import StreamResampler, duration_of, read_file, to_float
from nemotron_voice.errors import AudioDecodeError, AudioFormatError, UnsupportedSampleRateError
from nemotron_voice.resampler import Samples


def noise(seconds: float, sample_rate: int) -> Samples:
    generator = np.random.default_rng(7)
    return (0.1 * generator.standard_normal(int(seconds * sample_rate))).astype(np.float32)


# ---- PCM


def test_bytes_and_arrays_of_the_same_sound_are_the_same_samples() -> None:
    pcm = np.array([0, 1, -1, 32767, -32768], np.int16)
    expected = np.array([0, 1 / 32768, -1 / 32768, 32767 / 32768, -1], np.float32)
    for form in (
        pcm,
        pcm.astype("<i2").tobytes(),
        bytearray(pcm.astype("<i2").tobytes()),
        memoryview(pcm.astype("<i2").tobytes()),
        pcm.astype(">i2"),
        pcm.astype(np.int32) * 65536,
        expected,
        expected.astype(np.float64),
    ):
        samples = to_float(form)
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, expected)


def test_nothing_is_fine() -> None:
    assert to_float(b"").size == 0
    assert to_float(np.zeros(0, np.float32)).size == 0


@pytest.mark.parametrize(
    ("pcm", "what"),
    [
        (b"\0\0\0", "3 bytes"),
        (np.zeros((2, 160), np.float32), r"\(2, 160\)"),
        (np.array([0.0, np.nan]), "sample 1 of 2 is nan"),
        (np.array([0.0, -np.inf, 0.0]), "sample 1 of 3 is -inf"),
        (np.array([0.0, 12000.0]), "divide by 32768"),
        (np.zeros(4, np.uint8), "uint8"),
        (np.zeros(4, np.complex64), "complex64"),
        ([0.0, 0.1], "list"),
        ("audio", "str"),
    ],
)
def test_what_is_no_mono_pcm_is_refused_with_its_value(pcm: object, what: str) -> None:
    with pytest.raises(AudioFormatError, match=what):
        to_float(pcm)  # type: ignore[arg-type]


# ---- resampling: see test_resampler.py


@pytest.mark.parametrize("sample_rate", [7_999, 48_001])
def test_a_rate_out_of_range_is_refused(sample_rate: int) -> None:
    with pytest.raises(UnsupportedSampleRateError, match=str(sample_rate)):
        StreamResampler(sample_rate)


# ---- files

CODECS = {
    "wav": ("wav", "pcm_s16le", "s16"),
    "flac": ("flac", "flac", "s16"),
    "mp3": ("mp3", "libmp3lame", "fltp"),
    "ogg": ("ogg", "libopus", "flt"),
    "m4a": ("ipod", "aac", "fltp"),
}


def encoded(kind: str, samples: Samples, sample_rate: int = 48_000, layout: str = "mono") -> bytes:
    """A file of that kind; stereo gets the samples on the left and silence on the right."""
    container_name, codec, sample_format = CODECS[kind]
    planes = np.stack([samples, 0 * samples]) if layout == "stereo" else samples[None]
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray((planes.T.reshape(1, -1) * 32767).astype(np.int16)), "s16", layout
    )
    frame.sample_rate = sample_rate
    file = io.BytesIO()
    with av.open(file, "w", format=container_name) as container:
        stream = container.add_stream(codec, rate=sample_rate)
        stream.layout = layout
        stream.format = sample_format
        resampler = av.AudioResampler(sample_format, layout, sample_rate)
        for piece in resampler.resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.fixture
def tone() -> Samples:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000)).astype(np.float32)


@pytest.mark.parametrize("kind", CODECS)
def test_every_kind_of_file_is_heard_whole(kind: str, tmp_path: Path, tone: Samples) -> None:
    path = tmp_path / f"tone.{kind}"
    path.write_bytes(encoded(kind, tone))
    audio = read_file(path)
    heard = np.concatenate(list(audio))
    assert audio.sample_rate == 48_000
    assert heard.size / 48_000 == pytest.approx(2.0, abs=0.05)
    assert duration_of(path) == pytest.approx(2.0, abs=0.05)
    loudest = np.abs(np.fft.rfft(heard))
    assert np.argmax(loudest) * 48_000 / heard.size == pytest.approx(440, abs=1)


def test_lossless_samples_are_exact(tmp_path: Path, tone: Samples) -> None:
    (tmp_path / "tone.flac").write_bytes(encoded("flac", tone))
    heard = np.concatenate(list(read_file(tmp_path / "tone.flac")))
    np.testing.assert_array_equal(heard, (tone * 32767).astype(np.int16) / np.float32(32768))


def test_channels_are_averaged(tmp_path: Path, tone: Samples) -> None:
    (tmp_path / "tone.wav").write_bytes(encoded("wav", tone, layout="stereo"))
    heard = np.concatenate(list(read_file(tmp_path / "tone.wav")))
    np.testing.assert_allclose(heard, tone / 2, atol=1e-4)


@pytest.mark.parametrize("sample_rate", [6_000, 96_000])
def test_a_file_of_a_rate_out_of_range_comes_at_16_khz(sample_rate: int, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded("wav", noise(1.0, sample_rate), sample_rate))
    audio = read_file(tmp_path / "a.wav")
    assert audio.sample_rate == 16_000
    assert sum(block.size for block in audio) == pytest.approx(16_000, abs=2)


def test_a_file_can_be_heard_twice(tmp_path: Path, tone: Samples) -> None:
    (tmp_path / "tone.wav").write_bytes(encoded("wav", tone))
    audio = read_file(tmp_path / "tone.wav")
    assert sum(b.size for b in audio) == sum(b.size for b in audio) == tone.size


@pytest.mark.parametrize("kind", CODECS)
def test_a_truncated_file_gives_what_it_has_then_says_so(
    kind: str, tmp_path: Path, tone: Samples
) -> None:
    whole = encoded(kind, np.tile(tone, 5))
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    heard: list[Samples] = []
    with pytest.raises(AudioDecodeError, match=r"cut\.\w+ (is cut off|can't be read)") as error:
        heard.extend(read_file(path))
    if "is cut off" in str(error.value):
        assert sum(block.size for block in heard) > 48_000
        assert "ffmpeg" in str(error.value)


def test_garbage_in_which_no_packet_is_found_is_damage(tmp_path: Path, tone: Samples) -> None:
    whole = encoded("ogg", np.tile(tone, 5))
    garbage = np.random.default_rng(5).bytes(200_000)
    path = tmp_path / "garbage.ogg"
    path.write_bytes(whole[: len(whole) // 2] + garbage + whole[len(whole) // 2 :])
    heard: list[Samples] = []
    with pytest.raises(AudioDecodeError, match=r"is cut off|is damaged"):
        heard.extend(read_file(path))
    assert sum(block.size for block in heard) > 16_000


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("empty.wav", b"", "empty"),
        ("words.mp3", b"these are words and no audio", "not an audio file"),
        ("noise.flac", bytes(range(256)) * 40, "can't be read as audio|no audio track"),
    ],
)
def test_what_is_no_audio_is_refused_with_its_path(
    name: str, content: bytes, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioDecodeError, match=what) as error:
        read_file(tmp_path / name)
    assert name in str(error.value)


def test_a_header_without_samples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.wav").write_bytes(encoded("wav", noise(0.5, 48_000))[:44])
    with pytest.raises(AudioDecodeError, match=r"none\.wav"):
        list(read_file(tmp_path / "none.wav"))


@pytest.mark.parametrize("name", ["missing.wav", "."])
def test_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(AudioDecodeError, match=r"doesn't exist|is a folder"):
        read_file(tmp_path / name)


def test_a_name_with_a_colon_is_a_file_and_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tone: Samples
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("http:call.wav").write_bytes(encoded("wav", tone))
    assert sum(block.size for block in read_file("http:call.wav")) == tone.size
