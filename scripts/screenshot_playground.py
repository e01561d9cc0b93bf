"""Take the README's picture: `python -m scripts.screenshot_playground docs/playground.png`.

Plays a bundled call in five languages into the playground at the speed of speech, and takes the
page in mid-call, with an interim below its finals. Nothing is drawn by hand.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from nemotron_voice import Engine
from nemotron_voice.cli.demo import bundled_calls
from tests.running_server import running_server
from tests.server.chromium import chromium

CALL = "five-languages"
# Late in the call, while a sentence is still open.
MOMENT = """document.querySelector('#finals .language[lang="es-ES"]')
    && document.querySelector('#interim .text').textContent.length > 20"""


async def take(url: str, *, width: int, height: int, scale: float, dark: bool) -> bytes:
    """Play the call; returns a PNG."""
    call = next(call for call in bundled_calls() if call.audio.stem == CALL)
    async with chromium() as page:
        await page.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await page.command("Emulation.setEmulatedMedia", features=[scheme])
        await page.open(url)
        await page.until("document.querySelector('#latency').value === '320'")
        await page.give_file("#file", call.audio)
        await page.until(MOMENT, 40)
        return await page.screenshot()


def main() -> None:
    """Read the command line, serve the bundled model, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=960, help="of the page, in CSS pixels")
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--scale", type=float, default=1.25, help="device pixels per CSS pixel")
    parser.add_argument("--dark", action="store_true")
    given = vars(parser.parse_args())
    picture: Path = given.pop("picture")
    with Engine.load("demo") as engine, running_server(engine) as server:
        picture.write_bytes(asyncio.run(take(f"{server.http}/", **given)))


if __name__ == "__main__":
    main()
