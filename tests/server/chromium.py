"""A headless Chromium, driven by the DevTools protocol over aiohttp.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
START_S = 20.0


class Page:
    """One tab: commands, and what it complained about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []  # console errors and warnings, exceptions, failed requests
        self._socket = socket
        self._ids = itertools.count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        message = await asyncio.wait_for(answer, 10)
        assert "error" not in message, f"{method}: {message['error']}"
        result: dict[str, Any] = message["result"]
        return result

    async def read(self) -> None:
        """Take answers and events until the browser goes."""
        async for received in self._socket:
            message = received.json()
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
                continue
            complaint = _complaint(message["method"], message["params"])
            if complaint is not None:
                self.complaints.append(complaint)

    async def open(self, url: str) -> None:
        """Load a page."""
        await self.command("Page.navigate", url=url)
        arrived = f"location.host && {url!r}.endsWith(location.host + location.pathname)"
        await self.until(f"{arrived} && document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise's is awaited."""
        result = await self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, expression: str, timeout_s: float = 10.0) -> Any:
        """The value of an expression, once it is truthy."""
        deadline = time.monotonic() + timeout_s
        while not (value := await self.evaluate(expression)):
            if time.monotonic() > deadline:
                shown = await self.evaluate("document.body?.innerText")
                raise AssertionError(f"not in {timeout_s:g} s: {expression}; the page:\n{shown}")
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        """Click an element."""
        await self.evaluate(f"document.querySelector({selector!r}).click()")

    async def choose(self, selector: str, value: str) -> None:
        """Set a field's value, as its user would."""
        await self.evaluate(
            f"(field => {{ field.value = {value!r}; field.dispatchEvent(new Event('change')) }})"
            f"(document.querySelector({selector!r}))"
        )

    async def give_file(self, selector: str, file: Path) -> None:
        """Choose a file in an `<input type=file>`."""
        document = await self.command("DOM.getDocument")
        node = await self.command(
            "DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector
        )
        await self.command("DOM.setFileInputFiles", files=[str(file)], nodeId=node["nodeId"])

    async def screenshot(self) -> bytes:
        """What the page shows, as PNG."""
        return base64.b64decode((await self.command("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def chromium(*flags: str, microphone: Path | None = None) -> AsyncIterator[Page]:
    """A browser with one empty tab.

    Args:
        flags: more of the command line.
        microphone: a WAV file that is heard once, from when a page first asks.
    """
    assert EXECUTABLE, "neither chromium nor google-chrome is on the PATH"
    heard = (
        (
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={microphone}%noloop",
        )
        if microphone
        else ()
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            EXECUTABLE,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--use-fake-ui-for-media-stream", f"--user-data-dir={profile}"),
            *("--remote-debugging-port=0", *heard, *flags, "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _debugging_port(Path(profile), browser)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                async with session.get("/json/list") as response:
                    targets: Sequence[dict[str, str]] = await response.json()
                tab = next(target["id"] for target in targets if target["type"] == "page")
                async with session.ws_connect(f"/devtools/page/{tab}", max_msg_size=0) as socket:
                    page = Page(socket)
                    reader = asyncio.create_task(page.read())
                    for domain in ("Page", "Runtime", "Log", "DOM"):
                        await page.command(f"{domain}.enable")
                    yield page
                    reader.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                browser.terminate()
            await browser.wait()


async def _debugging_port(profile: Path, browser: asyncio.subprocess.Process) -> int:
    """Chromium chooses a free port and writes it into its profile."""
    written = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_S
    while not (written.exists() and (lines := written.read_text().split())):
        assert browser.returncode is None, f"{EXECUTABLE} ended with {browser.returncode}"
        assert time.monotonic() < deadline, f"{EXECUTABLE} did not start in {START_S:g} s"
        await asyncio.sleep(0.05)
    return int(lines[0])


def _complaint(method: str, event: dict[str, Any]) -> str | None:
    """What an event says went wrong in the page."""
    if method == "Runtime.exceptionThrown":
        details = event["exceptionDetails"]
        return str(details.get("exception", {}).get("description", details["text"]))
    if method == "Runtime.consoleAPICalled" and event["type"] in {"error", "warning"}:
        return str(event["args"])
    if method == "Log.entryAdded" and event["entry"]["level"] in {"error", "warning"}:
        return str(event["entry"]["text"])  # the browser's own: CSP, failed requests
    return None
