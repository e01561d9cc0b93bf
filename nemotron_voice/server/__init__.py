"""One engine behind a door that existing clients know: Deepgram's Listen v1 and OpenAI's files.

`nemotron-voice serve` runs it; `create_app(engine)` is the ASGI app for any other server.
"""

from nemotron_voice.server.app import create_app
from nemotron_voice.server.options import ServerOptions

__all__ = ["ServerOptions", "create_app"]
