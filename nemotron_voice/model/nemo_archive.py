"""Reading a .nemo archive without NeMo and without trust: nothing is unpacked, nothing executed.

A .nemo is a tar, plain or gzipped, of a configuration, a PyTorch state dict and a tokenizer. The
tar is read by a parser of its own that knows regular files and nothing else: no links, devices,
sparse files or long names, so there is no rule about them to get wrong.
"""

from __future__ import annotations

import gzip
import io
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
import yaml
from torch import Tensor

from nemotron_voice.errors import CheckpointFormatError, UnexpectedWeightError, UnsafeArchiveError
from nemotron_voice.model.features import WINDOW, mel_filters
from nemotron_voice.model.weights import from_nemo_name

_CONFIG: Final = "model_config.yaml"
_WEIGHTS: Final = "model_weights.ckpt"
_TOKENIZER: Final = "tokenizer.model"
_MIB: Final = 1 << 20
# Members by the name that follows NeMo's 32 hexadecimal digits, with the most bytes each may have.
# The released checkpoint has 2.4 GB of weights, a tokenizer of 0.5 MB and 1 MB of configuration.
_LIMITS: Final = {
    _CONFIG: 16 * _MIB,
    _WEIGHTS: 7168 * _MIB,
    _TOKENIZER: 64 * _MIB,
    "tokenizer.vocab": 64 * _MIB,
    "vocab.txt": 64 * _MIB,
}
_ARTEFACT: Final = re.compile(r"[0-9a-f]{32}_(tokenizer\.model|tokenizer\.vocab|vocab\.txt)")
_BLOCK: Final = 512
# Python writes a file's fractional time into an extension header; that's all there should be.
_MAX_EXTENSION: Final = 64 * 1024
_HARMLESS_EXTENSIONS: Final = frozenset({"mtime", "atime", "ctime", "uname", "gname", "comment"})


@dataclass(frozen=True, slots=True)
class NemoArchive:
    """What a .nemo holds."""

    config: Mapping[str, Any]  # model_config.yaml
    weights: dict[str, Tensor]  # by Transformers' names
    tokenizer: bytes  # a SentencePiece model


def read_nemo(path: Path) -> NemoArchive:
    """Read a .nemo file.

    Raises:
        UnsafeArchiveError: a member that a checkpoint has no need of, or too large a one.
        CheckpointFormatError: it is no such archive, or damaged.
        UnexpectedWeightError: two of its tensors are the same weight.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if zipped:
                with gzip.open(file) as stream:
                    members = _read_members(stream, path, None)  # type: ignore[arg-type]
            else:
                members = _read_members(file, path, file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CheckpointFormatError(
                f"{path} is cut off or damaged ({error}); fetch it again"
            ) from error
        missing = {_CONFIG, _WEIGHTS, _TOKENIZER} - members.keys()
        if missing:
            raise CheckpointFormatError(
                f"{path} has no {' and no '.join(sorted(missing))}; a .nemo of a streaming "
                f"transducer with a SentencePiece tokenizer is due"
            )
        return NemoArchive(
            _read_config(members[_CONFIG].read(), path),
            _read_weights(members[_WEIGHTS], path),
            members[_TOKENIZER].read(),
        )


def _read_members(stream: BinaryIO, path: Path, file: BinaryIO | None) -> dict[str, BinaryIO]:
    """Read a tar's members, by name without the digits.

    Args:
        stream: the tar, read from front to end.
        path: for messages.
        file: the same where it can be read again by place, so that weights stay on disk.
    """
    members: dict[str, BinaryIO] = {}
    while any(header := _read_exactly(stream, _BLOCK, path)):
        size, kind, raw_name = _parse_header(header, path)
        if kind in b"xg":
            if size > _MAX_EXTENSION:
                raise UnsafeArchiveError(
                    f"{path} has an extension header of {size} bytes; {_REMEDY}"
                )
            _check_extension(_read_exactly(stream, size, path), path)
            _read_exactly(stream, -size % _BLOCK, path)
            continue
        if kind == b"5" and raw_name in (".", "./") and size == 0:
            continue  # the archive's own folder, which NeMo writes first
        name = _allowed_name(raw_name, kind, path)
        if name in members:
            raise UnsafeArchiveError(f"{path} has two members {name!r}; {_REMEDY}")
        if size > _LIMITS[name]:
            raise UnsafeArchiveError(
                f"{path}: member {name!r} has {size} bytes, at most {_LIMITS[name]} are allowed; "
                f"{_REMEDY}"
            )
        if file is not None and name == _WEIGHTS:
            members[name] = io.BufferedReader(_Region(file, file.tell(), size))
            end = file.seek(0, io.SEEK_CUR) + size
            if file.seek(0, io.SEEK_END) < end:
                raise _cut_off(path)
            file.seek(end)
        else:
            members[name] = io.BytesIO(_read_exactly(stream, size, path))
        _read_exactly(stream, -size % _BLOCK, path)
    return members


_REMEDY: Final = "no checkpoint needs that, so nothing was loaded; use a file from its publisher"


def _parse_header(header: bytes, path: Path) -> tuple[int, bytes, str]:
    """Parse a ustar header: size, type and name."""
    try:
        expected = _octal(header[148:156])
        size = _octal(header[124:136])
        prefix = header[345:500] if header[257:263] == b"ustar\0" else b""
        name = b"/".join(
            part for part in (prefix.split(b"\0")[0], header[:100].split(b"\0")[0]) if part
        ).decode()
    except ValueError as error:
        raise CheckpointFormatError(
            f"{path} is no .nemo archive: a tar, plain or gzipped, is due ({error})"
        ) from error
    if sum(header) - sum(header[148:156]) + 8 * ord(" ") != expected:
        raise CheckpointFormatError(
            f"{path} is no .nemo archive, or damaged: a header's checksum is wrong; fetch it again"
        )
    return size, header[156:157], name


def _octal(field: bytes) -> int:
    """A number of a header. `int` alone would take a sign, and a negative size reads everything."""
    digits = field.strip(b"\0 ") or b"0"
    if not digits.isdigit():
        raise ValueError(f"{digits!r} is no number")
    return int(digits, 8)


def _allowed_name(raw_name: str, kind: bytes, path: Path) -> str:
    if kind not in b"0\0":
        raise UnsafeArchiveError(
            f"{path}: member {raw_name!r} is no regular file (tar type {kind!r}: a link, device, "
            f"folder or extension); {_REMEDY}"
        )
    name = raw_name.removeprefix("./")
    if match := _ARTEFACT.fullmatch(name):
        name = match[1]
    if name not in _LIMITS:
        raise UnsafeArchiveError(
            f"{path}: member {raw_name!r} is none of {', '.join(_LIMITS)}; {_REMEDY}"
        )
    return name


def _check_extension(records: bytes, path: Path) -> None:
    """Make sure that an extension header changes no name, size or kind."""
    while records:
        length, _, _ = records.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(records):
            raise CheckpointFormatError(f"{path} has a damaged extension header; fetch it again")
        record, records = records[: int(length)], records[int(length) :]
        keyword = record[len(length) + 1 :].split(b"=")[0].decode(errors="replace")
        if keyword not in _HARMLESS_EXTENSIONS:
            raise UnsafeArchiveError(
                f"{path} has an extension header that sets {keyword!r}; {_REMEDY}"
            )


def _read_exactly(stream: BinaryIO, size: int, path: Path) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise _cut_off(path)
    return content


def _cut_off(path: Path) -> CheckpointFormatError:
    return CheckpointFormatError(f"{path} is cut off, or no .nemo archive; fetch it again")


def _read_config(text: bytes, path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointFormatError(
            f"{path}: {_CONFIG} is no plain YAML ({error}); export the model again"
        ) from error
    if not isinstance(config, Mapping):
        raise CheckpointFormatError(f"{path}: {_CONFIG} is no mapping; export the model again")
    return config


def _unpickle(file: BinaryIO, path: Path) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            packed = any(entry.compress_type for entry in archive.infolist())
        file.seek(0)
        if not packed:  # PyTorch never packs; a small file could unpack into a very large one
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeArchiveError(
            f"{path}: {_WEIGHTS} holds more than tensors, and code in it isn't run "
            f"({str(error).splitlines()[0]}); {_REMEDY}"
        ) from error
    except Exception as error:  # the unpickler fails on damaged bytes with whatever it runs into
        raise CheckpointFormatError(
            f"{path}: {_WEIGHTS} can't be read ({error}); fetch it again"
        ) from error
    raise UnsafeArchiveError(f"{path}: {_WEIGHTS} has compressed entries; {_REMEDY}")


def _read_weights(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    content = _unpickle(file, path)
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise CheckpointFormatError(f"{path}: {_WEIGHTS} is no mapping of names to tensors")
    weights: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if name.startswith("preprocessor.featurizer."):
            _check_front_end(name, tensor, path)
        elif (ours := from_nemo_name(name)) in weights:
            raise UnexpectedWeightError(
                f"{path} has {name} beside another tensor of the same place; export it again"
            )
        else:
            weights[ours] = tensor
    return weights


def _check_front_end(name: str, tensor: Tensor, path: Path) -> None:
    """Compare what NeMo stores of its front end, which isn't a weight, with ours."""
    part = name.rpartition(".")[2]
    if part == "window":
        ours = torch.hann_window(WINDOW, periodic=False)
    elif part == "fb" and tensor.ndim == 3:
        ours = mel_filters(tensor.shape[1])[None]
    else:
        raise UnexpectedWeightError(
            f"{path} has {name} {list(tensor.shape)}, which no front end of these models has"
        )
    if tensor.shape != ours.shape or not torch.allclose(tensor.float(), ours, rtol=1e-2, atol=1e-4):
        raise CheckpointFormatError(
            f"{path}: {name} isn't that of the 25 ms Hann window and Slaney mel filters that this "
            f"front end computes, so the model would hear something else"
        )


class _Region(io.RawIOBase):
    """A part of a file, read as if it were one."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(base + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self._size - self._place), 0)
        self._file.seek(self._start + self._place)
        content = self._file.read(count)
        view[: len(content)] = content
        self._place += len(content)
        return len(content)
