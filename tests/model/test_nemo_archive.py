"""A .nemo is read without NeMo, and a hostile or damaged one is refused by name."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nemotron_voice.errors import (
    CheckpointFormatError,
    MissingWeightError,
    ModelError,
    UnexpectedWeightError,
    UnsafeArchiveError,
    WeightShapeError,
)
from nemotron_voice.model import nemo_archive
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.features import mel_filters
from nemotron_voice.model.network import Network
from tests.model.tiny import random_weights, stream, sweep, tiny_json, tokenizer_model
from tests.reference.nemo_model import nemo_config, to_nemo_names

# Those of the prompt dictionary, in the order of our table.
LANGUAGES = ("en-US", "es-ES", "fr-FR", "it-IT", "pt-BR", "de-DE")
HEX = "0123456789abcdef0123456789abcdef"
CONFIG = ModelConfig.from_huggingface(tiny_json())


def nemo_weights() -> dict[str, torch.Tensor]:
    return to_nemo_names(random_weights(CONFIG)) | {
        "preprocessor.featurizer.window": torch.hann_window(400, periodic=False),
        "preprocessor.featurizer.fb": mel_filters(128)[None],
    }


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@cache
def default_weights() -> bytes:
    return saved(nemo_weights())


def members(**changes: bytes) -> dict[str, bytes]:
    return {
        "./model_config.yaml": yaml.safe_dump(nemo_config(Path("/tokenizer"))).encode(),
        "./model_weights.ckpt": changes.get("weights") or default_weights(),
        f"./{HEX}_tokenizer.model": tokenizer_model(),
        f"./{HEX}_vocab.txt": b"piece\n",
    }


def pack(path: Path, content: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo(".")
        folder.type = tarfile.DIRTYPE
        folder.mtime = 1.5  # as NeMo's, so that Python writes an extension header
        archive.addfile(folder)
        for name, payload in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            archive.addfile(member, io.BytesIO(payload))
        for member in extra:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.nemo"


def test_an_archive_gives_the_same_network_as_its_weights(path):
    checkpoint = load_checkpoint(pack(path, members()))
    assert checkpoint.config == ModelConfig.from_huggingface(tiny_json(languages=list(LANGUAGES)))
    assert checkpoint.languages == LANGUAGES
    assert checkpoint.tokenizer.tag(1) == "en-US"
    audio = sweep(2)
    ours = Network(checkpoint.weights, checkpoint.config)
    theirs = Network(random_weights(CONFIG), CONFIG)
    assert stream(ours, audio, 3, 9)[1] == stream(theirs, audio, 3, 9)[1]


def test_a_gzipped_archive_is_read_too(path):
    pack(path, members())
    path.write_bytes(gzip.compress(path.read_bytes(), 1))
    assert load_checkpoint(path).tokenizer.size == 96


def entry(name: str, kind: bytes = tarfile.REGTYPE, **settings: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in settings.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (entry("/etc/passwd"), "/etc/passwd"),
        (entry("/model_config.yaml"), "/model_config.yaml"),
        (entry("../model_config.yaml"), r"\.\./model_config"),
        (entry("./../model_config.yaml"), r"\.\./model_config"),
        (entry("a/../model_config.yaml"), "a/"),
        (entry("././model_config.yaml"), r"\./"),
        (entry("extra.py"), "extra.py"),
        (entry(f"{HEX}_lexicon.txt"), "lexicon"),
        (entry("deadbeef_tokenizer.model"), "deadbeef"),
        (entry("vocab.txt"), "two members"),
        (entry("model_config.yaml"), "two members"),
        (entry("tokenizer.vocab", tarfile.SYMTYPE, linkname="/etc/passwd"), "no regular file"),
        (entry("tokenizer.vocab", tarfile.LNKTYPE, linkname="model_config.yaml"), "no regular"),
        (entry("tokenizer.vocab", tarfile.CHRTYPE), "no regular file"),
        (entry("tokenizer.vocab", tarfile.FIFOTYPE), "no regular file"),
        (entry("tokenizer.vocab", tarfile.GNUTYPE_SPARSE), "no regular file"),
        (entry("folder", tarfile.DIRTYPE), "no regular file"),
        (entry("x" * 200), "extension|no regular file"),
        (entry("tokenizer.vocab", pax_headers={"size": "1"}), "sets 'size'"),
        (entry("tokenizer.vocab", pax_headers={"path": "/etc/passwd"}), "sets 'path'"),
        (entry("tokenizer.vocab", pax_headers={"linkpath": "/etc/passwd"}), "sets 'linkpath'"),
        (entry("tokenizer.vocab", pax_headers={"comment": "x" * 70_000}), "extension header of"),
    ],
)
def test_a_member_that_no_checkpoint_needs_is_refused(path, member, says):
    pack(path, members(), member)
    with pytest.raises(UnsafeArchiveError, match=says):
        load_checkpoint(path)


def test_a_member_beyond_its_limit_is_refused_before_it_is_read(path, monkeypatch):
    monkeypatch.setitem(nemo_archive._LIMITS, "tokenizer.model", 1000)
    with pytest.raises(UnsafeArchiveError, match="at most 1000 are allowed"):
        load_checkpoint(pack(path, members()))


def test_a_size_that_the_file_does_not_have_is_a_damaged_file(path):
    header = entry("./model_weights.ckpt", size=1 << 32).tobuf()
    path.write_bytes(header + bytes(1024))
    with pytest.raises(CheckpointFormatError, match="cut off"):
        load_checkpoint(path)


@pytest.mark.parametrize("size", [b"-1", b"-1000", b"+1", b"1_0"])
def test_a_size_that_is_no_plain_number_is_a_damaged_file(path, size, monkeypatch):
    """Read, a size of -1 is everything: far beyond the member's limit."""
    monkeypatch.setattr(
        nemo_archive, "_read_exactly", limited(nemo_archive._read_exactly, nemo_archive._BLOCK)
    )
    header = bytearray(entry("vocab.txt").tobuf())
    header[124:136] = size.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(100_000))
    with pytest.raises(CheckpointFormatError, match="is no number"):
        load_checkpoint(path)


def limited(read: Callable[..., bytes], most: int) -> Callable[..., bytes]:
    def checked(stream: Any, size: int, path: Path) -> bytes:
        assert 0 <= size <= most
        return read(stream, size, path)

    return checked


class Hostile:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return (exec, ("raise SystemExit('code ran')",))


def test_code_in_the_pickle_is_not_run(path):
    with pytest.raises(UnsafeArchiveError, match="code in it isn't run"):
        load_checkpoint(pack(path, members(weights=saved(nemo_weights() | {"x": Hostile()}))))


def test_compressed_weights_are_not_unpacked(path):
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(default_weights())) as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    with pytest.raises(UnsafeArchiveError, match="compressed entries"):
        load_checkpoint(pack(path, members(weights=packed.getvalue())))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda w: w.pop("joint.enc.bias"), MissingWeightError, "lacks encoder_projector.bias"),
        (
            lambda w: w.update({"encoder.layers.7.norm_out.weight": torch.ones(64)}),
            UnexpectedWeightError,
            r"encoder\.layers\.7\.norm_out\.weight",
        ),
        (
            lambda w: w.update({"ctc_decoder.weight": torch.ones(3)}),
            UnexpectedWeightError,
            "ctc_decoder",
        ),
        (
            lambda w: w.update({"joint.enc.bias": torch.ones(31)}),
            WeightShapeError,
            r"encoder_projector.bias \[31\] instead of \[32\]",
        ),
        (
            lambda w: w.update({"joint.joint_net.1.bias": torch.ones(97)}),
            UnexpectedWeightError,
            "beside another tensor",
        ),
        (
            lambda w: w.update({"preprocessor.featurizer.window": torch.hann_window(400)}),
            CheckpointFormatError,
            "hear something else",
        ),
        (
            lambda w: w.update({"preprocessor.featurizer.fb": torch.ones(1, 128, 257)}),
            CheckpointFormatError,
            "hear something else",
        ),
    ],
)
def test_weights_are_checked_strictly(path, change, error, says):
    weights = nemo_weights()
    change(weights)
    with pytest.raises(error, match=says):
        load_checkpoint(pack(path, members(weights=saved(weights))))


@pytest.mark.parametrize("arithmetic", ["fp32", "int8"])
def test_weights_of_any_strides_are_the_same_network(path, arithmetic):
    """C reads biases, norms and their like straight through."""
    plain, strided = nemo_weights(), nemo_weights()
    for name, weight in strided.items():
        if not name.startswith("preprocessor."):
            strided[name] = torch.stack([weight, weight], -1)[..., 0]  # every other number
    networks = []
    for weights in (plain, strided):
        checkpoint = load_checkpoint(pack(path, members(weights=saved(weights))))
        networks.append(Network(checkpoint.weights, checkpoint.config, arithmetic=arithmetic))
    frames = [stream(network, sweep(2.0), 3, 9)[0] for network in networks]
    assert torch.equal(*frames)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_cut_off_archive_is_a_damaged_file(path, keep, zipped):
    content = pack(path, members()).read_bytes()
    content = gzip.compress(content, 1) if zipped else content
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointFormatError, match=r"cut off|damaged|archive"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(10_000), b"PK\x03\x04" + bytes(2000)])
def test_what_is_no_archive_says_so(path, content):
    path.write_bytes(content)
    with pytest.raises(CheckpointFormatError):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("encoder", "conv_norm_type", "batch_norm", "conv_norm_type is 'batch_norm'"),
        ("encoder", "causal_downsampling", False, "causal_downsampling is False"),
        ("encoder", "att_context_size", [[56, 3], [70, 0]], "of one left context"),
        ("preprocessor", "normalize", "per_feature", "normalize is 'per_feature'"),
        ("encoder", "n_heads", 5, "heads must divide"),
        ("encoder", "n_layers", "two", "a size is due"),
    ],
)
def test_another_architecture_is_refused_by_its_setting(path, section, key, value, says):
    config = nemo_config(Path("/tokenizer"))
    config[section][key] = value
    content = members() | {"./model_config.yaml": yaml.safe_dump(config).encode()}
    with pytest.raises(CheckpointFormatError, match=says):
        load_checkpoint(pack(path, content))


def test_a_configuration_that_would_build_objects_is_refused(path):
    content = members() | {"./model_config.yaml": b"a: !!python/object/apply:os.system [ls]\n"}
    with pytest.raises(CheckpointFormatError, match="no plain YAML"):
        load_checkpoint(pack(path, content))


@pytest.mark.parametrize("part", [b"model_config", b"PK\x03\x04", b"data.pkl", b"PK\x01\x02"])
def test_damaged_bytes_end_in_no_other_error(path, part):
    """Bytes changed in headers, zip records and the pickle: it loads, or one of our errors says."""
    whole = pack(path, members()).read_bytes()
    generator = random.Random(part)
    start = whole.index(part)
    for _ in range(8):
        damaged = bytearray(whole)
        for _ in range(generator.choice((1, 2, 8))):
            damaged[start + generator.randrange(2000)] = generator.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ModelError):
            load_checkpoint(path)
