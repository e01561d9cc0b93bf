"""Who may come in: API keys, origins of web pages, streams per key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from nemotron_voice.server.options import ServerOptions

OPEN_TO_ALL = "-"  # the key of a server without keys


class RefusedError(Exception):
    """A request that isn't served, with its HTTP status."""

    def __init__(self, status: int, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason  # for metrics: a word


class Access:
    """The keys of a server, and how many streams each holds."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._digests = {_digest(key): f"key {place}" for place, key in enumerate(options.api_keys)}
        self._streams: Counter[str] = Counter()

    def admit(self, connection: HTTPConnection) -> str:
        """The name of the key that a request came with.

        Raises:
            RefusedError: 401 without a right key, 403 from a web page elsewhere.
        """
        self._check_origin(connection)
        if not self._digests:
            return OPEN_TO_ALL
        digest = _digest(_key_of(connection))
        for known, name in self._digests.items():
            if hmac.compare_digest(known, digest):
                return name
        raise RefusedError(
            401,
            "the API key is missing or wrong; send the header 'Authorization: Token KEY'",
            reason="key",
        )

    @contextmanager
    def stream_of(self, key: str) -> Iterator[None]:
        """Count a stream of this key while it lasts.

        Raises:
            RefusedError: 429, the key has all the streams that it may have.
        """
        limit = self._options.max_streams_per_key
        if limit is not None and self._streams[key] >= limit:
            raise RefusedError(
                429,
                f"this API key may have {limit} streams at once, and has",
                reason="streams per key",
            )
        self._streams[key] += 1
        try:
            yield
        finally:
            self._streams[key] -= 1

    def _check_origin(self, connection: HTTPConnection) -> None:
        """A page of another site must not use a key or a network that its reader has.

        Without keys a name is not enough: whoever owns it can let it point to this machine after
        the page was loaded (DNS rebinding), and the page's origin then looks like our own.
        """
        origin = connection.headers.get("origin")
        if origin is None or origin in self._options.allowed_origins:
            return
        own = _netloc(origin) == connection.headers.get("host")
        if not own or not (self._digests or _is_fixed(urlsplit(origin).hostname)):
            raise RefusedError(
                403,
                f"pages of {origin} may not connect; allow them with --allow-origin {origin}",
                reason="origin",
            )


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # "http://["
        return None


def _is_fixed(hostname: str | None) -> bool:
    """Whether no one can point a host elsewhere: an address, or this machine's own name."""
    try:
        ipaddress.ip_address(hostname or "")
    except ValueError:
        return hostname == "localhost"
    return True


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _key_of(connection: HTTPConnection) -> str:
    """The key of a request: a WebSocket subprotocol, for web pages, or a header.

    The subprotocol first: a browser adds the header of its own password dialogue to a handshake.
    """
    offered = [name.strip() for name in connection.scope.get("subprotocols", ())]
    if len(offered) == 2 and offered[0] in {"token", "bearer"}:
        return str(offered[1])
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.casefold() in {"token", "bearer"}:
        return value
    if scheme.casefold() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[2]
        except ValueError:  # no Base64, or no UTF-8 in it
            return ""
    return ""
