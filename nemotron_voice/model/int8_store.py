"""int8 matrices of a checkpoint, kept on disk: rounding 638 M weights again takes seconds.

One safetensors file a checkpoint, in the user's cache, read through a memory map. It holds nothing
that the checkpoint doesn't, so it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nemotron_voice.model.int8_linear import quantise, weight_limit

_log = logging.getLogger(__name__)

CACHE_VARIABLE: Final = "NEMOTRON_VOICE_CACHE"  # a folder, or "off"
_FORMAT: Final = 2  # of the file; goes up when what is stored is made another way
_SMALLEST_BYTES: Final = 64 << 20  # less is rounded sooner than it is looked up


def fingerprint(files: Iterable[Path]) -> str:
    """Identify weights without reading them: paths, sizes and times of the files.

    Args:
        files: that hold the weights.
    """
    parts = []
    for path in files:
        real = path.resolve()
        status = real.stat()
        parts.append(f"{real}:{status.st_size}:{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class Int8Store:
    """int8 matrices by name; what isn't stored yet is made, and stored by `save`."""

    def __init__(self, identity: str | None) -> None:
        """Open the store of a checkpoint.

        Args:
            identity: its `fingerprint`; None: nothing is kept.
        """
        self._path = _path(identity)
        self._new: dict[str, Tensor] = {}
        self._file = None
        if self._path is not None and self._path.is_file():
            try:
                self._file = safe_open(self._path, framework="pt")
            except (SafetensorError, OSError) as error:
                _log.warning("%s can't be read (%s); it is made again", self._path, error)

    def get(self, name: str, weight: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """A matrix in int8.

        Args:
            name: of the matrix in this network.
            weight: makes it: [outputs, inputs] fp32.

        Returns:
            [outputs, inputs] int8, and [outputs] fp32, the scales.
        """
        if self._file is not None:
            try:
                return self._read(name), self._read(f"{name}.scale")
            except SafetensorError:
                _log.warning("%s lacks %s; it is made again", self._path, name)
                self._file = None
        matrix, scale = quantise(weight())
        if self._path is not None:
            self._new |= {name: matrix, f"{name}.scale": scale}
        return matrix, scale

    def _read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[union-attr]
        return tensor

    def save(self) -> None:
        """Keep what was made, if all of it was and it is worth a file. Never fails."""
        size = sum(tensor.nbytes for tensor in self._new.values())
        if self._path is None or self._file is not None or size < _SMALLEST_BYTES:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, suffix=".part")
            os.close(handle)
            try:
                save_file(self._new, name)
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except (OSError, SafetensorError) as error:
            _log.warning(
                "the int8 copy of the model can't be kept (%s): the next start takes as long; set "
                "%s to a folder that can be written, or to off",
                error,
                CACHE_VARIABLE,
            )
        else:
            _log.info("kept an int8 copy of the model: %s (%d MB)", self._path, size >> 20)
        self._new = {}


def cache_folder() -> tuple[Path, bool]:
    """The user's cache, and whether copies of models may be kept in it."""
    chosen = os.environ.get(CACHE_VARIABLE, "")
    if chosen not in {"", "off"}:
        return Path(chosen), True
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(home) / "nemotron-voice", chosen != "off"


def _path(identity: str | None) -> Path | None:
    folder, allowed = cache_folder()
    if identity is None or not allowed:
        return None
    # Processors whose kernels take other weights may share a cache over a network.
    return folder / f"int8-{identity}-{_FORMAT}-{weight_limit()}.safetensors"
