"""A fine-tuned model's locale beside the 40 is known to clients in other processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from nemotron_voice import Engine, EngineOptions, RemoteEngine, languages
from nemotron_voice.errors import ConfigurationError, UnknownLanguageError
from nemotron_voice.server import create_app
from tests.random_checkpoint import tiny_checkpoint

starlette_client = pytest.importorskip("starlette.testclient")

SLOT = languages.free_slot("ca-ES")
CATALAN = languages.Locale("ca-ES", "Catalan", "Spain", "català", languages.READY, SLOT, ())


@pytest.fixture
def unknown(monkeypatch) -> None:
    """As in a process that has never heard of the locale; what a test adds is undone."""
    for name in ("BY_CODE", "_EXACT", "_LANGUAGES", "_TAGS"):
        monkeypatch.setattr(languages, name, dict(getattr(languages, name)))


@contextmanager
def answering(about: dict[str, Any]) -> Iterator[str]:
    """A server that says this of its engine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(about).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def about_of_catalan(monkeypatch) -> dict[str, Any]:
    """What the real server says of an engine that was taught Catalan."""
    with monkeypatch.context() as patch:
        for name in ("BY_CODE", "_EXACT", "_LANGUAGES", "_TAGS"):
            patch.setattr(languages, name, dict(getattr(languages, name)))
        languages.add(CATALAN)
        checkpoint = tiny_checkpoint(languages=("en-US", "ca-ES"))
        options = EngineOptions(device="cpu", max_streams=2, threads=1)
        with Engine(checkpoint, options) as engine:
            client = starlette_client.TestClient(create_app(engine))
            about: dict[str, Any] = client.get("/v1/engine").json()
    return about


def test_a_client_learns_the_locales_that_the_server_has_beside_the_40(unknown, monkeypatch):
    about = about_of_catalan(monkeypatch)
    assert about["languages"] == ["en-US", "ca-ES"]
    with pytest.raises(UnknownLanguageError):
        languages.resolve("Catalan")
    with answering(about) as url, RemoteEngine(url) as engine:
        assert engine.languages == ("en-US", "ca-ES")
        assert languages.resolve("Catalan", engine.languages) == "ca-ES"
        assert languages.BY_CODE["ca-ES"] == CATALAN
    with answering(about) as url, RemoteEngine(url):  # a second client of the same server
        pass


def test_an_older_server_says_nothing_of_them(unknown, monkeypatch):
    about = about_of_catalan(monkeypatch) | {"languages": ["en-US"]}
    del about["locales"]
    with answering(about) as url, RemoteEngine(url) as engine:
        assert engine.languages == ("en-US",)


def test_a_locale_that_makes_no_sense_is_refused(unknown, monkeypatch):
    about = about_of_catalan(monkeypatch) | {"locales": [{"code": "ca-ES"}]}
    with answering(about) as url, pytest.raises(ConfigurationError, match="native"):
        RemoteEngine(url)
