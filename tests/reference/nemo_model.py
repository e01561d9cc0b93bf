"""NeMo 3.0.0's own model with the weights of a tiny random network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nemotron_voice.model.tokenizer import Tokenizer
from tests.model.tiny import tiny_json, tokenizer_model

LOOKAHEADS = (0, 1, 3, 6, 13)


def nemo_config(tokenizer: Path, sizes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the configuration that a config.json describes, in NeMo's words."""
    sizes = sizes or tiny_json()
    encoder = sizes["encoder_config"]
    left = encoder["sliding_window"] - 1
    d_model, prediction = encoder["hidden_size"], sizes["decoder_hidden_size"]
    kind = "rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt"
    modules = "nemo.collections.asr.modules"
    return {
        "target": f"nemo.collections.asr.models.{kind}",
        "sample_rate": 16000,
        "compute_eval_loss": False,
        "log_prediction": False,
        "model_defaults": {
            "enc_hidden": d_model,
            "pred_hidden": prediction,
            "joint_hidden": prediction,
            "initialize_prompt_feature": True,
            "num_prompts": 128,
            "prompt_dictionary": {
                "en-US": 0,
                "en": 0,
                "es-ES": 2,
                "fr-FR": 8,
                "de-DE": 9,
                "pt-BR": 12,
                "it-IT": 15,
                "auto": 101,
            },
        },
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "preprocessor": {
            "_target_": f"{modules}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": "NA",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": encoder["num_mel_bins"],
            "n_fft": 512,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "encoder": {
            "_target_": f"{modules}.ConformerEncoder",
            "feat_in": encoder["num_mel_bins"],
            "feat_out": -1,
            "n_layers": encoder["num_hidden_layers"],
            "d_model": d_model,
            "use_bias": encoder["attention_bias"],
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": encoder["subsampling_conv_channels"],
            "causal_downsampling": True,
            "ff_expansion_factor": encoder["intermediate_size"] // d_model,
            "self_attention_model": "rel_pos",
            "n_heads": encoder["num_attention_heads"],
            "att_context_size": [
                [left, right] for right in reversed(LOOKAHEADS) if left % (right + 1) == 0
            ],
            "att_context_style": "chunked_limited",
            "xscaling": False,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 9,
            "conv_norm_type": "layer_norm",
            "conv_context_size": "causal",
            "dropout": 0.0,
            "dropout_pre_encoder": 0.0,
            "dropout_emb": 0.0,
            "dropout_att": 0.0,
        },
        "decoder": {
            "_target_": f"{modules}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {
                "pred_hidden": prediction,
                "pred_rnn_layers": 2,
                "t_max": None,
                "dropout": 0.0,
            },
        },
        "joint": {
            "_target_": f"{modules}.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "fused_batch_size": 2,
            "jointnet": {"joint_hidden": prediction, "activation": "relu", "dropout": 0.2},
        },
        "decoding": {
            "strategy": "greedy_batch",
            "strip_lang_tags": False,
            "greedy": {"max_symbols": 10},
        },
        "loss": {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0}},
        "optim": {"name": "adamw", "lr": 1e-3},
    }


# Ours to NeMo's; the way back is weights.from_nemo_name.
_NEMO_NAMES = (
    ("encoder.subsampling.conv_in.", "encoder.pre_encode.conv.0."),
    ("encoder.subsampling.layers.0.depthwise_conv.", "encoder.pre_encode.conv.2."),
    ("encoder.subsampling.layers.0.pointwise_conv.", "encoder.pre_encode.conv.3."),
    ("encoder.subsampling.layers.1.depthwise_conv.", "encoder.pre_encode.conv.5."),
    ("encoder.subsampling.layers.1.pointwise_conv.", "encoder.pre_encode.conv.6."),
    ("encoder.subsampling.linear.", "encoder.pre_encode.out."),
    (".self_attn.q_proj.", ".self_attn.linear_q."),
    (".self_attn.k_proj.", ".self_attn.linear_k."),
    (".self_attn.v_proj.", ".self_attn.linear_v."),
    (".self_attn.o_proj.", ".self_attn.linear_out."),
    (".self_attn.relative_k_proj.", ".self_attn.linear_pos."),
    (".self_attn.bias_", ".self_attn.pos_bias_"),
    (".conv.norm.", ".conv.batch_norm."),
    ("prompt_projector.linear_1.", "prompt_kernel.0."),
    ("prompt_projector.linear_2.", "prompt_kernel.2."),
    ("decoder.embedding.", "decoder.prediction.embed."),
    ("decoder.lstm.", "decoder.prediction.dec_rnn.lstm."),
    ("decoder.decoder_projector.", "joint.pred."),
    ("encoder_projector.", "joint.enc."),
    ("joint.head.", "joint.joint_net.2."),
)


def to_nemo_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights as NeMo's state dict has them."""
    renamed = {}
    for name, tensor in weights.items():
        for ours, theirs in _NEMO_NAMES:
            if ours in name:
                name = name.replace(ours, theirs)  # noqa: PLW2901
                break
        renamed[name] = tensor
    return renamed


def build(
    folder: Path,
    weights: Mapping[str, Tensor],
    sizes: dict[str, Any] | None = None,
    tokenizer: bytes | None = None,
) -> Any:
    """Build NeMo's model of `weights` (by our names)."""
    from nemo.collections.asr.models import EncDecRNNTBPEModelWithPrompt
    from omegaconf import OmegaConf

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or tokenizer_model()
    (folder / "tokenizer.model").write_bytes(tokenizer)
    size = Tokenizer.from_sentencepiece(tokenizer).size
    (folder / "vocab.txt").write_text("\n".join(f"piece{index}" for index in range(size)))
    config = nemo_config(folder, sizes)
    model = EncDecRNNTBPEModelWithPrompt(cfg=OmegaConf.create(config))
    model.eval()
    missing = model.load_state_dict(to_nemo_names(weights), strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("preprocessor.") for name in missing.missing_keys)
    return model


@dataclass(frozen=True)
class Heard:
    """What NeMo makes of an utterance."""

    frames: Tensor  # [frames, d_model], after the prompt
    tokens: list[tuple[int, int]]  # token and frame


def whole(model: Any, audio: np.ndarray, lookahead: int, language: str, left: int = 56) -> Heard:
    """Decode the whole utterance at once, with the mask of the latency mode."""
    buffer = _buffer(model, audio, lookahead, language, left)
    signal, length = buffer.get_all_audios()
    with torch.inference_mode(), _frames_after_prompt(model) as frames:
        result = model.conformer_stream_step(
            processed_signal=signal,
            processed_signal_length=length,
            return_transcription=True,
        )
    return _heard(frames, result[0], result[5])


def stream(model: Any, audio: np.ndarray, lookahead: int, language: str, left: int = 56) -> Heard:
    """Stream the utterance with `conformer_stream_step`."""
    buffer = _buffer(model, audio, lookahead, language, left)
    drop = model.encoder.streaming_cfg.drop_extra_pre_encoded
    channel, time, length = model.encoder.get_initial_cache_state(batch_size=1)
    hypotheses = predicted = None
    with torch.inference_mode(), _frames_after_prompt(model) as frames:
        for step, (chunk, chunk_length) in enumerate(iter(buffer)):
            predicted, _, channel, time, length, hypotheses = model.conformer_stream_step(
                processed_signal=chunk,
                processed_signal_length=chunk_length,
                cache_last_channel=channel,
                cache_last_time=time,
                cache_last_channel_len=length,
                keep_all_outputs=buffer.is_buffer_empty(),
                previous_hypotheses=hypotheses,
                previous_pred_out=predicted,
                drop_extra_pre_encoded=drop if step else 0,
                return_transcription=True,
            )
    return _heard(frames, predicted, hypotheses)


def _heard(frames: list[Tensor], predicted: Any, hypotheses: Any) -> Heard:
    tokens = predicted[0].tolist()
    return Heard(
        torch.cat(frames), list(zip(tokens, map(int, hypotheses[0].timestamp), strict=True))
    )


def _buffer(model: Any, audio: np.ndarray, lookahead: int, language: str, left: int) -> Any:
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

    model.encoder.set_default_att_context_size([left, lookahead])
    model.set_inference_prompt(language)
    buffer = CacheAwareStreamingAudioBuffer(
        model=model, online_normalization=False, pad_and_drop_preencoded=False
    )
    buffer.append_audio(audio, stream_id=-1)
    return buffer


@contextmanager
def _frames_after_prompt(model: Any) -> Iterator[list[Tensor]]:
    frames: list[Tensor] = []
    hook = model.prompt_kernel.register_forward_hook(lambda _m, _i, out: frames.append(out[0]))
    try:
        yield frames
    finally:
        hook.remove()
