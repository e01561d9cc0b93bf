"""int8 matrices of a checkpoint, kept on disk: rounding 638 M weights again takes seconds.

One safetensors file a checkpoint, in the user's cache, read through a memory map. It holds nothing
that the checkpoint doesn't, so it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nemotron_voice.model.int8_linear import quantise, weight_limit

_log = logging.getLogger(__name__)

CACHE_VARIABLE: Final = "NEMOTRON_VOICE_CACHE"  # a folder, or "off"
_FORMAT: Final = 2  # of the file; goes up when what is stored is made another way
_SMALLEST_BYTES: Final = 64 << 20  # less is rounded sooner than it is looked up
_SAMPLES: Final = 64  # of a file, evenly apart, its beginning and end among them
_SAMPLE_BYTES: Final = 4096


def fingerprint(files: Iterable[Path]) -> str:
    """Identify weights without reading all of them: paths, sizes, times, and samples of the files.

    The samples tell apart checkpoints of one shape that take each other's place with the same time,
    as files of images and of some package managers have it.

    Args:
        files: that hold the weights.
    """
    identity = hashlib.sha256()
    for path in files:
        real = path.resolve()
        status = real.stat()
        identity.update(f"{real}:{status.st_size}:{status.st_mtime_ns}\n".encode())
        with real.open("rb") as file:
            for number in range(_SAMPLES):
                file.seek(max(status.st_size - _SAMPLE_BYTES, 0) * number // (_SAMPLES - 1))
                identity.update(file.read(_SAMPLE_BYTES))
    return identity.hexdigest()[:32]


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
                _log.warning("%s lacks %s; it is made and added", self._path, name)
        matrix, scale = quantise(weight())
        if self._path is not None:
            self._new |= {name: matrix, f"{name}.scale": scale}
        return matrix, scale

    def _read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[union-attr]
        return tensor

    def save(self) -> None:
        """Keep what was made beside what was read, if it is worth a file. Never fails."""
        if self._path is None or not self._new:
            return
        size = sum(tensor.nbytes for tensor in self._new.values())
        try:
            if self._file is not None:
                names: list[str] = self._file.keys()  # type: ignore[no-untyped-call]
                read = {name: self._read(name) for name in names}
                size += sum(tensor.nbytes for tensor in read.values())
                self._new = read | self._new
            if size < _SMALLEST_BYTES:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_name(f"{self._path.stem}.{uuid4().hex}.part")
            try:
                part.touch()
                mode = part.stat().st_mode  # safetensors' files are their owner's alone
                save_file(self._new, part)
                part.chmod(mode)  # a cache may be shared
                part.replace(self._path)
            except BaseException:
                part.unlink(missing_ok=True)
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
