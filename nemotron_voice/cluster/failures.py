"""What went wrong in a process of Ray's, as an error of ours."""

from __future__ import annotations

import re
from typing import Final

from nemotron_voice import errors
from nemotron_voice.errors import EngineError, NemotronVoiceError

# Ray hands over what an actor raised at its start as the text of a traceback.
_OURS: Final = re.compile(r"^nemotron_voice\.errors\.(\w+): (.*)", re.MULTILINE)


def failure(text: str, what: str) -> NemotronVoiceError:
    """The last error of ours that a traceback tells of, or an EngineError with its last line."""
    found = _OURS.findall(text)
    if found:
        name, message = found[-1]
        kind = getattr(errors, name, EngineError)
        if isinstance(kind, type) and issubclass(kind, NemotronVoiceError):
            return kind(message)
    lines = text.strip().splitlines() or ["Ray gives no reason"]
    return EngineError(f"{what}: {lines[-1].strip()}; Ray's logs tell more")
