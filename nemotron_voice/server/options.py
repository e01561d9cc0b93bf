"""What one server allows: every limit with its unit and default."""

from __future__ import annotations

from dataclasses import dataclass, fields

from nemotron_voice.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Limits and keys of a server.

    ServerOptions(api_keys=("secret",), max_streams_per_key=20, idle_s=30.0)

    What one connection can hold in memory: one message of `max_message_bytes`, `max_buffered_s`
    of audio, `max_pending_finalize` answers and 256 transcripts; about 1 MB of audio at 16 kHz.

    Raises:
        ConfigurationError: a limit is not positive.
    """

    api_keys: tuple[str, ...] = ()  # none: whoever can connect is served
    allowed_origins: tuple[str, ...] = ()  # of web pages elsewhere; the server's own is allowed
    max_message_bytes: int = 1 << 20  # a larger one closes its connection with 1009
    max_messages_per_s: int = 500  # of one connection; more are read later, not refused
    max_buffered_s: float = 10.0  # of undecoded audio; beyond it the connection isn't read
    max_pending_finalize: int = 32  # unanswered Finalize messages of one connection
    idle_s: float = 10.0  # without audio or KeepAlive (Deepgram's NET-0001)
    session_s: float = 4 * 3600.0  # length of one connection
    send_s: float = 10.0  # a client that doesn't read for so long is cut off
    max_streams_per_key: int | None = None  # None: as many as the engine has
    max_upload_bytes: int = 200 << 20  # a file sent over HTTP
    upload_s: float = 300.0  # until a file sent over HTTP must be here, from its turn on
    max_uploads: int = 4  # files taken in and heard at once
    max_waiting_uploads: int = 16  # for one of these places; more are told to come again
    drain_s: float = 10.0  # from SIGTERM to the end, finals delivered

    def __post_init__(self) -> None:
        """Refuse what would let nothing through."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            if isinstance(value, int | float) and not value > 0:
                raise ConfigurationError(f"{limit.name}={value!r} must be more than 0")
        if any(not key.strip() for key in self.api_keys):
            raise ConfigurationError("an API key is empty")
