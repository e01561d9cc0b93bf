"""The ONNX files that sherpa-onnx takes: encoder with prompt, prediction network, joint.

NeMo's own export, the encoder int8 by ONNX Runtime's dynamic quantisation with unsigned weights, as
sherpa-onnx publishes it. The two small networks stay fp32: with one scale for a whole matrix, what
keeps our random weights to three tokens a second is rounded away, and they emit 125 (measured).
The mode is baked into the encoder, so there is a folder for each, made once beside the weights:
some two minutes and 0.7 GB.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.nemo_peer import made_up_pieces, whole_model
from benchmarks.peers.peer import LEFT_CONTEXT

FILES = {"encoder": "encoder.int8.onnx", "decoder": "decoder.onnx", "joiner": "joiner.onnx"}
INPUTS = ("audio_signal", "length", "cache_last_channel", "cache_last_time",
          "cache_last_channel_len", "prompt_index")  # fmt: skip
OUTPUTS = ("outputs", "encoded_lengths", "cache_last_channel_next", "cache_last_time_next",
           "cache_last_channel_next_len")  # fmt: skip
AUTO = 101  # prompt slot


class _Prompted(torch.nn.Module):
    """NeMo's streaming encoder, and the prompt kernel behind it with the slot as an input."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.kernel, self.slots = (
            model.encoder,
            model.prompt_kernel,
            model.num_prompts,
        )

    def forward(
        self, mel: torch.Tensor, length: torch.Tensor, *caches_and_slot: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        *caches, slot = caches_and_slot
        frames, *others = self.encoder.forward_for_export(mel, length, *caches)
        frames = frames.transpose(1, 2)
        prompt = torch.nn.functional.one_hot(slot, self.slots).to(frames.dtype)
        prompt = prompt[:, None].expand(-1, frames.shape[1], -1)
        return self.kernel(torch.cat([frames, prompt], -1)).transpose(1, 2), *others


def export(weights: Path, lookahead: int) -> Path:
    """The folder of one mode's files, made if it isn't there."""
    folder = weights / f"onnx-{lookahead}"
    if folder.exists():
        return folder
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = whole_model(weights)
    exact, part = weights / "onnx-fp32", folder.with_suffix(".part")
    for fresh in (exact, part):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
    sizes = _export_encoder(model, lookahead, exact / "encoder.onnx")
    for name, network in (("decoder", model.decoder), ("joiner", model.joint)):
        network.export(str(part / FILES[name]))
    pieces = model.decoder.vocab_size
    del model
    quantised = part / FILES["encoder"]
    quantize_dynamic(str(exact / "encoder.onnx"), str(quantised), weight_type=QuantType.QUInt8)
    _describe(quantised, sizes | {"vocab_size": pieces})
    (part / "tokens.txt").write_text(_tokens(pieces), encoding="utf-8")
    shutil.rmtree(exact)
    part.rename(folder)
    return folder


@torch.no_grad()
def _export_encoder(model: Any, lookahead: int, path: Path) -> dict[str, Any]:
    """Write the encoder; returns what sherpa-onnx wants to know of it."""
    encoder = model.encoder
    encoder.set_default_att_context_size([LEFT_CONTEXT, lookahead])
    model.set_export_config({"cache_support": True})
    shift = 8 * (lookahead + 1)
    window = encoder.streaming_cfg.pre_encode_cache_size[1] + shift
    layers, d_model = len(encoder.layers), encoder.d_model
    kept = encoder.conv_context_size[0]
    rows = 2  # with one, the masks are made for one only
    example = (
        torch.zeros(rows, 128, window),
        torch.full((rows,), window),
        torch.zeros(rows, layers, LEFT_CONTEXT, d_model),
        torch.zeros(rows, layers, d_model, kept),
        torch.zeros(rows, dtype=torch.int64),
        torch.full((rows,), AUTO),
    )
    torch.onnx.export(
        _Prompted(model).eval(),
        example,
        str(path),
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "batch"} for name in (*INPUTS, *OUTPUTS)},
        opset_version=17,
        dynamo=False,
    )
    return {
        "window_size": window,
        "chunk_shift": shift,
        "subsampling_factor": 8,
        "feat_dim": 128,
        "normalize_type": "",
        "pred_rnn_layers": model.decoder.pred_rnn_layers,
        "pred_hidden": model.decoder.pred_hidden,
        **_dimensions("cache_last_channel", layers, LEFT_CONTEXT, d_model),
        **_dimensions("cache_last_time", layers, d_model, kept),
        "model_type": "EncDecRNNTBPEModelWithPrompt",
        "prompt_dictionary": '{"auto": 101, "en-US": 0}',
        "auto_prompt_id": AUTO,
    }


def _dimensions(name: str, *sizes: int) -> dict[str, int]:
    return {f"{name}_dim{n}": size for n, size in enumerate(sizes, 1)}


def _describe(path: Path, facts: dict[str, Any]) -> None:
    """Put facts into a model's metadata."""
    import onnx

    model = onnx.load(str(path))
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.save(model, str(path))


def _tokens(pieces: int) -> str:
    """tokens.txt: a piece and its number a line, the blank last."""
    import sentencepiece

    spelled = sentencepiece.SentencePieceProcessor(model_proto=made_up_pieces(pieces + 1))
    lines = [f"{spelled.id_to_piece(n)} {n}" for n in range(pieces)]
    return "\n".join([*lines, f"<blk> {pieces}"]) + "\n"
