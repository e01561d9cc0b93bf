"""Which requests come in: the rules, without a server."""

from __future__ import annotations

import base64

import pytest
from starlette.requests import HTTPConnection

from nemotron_voice.server import ServerOptions
from nemotron_voice.server.access import OPEN_TO_ALL, Access, RefusedError


def request(subprotocols: tuple[str, ...] = (), **headers: str) -> HTTPConnection:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "websocket", "headers": raw, "subprotocols": subprotocols})


def test_without_keys_everybody_is_served() -> None:
    assert Access(ServerOptions()).admit(request()) == OPEN_TO_ALL


@pytest.mark.parametrize(
    "come",
    [
        request(authorization="Token right"),
        request(authorization="bearer right"),
        request(authorization="Basic " + base64.b64encode(b"anyone:right").decode()),
        request(("token", "right")),
        request(("token", "right"), authorization="Basic d3Jvbmc6d3Jvbmc="),  # a browser's own
    ],
)
def test_a_right_key_comes_in_by_header_or_subprotocol(come: HTTPConnection) -> None:
    assert Access(ServerOptions(api_keys=("other", "right"))).admit(come) == "key 1"


@pytest.mark.parametrize(
    "come",
    [
        request(),
        request(authorization="Token wrong"),
        request(authorization="right"),
        request(authorization="Basic !"),
        request(("right",)),
        request(("other", "right")),
    ],
)
def test_no_key_and_a_wrong_one_are_refused(come: HTTPConnection) -> None:
    with pytest.raises(RefusedError, match="Authorization") as refused:
        Access(ServerOptions(api_keys=("right",))).admit(come)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("origin", "host", "keys", "allowed", "served"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", (), (), True),
        ("http://localhost:8080", "localhost:8080", (), (), True),
        ("http://[::1]:8080", "[::1]:8080", (), (), True),
        ("http://10.0.0.7:8080", "10.0.0.7:8080", (), (), True),
        ("http://elsewhere.org", "127.0.0.1:8080", (), (), False),
        ("http://rebound.org:8080", "rebound.org:8080", (), (), False),
        ("http://rebound.org:8080", "rebound.org:8080", ("k",), (), True),
        ("https://app.org", "asr.org", (), ("https://app.org",), True),
        ("null", "localhost:8080", (), (), False),
    ],
)
def test_pages_of_other_sites_and_names_that_may_be_rebound_stay_out(
    origin: str, host: str, keys: tuple[str, ...], allowed: tuple[str, ...], served: bool
) -> None:
    access = Access(ServerOptions(api_keys=keys, allowed_origins=allowed))
    come = request(origin=origin, host=host, authorization="Token k")
    if served:
        access.admit(come)
        return
    with pytest.raises(RefusedError, match="--allow-origin") as refused:
        access.admit(come)
    assert refused.value.status == 403


def test_streams_of_a_key_are_counted_while_they_last() -> None:
    access = Access(ServerOptions(api_keys=("k",), max_streams_per_key=2))
    with access.stream_of("key 0"):
        with access.stream_of("key 0"), pytest.raises(RefusedError) as refused:
            access.stream_of("key 0").__enter__()
        assert refused.value.status == 429
        with access.stream_of("key 0"), access.stream_of("key 1"):
            pass
