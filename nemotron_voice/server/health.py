"""Whether the model still runs: after some faults of a device, all steps fail until a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nemotron_voice.errors import StepFailedError

if TYPE_CHECKING:
    from nemotron_voice.engine import Engine

FAILED_IN_A_ROW: Final = 5  # streams; a single one may have failed by its own fault


class ModelHealth:
    """How many streams in a row ended because a step failed, without text from any between.

    Args:
        engine: which may say itself that it has failed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._failed = 0

    def heard(self) -> None:
        """The model made text of a stream."""
        self._failed = 0

    def ended(self, error: BaseException | None) -> None:
        """A stream ended, with this error or none."""
        if error is not None and any(
            isinstance(one, StepFailedError) for one in (error, error.__cause__)
        ):
            self._failed += 1

    @property
    def fault(self) -> str | None:
        """Why no stream should come here; None while all is well."""
        if self._engine.failure is not None:
            return str(self._engine.failure)
        if self._failed < FAILED_IN_A_ROW:
            return None
        return (
            f"the model's step failed for the last {self._failed} streams; if the log names a "
            "fault of the device, only a restart of this process helps"
        )
