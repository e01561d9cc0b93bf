"""Finding a model by name and reading it: a local file or folder, a hub id, or "demo"."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemotron_voice.errors import CheckpointFormatError, ModelNotFoundError
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.int8_store import fingerprint
from nemotron_voice.model.nemo_archive import read_nemo
from nemotron_voice.model.tokenizer import Tokenizer
from nemotron_voice.model.weights import check_weights

DEMO: Final = "demo"

_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
# Only what is read; a repository may hold the same weights in other formats as well.
_HUB_FILES: Final = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "tokenizer.json",
    "tokenizer.model",
)
_NO_MODEL: Final = (
    "give a .nemo file, a folder with config.json and model.safetensors, a hub id such as "
    "nvidia/nemotron-3.5-asr-streaming-0.6b, or `demo` (`--model demo`), the bundled checkpoint "
    "that needs no download"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as read, checked, and not yet on a device."""

    config: ModelConfig
    weights: Mapping[str, Tensor]  # by Transformers' names
    tokenizer: Tokenizer
    name: str  # what it was asked for by
    languages: tuple[str, ...]  # locales that it was trained for
    identity: str | None = None  # of its files; None: it is in no file


def load_checkpoint(
    model: str | Path, revision: str | None = None, *, offline: bool = False
) -> Checkpoint:
    """Read a model.

    Args:
        model: a `.nemo` file, a Hugging Face folder, a hub id `org/name`, or "demo".
        revision: branch, tag or commit on the hub.
        offline: take a hub model from the local cache only.

    Raises:
        ModelNotFoundError: there is none by that name, or the hub can't be reached.
        CheckpointError: it can't be used; one of its kinds says why.
    """
    name = str(model)
    if name == DEMO:
        folder = files("nemotron_voice") / "demo"
        if not (folder / "model.safetensors").is_file():
            raise ModelNotFoundError(
                "the bundled checkpoint isn't part of this installation; reinstall nemotron-voice "
                "from a wheel, or make it with training/ (see training/README.md)"
            )
        return _load_folder(Path(str(folder)), name)
    path = Path(model).expanduser()
    try:
        if path.is_dir():
            return _load_folder(path, name)
        if path.is_file():
            return _load_nemo(path, name)
    except OSError as error:
        raise CheckpointFormatError(f"{name} can't be read: {error}") from error
    if isinstance(model, str) and _HUB_ID.fullmatch(name) and not name.endswith(".nemo"):
        return _load_folder(fetch(name, revision, offline=offline), name)
    raise ModelNotFoundError(f"there is no model {name!r}: {_NO_MODEL}")


def _load_nemo(path: Path, name: str) -> Checkpoint:
    archive = read_nemo(path)
    tokenizer = Tokenizer.from_sentencepiece(archive.tokenizer)
    config = ModelConfig.from_nemo(archive.config, tokenizer.size)
    check_weights(archive.weights, config, name)
    return Checkpoint(
        config, archive.weights, tokenizer, name, config.languages, fingerprint([path])
    )


def _load_folder(folder: Path, name: str) -> Checkpoint:
    config = ModelConfig.from_huggingface(_read_json(folder / "config.json", name))
    shards = _shards(folder, name)
    weights = _read_weights(shards)
    check_weights(weights, config, name)
    tokenizer = _read_tokenizer(folder, config, name)
    return Checkpoint(config, weights, tokenizer, name, config.languages, fingerprint(shards))


def _read_json(path: Path, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{name} has no {path.name}: {_NO_MODEL}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointFormatError(
            f"{path} is no JSON ({error}); fetch the model again"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointFormatError(f"{path} is no JSON object; fetch the model again")
    return content


def _shards(folder: Path, name: str) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    if index.is_file():
        names = _read_json(index, name).get("weight_map")
        if not isinstance(names, Mapping):
            raise CheckpointFormatError(f"{index} has no weight_map; fetch the model again")
        return [_shard(folder, shard) for shard in sorted(set(names.values()))]
    raise ModelNotFoundError(f"{name} has no model.safetensors: {_NO_MODEL}")


def _read_weights(shards: list[Path]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as opened:
                weights |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointFormatError(
                f"{shard} can't be read ({error}); fetch the model again"
            ) from error
    return weights


def _shard(folder: Path, shard: Any) -> Path:
    if not isinstance(shard, str) or Path(shard).name != shard:
        raise CheckpointFormatError(
            f"{folder}: the index of the weights names {shard!r}, which is no file of the folder"
        )
    return folder / shard


def _read_tokenizer(folder: Path, config: ModelConfig, name: str) -> Tokenizer:
    sentencepiece, huggingface = folder / "tokenizer.model", folder / "tokenizer.json"
    if sentencepiece.is_file():
        tokenizer = Tokenizer.from_sentencepiece(sentencepiece.read_bytes())
    elif huggingface.is_file():
        tokenizer = Tokenizer.from_huggingface(
            huggingface.read_text(encoding="utf-8"), config.blank
        )
    else:
        raise ModelNotFoundError(
            f"{name} has neither tokenizer.model nor tokenizer.json; fetch the model again"
        )
    if tokenizer.size != config.blank:
        raise CheckpointFormatError(
            f"{name}: the tokenizer has {tokenizer.size} pieces, the network {config.blank}; "
            f"tokenizer and weights must come from one model"
        )
    return tokenizer


def fetch(name: str, revision: str | None = None, *, offline: bool = False) -> Path:
    """The folder of a hub id in the local cache, fetched if it isn't there.

    Raises:
        ModelNotFoundError: the hub has no such id or revision, or can't be reached.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - a second to import
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{name} at revision {revision}" if revision else name
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(_HUB_FILES), local_files_only=offline
            )
        )
    except LocalEntryNotFoundError as error:
        reason = (
            "is not in the local cache, and offline=True forbids the hub"
            if offline
            else "is not in the local cache, and the hub can't be reached"
        )
        raise ModelNotFoundError(f"{where} {reason}: {_NO_MODEL}") from error
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"the hub gives {where} only to those who accepted its terms there; do so, then `hf "
            f"auth login`, or take `--model demo`"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelNotFoundError(f"the hub has no {where}: {_NO_MODEL}") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelNotFoundError(
            f"{where} can't be fetched from the hub ({error}): {_NO_MODEL}"
        ) from error
