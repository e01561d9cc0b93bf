"""What a new connection is told, and what of its words is new."""

from __future__ import annotations

from nemotron_voice.config import StreamOptions
from nemotron_voice.remote import RemoteStream
from nemotron_voice.remote.history import (
    Deliveries,
    FlushMark,
    History,
    Settings,
    UpdateMark,
)
from nemotron_voice.remote.stream import MAX_MESSAGE_BYTES
from nemotron_voice.server.options import ServerOptions
from tests.scripted_recognizer import transcript

RATE = 8_000
SECOND = bytes(2 * RATE)


def sent(history: History) -> list[object]:
    entries = []
    while (entry := history.next()) is not None:
        entries.append(len(entry) / len(SECOND) if isinstance(entry, bytes) else entry)
    return entries


def test_a_new_connection_is_told_everything_again_in_order() -> None:
    history = History(RATE, Settings("auto", 320), replay_s=60)
    flush, update = FlushMark(0, 2.0), UpdateMark("es-ES", None)
    for entry in (SECOND, flush, SECOND, update, SECOND):
        history.append(entry)
    assert sent(history) == [1.0, flush, 1.0, update, 1.0]
    assert history.next() is None
    assert history.rewind() == 0.0
    assert history.unsent_s == 3.0
    assert sent(history) == [1.0, flush, 1.0, update, 1.0]
    assert history.settings == Settings("auto", 320)


def a_stream() -> RemoteStream:
    return RemoteStream(
        StreamOptions(sample_rate=RATE),
        check=lambda language, latency_ms: None,
        replay_s=60,
        wake=lambda _: None,
        cut=lambda _: None,
    )


def test_a_push_larger_than_servers_take_goes_as_several_messages() -> None:
    stream, large = a_stream(), SECOND * 20
    stream.push(large)
    messages = []
    while isinstance(message := stream.next(), bytes):
        messages.append(message)
    assert b"".join(messages) == large
    assert max(map(len, messages)) <= 2 * MAX_MESSAGE_BYTES < ServerOptions().max_message_bytes


def test_packets_that_wait_go_as_one_message_and_marks_stay_where_they_are() -> None:
    stream = a_stream()
    for _ in range(3):
        stream.push(SECOND[:320])
    flush = stream.flush()
    stream.push(SECOND[:320])
    assert [stream.next(), stream.next(), stream.next(), stream.next()] == [
        SECOND[:960],
        FlushMark(0, 2.0),
        SECOND[:320],
        None,
    ]
    flush.close()


def test_old_audio_is_forgotten_as_far_as_a_flush_with_its_settings() -> None:
    history = History(RATE, Settings("auto", 320), replay_s=3)
    history.append(SECOND)
    history.append(UpdateMark("fr-FR", 80))
    history.append(SECOND)
    history.append(FlushMark(0, 2.0))
    for _ in range(4):
        history.append(SECOND)
    sent(history)
    assert history.rewind() == 2.0
    assert history.settings == Settings("fr-FR", 80)
    assert sent(history) == [1.0] * 4


def test_without_a_flush_what_is_kept_is_bounded_all_the_same() -> None:
    history = History(RATE, Settings("auto", 320), replay_s=3)
    for _ in range(100):
        history.append(SECOND)
        sent(history)
    assert history.end_s == 100.0
    assert history.rewind() == 94.0


def test_unsent_audio_is_never_forgotten() -> None:
    history = History(RATE, Settings("auto", 320), replay_s=1)
    for _ in range(20):
        history.append(SECOND)
    assert history.unsent_s == 20.0
    assert sent(history) == [1.0] * 20


def test_a_replay_that_says_the_same_adds_nothing_and_then_everything() -> None:
    deliveries = Deliveries(keep_s=60)
    for final in (transcript("a table", final=True), transcript("for two", final=True, start=1.0)):
        assert deliveries.new_part(final) is final
        deliveries.note(final)
    deliveries.begin_replay(0.0)
    assert deliveries.new_part(transcript("a table for", start=0.0)).text == ""
    assert deliveries.new_part(transcript("a table", final=True)).text == ""
    assert deliveries.new_part(transcript("for two", final=True, start=1.0)).text == ""
    after = transcript("for two", final=True, start=1.3)  # said twice, and heard twice
    assert deliveries.new_part(after) is after


def test_a_final_that_was_half_delivered_gives_its_other_half() -> None:
    deliveries = Deliveries(keep_s=60)
    deliveries.note(transcript("a table for", final=True))
    deliveries.begin_replay(0.0)
    new = deliveries.new_part(transcript("A table for two please.", final=True))
    assert (new.text, [word.text for word in new.words]) == ("two please.", ["two", "please."])


def test_the_same_sound_read_otherwise_is_not_said_beside_the_first_reading() -> None:
    deliveries = Deliveries(keep_s=60)
    deliveries.note(transcript("a table for sixteen", final=True, start=10.0))
    deliveries.begin_replay(9.9)
    new = deliveries.new_part(transcript("cable for sixty people", final=True, start=10.2))
    assert new.text == "people"


def test_words_of_long_ago_are_forgotten() -> None:
    deliveries = Deliveries(keep_s=10)
    for second in range(1000):
        deliveries.note(transcript("la la la", final=True, start=float(second)))
    assert len(deliveries._words) < 40
