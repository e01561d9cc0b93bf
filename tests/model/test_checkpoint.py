"""A model is found by its name, read from every form it comes in, and checked strictly."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from nemotron_voice.errors import (
    CheckpointFormatError,
    ConfigurationError,
    MissingWeightError,
    ModelNotFoundError,
    UnexpectedWeightError,
    WeightShapeError,
)
from nemotron_voice.model import checkpoint as checkpoint_module
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.config import ModelConfig
from nemotron_voice.model.network import Network
from nemotron_voice.model.transducer import Emission
from tests.model.tiny import (
    PIECES,
    TAGS,
    random_weights,
    stream,
    sweep,
    tiny_json,
    tiny_network,
    write_folder,
)

WEIGHTS = random_weights(ModelConfig.from_huggingface(tiny_json()))
AUDIO = sweep(2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tiny", tiny_json(), WEIGHTS)


def tokens(checkpoint):
    return stream(Network(checkpoint.weights, checkpoint.config), AUDIO, 3, 9)[1]


def test_a_folder_gives_the_network_that_was_saved(folder):
    checkpoint = load_checkpoint(folder)
    assert checkpoint.name == str(folder)
    assert len(checkpoint.languages) == 40
    assert checkpoint.tokenizer.size == PIECES
    assert_same_tokens(tokens(checkpoint), stream(tiny_network(), AUDIO, 3, 9)[1])


def assert_same_tokens(some: list[Emission], others: list[Emission]) -> None:
    """Tokens exactly; confidences but for the last bits.

    Weights that are mapped from a file lie at any alignment, and MKL then sums a small product of
    the decoder in another order (measured with AVX2: 4e-7; copies at 64 bytes give the same bits).
    """
    assert [(one.token_id, one.frame) for one in some] == [(o.token_id, o.frame) for o in others]
    confidences = [other.confidence for other in others]
    assert [one.confidence for one in some] == pytest.approx(confidences, abs=1e-5)


def test_weights_in_several_files_are_put_together(folder):
    (folder / "model.safetensors").unlink()
    names = sorted(WEIGHTS)
    places = {f"model-0000{part}-of-00002.safetensors": names[part - 1 :: 2] for part in (1, 2)}
    for file, some in places.items():
        save_file({name: WEIGHTS[name] for name in some}, folder / file)
    index = {"weight_map": {name: file for file, some in places.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_tokens(tokens(load_checkpoint(folder)), stream(tiny_network(), AUDIO, 3, 9)[1])


def test_an_index_that_points_out_of_its_folder_is_refused(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"joint.head.bias": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointFormatError, match="elsewhere"):
        load_checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_disk_is_computed_in_fp32(folder, dtype):
    save_file({k: v.to(dtype) for k, v in WEIGHTS.items()}, folder / "model.safetensors")
    rounded = {name: tensor.to(dtype).float() for name, tensor in WEIGHTS.items()}
    network = Network(rounded, ModelConfig.from_huggingface(tiny_json()))
    torch.testing.assert_close(
        stream(Network(load_checkpoint(folder).weights, network.config), AUDIO, 3, 9)[0],
        stream(network, AUDIO, 3, 9)[0],
    )


@pytest.mark.parametrize("model", ["Unigram", "BPE"])
def test_pieces_are_read_from_a_tokenizer_json(folder, model):
    reference = load_checkpoint(folder).tokenizer
    (folder / "tokenizer.model").unlink()
    pieces = ["<unk>"] + [reference.piece(index) for index in range(1, PIECES)]
    vocabulary = (
        [[piece, 0.0] for piece in pieces]
        if model == "Unigram"
        else {piece: index for index, piece in enumerate(pieces)}
    )
    unknown = {"unk_id": 0} if model == "Unigram" else {"unk_token": "<unk>"}
    content = {
        "model": {"type": model, "vocab": vocabulary} | unknown,
        "added_tokens": [{"id": 1, "content": TAGS[0]}, {"id": PIECES, "content": "<blank>"}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_checkpoint(folder).tokenizer
    for index in range(PIECES):
        assert tokenizer.piece(index) == reference.piece(index)
        assert tokenizer.tag(index) == reference.tag(index)


def test_a_tokenizer_json_with_holes_is_refused(folder):
    (folder / "tokenizer.model").unlink()
    content = {"model": {"type": "Unigram", "vocab": [["a", 0.0]] * 90}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointFormatError, match="96 pieces"):
        load_checkpoint(folder)


def test_a_tokenizer_of_another_size_is_refused(tmp_path):
    sizes = tiny_json(vocab_size=98, blank_token_id=97)
    weights = random_weights(ModelConfig.from_huggingface(sizes))
    with pytest.raises(CheckpointFormatError, match="96 pieces, the network 97"):
        load_checkpoint(write_folder(tmp_path / "m", sizes, weights))


def test_a_checkpoint_can_say_which_languages_it_has(folder):
    sizes = tiny_json(languages=["en-US", "pt-BR"])
    (folder / "config.json").write_text(json.dumps(sizes))
    assert load_checkpoint(folder).languages == ("en-US", "pt-BR")
    (folder / "config.json").write_text(json.dumps(tiny_json(languages=["klingon"])))
    with pytest.raises(CheckpointFormatError, match="klingon"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"joint.head.bias": None}, MissingWeightError, r"lacks joint\.head\.bias;.*again"),
        ({"extra.weight": torch.ones(2)}, UnexpectedWeightError, r"has extra\.weight, which"),
        (
            {"joint.head.bias": torch.ones(3)},
            WeightShapeError,
            r"joint\.head\.bias \[3\] instead of \[97\]",
        ),
    ],
)
def test_weights_are_checked_strictly(folder, change, error, says):
    changed = {name: tensor for name, tensor in (WEIGHTS | change).items() if tensor is not None}
    save_file(changed, folder / "model.safetensors")
    with pytest.raises(error, match=says):
        load_checkpoint(folder)


def test_damaged_files_are_named(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointFormatError, match=r"model\.safetensors can't be read"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointFormatError, match=r"config\.json is no JSON"):
        load_checkpoint(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.model"])
def test_a_folder_without_a_file_says_which(folder, file):
    (folder / file).unlink()
    with pytest.raises(ModelNotFoundError, match=file):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "whisper"},
        {"hidden_act": "gelu"},
        {"num_prompts": "many"},
        {"encoder": {"subsampling_factor": 4}},
        {"encoder": {"num_attention_heads": 7}},
        {"encoder": {"sliding_window": True}},
        {"num_prompts": 64},  # `auto` is the slot 101
        {"num_decoder_layers": 0},
        {"encoder": {"num_hidden_layers": 0}},
        {"encoder": {"conv_kernel_size": 0}},
        {"encoder": {"sliding_window": 0}},
        {"encoder": {"hidden_size": 65, "num_attention_heads": 5}},
        {"encoder_config": None},
    ],
)
def test_another_architecture_is_refused(change):
    with pytest.raises(CheckpointFormatError):
        ModelConfig.from_huggingface(tiny_json(**change))


@pytest.mark.parametrize("name", ["no-such-model", "./nowhere.nemo", "a/b/c", "/no/such"])
def test_a_name_that_is_nothing_here_says_what_can_be_given(name):
    with pytest.raises(ModelNotFoundError, match="--model demo"):
        load_checkpoint(name)


def test_a_hub_model_is_fetched_by_its_files_and_revision(folder, monkeypatch):
    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    checkpoint = load_checkpoint("some/model", "v1", offline=True)
    assert checkpoint.name == "some/model"
    assert asked["repo_id"] == "some/model"
    assert asked["revision"] == "v1"
    assert asked["local_files_only"] is True
    assert not any(".nemo" in pattern for pattern in asked["allow_patterns"])


@pytest.mark.parametrize(
    ("error", "offline", "says"),
    [
        (LocalEntryNotFoundError("x"), True, "offline=True.*--model demo"),
        (LocalEntryNotFoundError("x"), False, "can't be reached.*--model demo"),
        (ConnectionError("no network"), False, "no network.*--model demo"),
    ],
)
def test_a_hub_that_cannot_be_reached_names_the_remedy(monkeypatch, error, offline, says):
    def snapshot_download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelNotFoundError, match=says):
        load_checkpoint("some/model", offline=offline)


def test_a_missing_bundled_checkpoint_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "files", lambda _: tmp_path)
    with pytest.raises(ModelNotFoundError, match="reinstall nemotron-voice"):
        load_checkpoint("demo")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(folder):
    with pytest.raises(ConfigurationError, match=r"device='cuda'.*'cpu' or 'auto'"):
        Network.from_checkpoint(load_checkpoint(folder), device="cuda")


def test_a_precision_that_does_not_exist_is_refused(folder):
    with pytest.raises(ConfigurationError, match="'fp8' is not one of"):
        Network.from_checkpoint(load_checkpoint(folder), device="cpu", precision="fp8")


def test_offline_mode_really_asks_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="local cache"):
        load_checkpoint("nvidia/nemotron-3.5-asr-streaming-0.6b", offline=True)
