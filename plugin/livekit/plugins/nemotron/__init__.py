"""`nemotron_voice.livekit` under the name by which LiveKit finds plugins.

    from livekit.plugins import nemotron

    stt = nemotron.STT(model="demo")

No `__init__.py` in the folders above: `livekit` and `livekit.plugins` belong to many packages.
"""

import threading

from livekit.agents import Plugin

from nemotron_voice import __version__
from nemotron_voice.livekit import STT, LanguageSwitcher, RecognizeStream, switch_language
from nemotron_voice.livekit.log import logger

__all__ = ["STT", "LanguageSwitcher", "RecognizeStream", "__version__", "switch_language"]


class NemotronPlugin(Plugin):
    """Lets `python -m livekit.agents download-files` fetch the checkpoint."""

    def __init__(self) -> None:
        super().__init__(__name__, __version__, __package__ or __name__, logger)

    def download_files(self) -> None:
        """Fetch the default checkpoint into the hub's cache, 2.5 GB.

        Raises:
            ModelNotFoundError: the hub can't be reached, or refuses.
        """
        from nemotron_voice.config import DEFAULT_MODEL  # noqa: PLC0415 - nothing at import
        from nemotron_voice.model.checkpoint import fetch  # noqa: PLC0415 - brings torch

        fetch(DEFAULT_MODEL)


if threading.current_thread() is threading.main_thread():
    Plugin.register_plugin(NemotronPlugin())
