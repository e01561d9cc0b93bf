"""The server's side of one Listen v1 connection: what a client may send, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_voice.errors import ProtocolError
from nemotron_voice.protocol.listen_options import ListenOptions
from nemotron_voice.protocol.messages import (
    CloseStream,
    Configure,
    Finalize,
    KeepAlive,
    parse_client_text,
)


@dataclass(frozen=True, slots=True)
class Audio:
    """Encoded audio; linear16 comes in whole samples."""

    data: bytes


ClientEvent = Audio | Finalize | KeepAlive | Configure | CloseStream


class ListenSession:
    """Messages in, events out. After CloseStream nothing but KeepAlive may come."""

    def __init__(self, options: ListenOptions) -> None:
        self.options = options
        self._odd = b""  # half a sample of linear16: packets may be cut anywhere
        self._ended = False

    def receive_bytes(self, data: bytes) -> list[ClientEvent]:
        """A binary message; an empty one ends the stream, as it did before CloseStream.

        Raises:
            ProtocolError: the stream has ended.
        """
        if self._ended:
            if not data:
                return []
            raise ProtocolError("audio after CloseStream; open another connection")
        if not data:
            self._ended = True
            return [CloseStream()]
        if self.options.encoding == "linear16":
            data = self._odd + data
            whole = len(data) & ~1
            data, self._odd = data[:whole], data[whole:]
        return [Audio(data)] if data else []

    def receive_text(self, text: str) -> list[ClientEvent]:
        """A text message.

        Raises:
            ProtocolError: it isn't one of the protocol, or the stream has ended.
        """
        message = parse_client_text(text)
        if self._ended and not isinstance(message, KeepAlive):
            if isinstance(message, CloseStream):
                return []
            raise ProtocolError(f"{type(message).__name__} after CloseStream")
        self._ended = self._ended or isinstance(message, CloseStream)
        return [message]
