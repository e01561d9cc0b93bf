"""The wire, sans-I/O: Deepgram's Listen v1 with our own fields beside theirs.

Text and bytes in, events out; no socket, no clock, no thread. Server and client share it.
"""

from nemotron_voice.protocol.listen_options import ListenOptions, parse_query, stream_query
from nemotron_voice.protocol.messages import (
    CloseStream,
    Configure,
    ConfigureSuccess,
    Error,
    Finalize,
    KeepAlive,
    Metadata,
    Results,
    SpeechStarted,
    UtteranceEnd,
    parse_client_text,
    parse_server_text,
)
from nemotron_voice.protocol.session import Audio, ClientEvent, ListenSession

LISTEN_PATH = "/v1/listen"
ENGINE_PATH = "/v1/engine"

__all__ = [
    "ENGINE_PATH",
    "LISTEN_PATH",
    "Audio",
    "ClientEvent",
    "CloseStream",
    "Configure",
    "ConfigureSuccess",
    "Error",
    "Finalize",
    "KeepAlive",
    "ListenOptions",
    "ListenSession",
    "Metadata",
    "Results",
    "SpeechStarted",
    "UtteranceEnd",
    "parse_client_text",
    "parse_query",
    "parse_server_text",
    "stream_query",
]
