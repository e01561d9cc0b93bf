"""What a client may send, in which order; audio cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_voice.errors import ProtocolError
from nemotron_voice.protocol import (
    Audio,
    CloseStream,
    Configure,
    Finalize,
    KeepAlive,
    ListenOptions,
    ListenSession,
)
from nemotron_voice.protocol.listen_options import Encoding
from nemotron_voice.protocol.messages import ClientMessage


def session(encoding: Encoding = "linear16") -> ListenSession:
    return ListenSession(ListenOptions(encoding=encoding, sample_rate=16_000))


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=12))
def test_linear16_cut_anywhere_comes_out_in_whole_samples_and_no_byte_is_lost(
    audio: bytes, cuts: list[int]
) -> None:
    there = session()
    places = [0, *sorted(min(cut, len(audio)) for cut in cuts), len(audio)]
    heard = b""
    for start, end in pairwise(places):
        if start == end:  # an empty message would end the stream
            continue
        for event in there.receive_bytes(audio[start:end]):
            assert isinstance(event, Audio)
            assert len(event.data) % 2 == 0
            heard += event.data
    assert heard == audio[: len(audio) & ~1]


@pytest.mark.parametrize("encoding", ["mulaw", "alaw", "opus"])
def test_other_encodings_pass_each_message_as_it_is(encoding: Encoding) -> None:
    there = session(encoding)
    assert there.receive_bytes(b"abc") == [Audio(b"abc")]
    assert there.receive_bytes(b"d") == [Audio(b"d")]


def test_a_single_byte_waits_for_the_other_half_of_its_sample() -> None:
    there = session()
    assert there.receive_bytes(b"a") == []
    assert there.receive_text(KeepAlive().to_text()) == [KeepAlive()]
    assert there.receive_bytes(b"b") == [Audio(b"ab")]


def test_each_message_becomes_its_event_in_order() -> None:
    there = session()
    messages: list[ClientMessage] = [
        *(KeepAlive(), Finalize(), Finalize(250), Configure("es-ES", 160), CloseStream()),
    ]
    assert [e for m in messages for e in there.receive_text(m.to_text())] == messages


def test_an_empty_binary_message_ends_the_stream_as_closestream_does() -> None:
    there = session()
    assert there.receive_bytes(b"") == [CloseStream()]
    assert there.receive_bytes(b"") == []
    with pytest.raises(ProtocolError, match="after CloseStream"):
        there.receive_bytes(b"ab")


def test_after_closestream_only_what_changes_nothing_is_taken() -> None:
    there = session()
    there.receive_text(CloseStream().to_text())
    assert there.receive_text(KeepAlive().to_text()) == [KeepAlive()]
    assert there.receive_text(CloseStream().to_text()) == []
    for late in (Finalize(), Configure("en-US")):
        with pytest.raises(ProtocolError, match=f"{type(late).__name__} after CloseStream"):
            there.receive_text(late.to_text())
    with pytest.raises(ProtocolError, match="audio after CloseStream"):
        there.receive_bytes(b"ab")


def test_a_refused_message_changes_nothing() -> None:
    there = session()
    assert there.receive_bytes(b"a") == []
    with pytest.raises(ProtocolError):
        there.receive_text('{"type": "Clos')
    assert there.receive_bytes(b"b") == [Audio(b"ab")]
