"""The demo network: NeMo's own class and configuration at a small size, and its initialisation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_DISABLE_CUDA", "1")

import torch
from torch import nn

from nemotron_voice.languages import AUTO_PROMPT_INDEX, PROMPT_DICTIONARY

LANGUAGES = ("en-US", "es-ES", "fr-FR", "it-IT", "pt-BR")
LOOKAHEADS = (3, 0, 1, 6, 13)  # the first is the default: 320 ms
LEFT_CONTEXT = 56
D_MODEL, LAYERS, HEADS, CHANNELS = 192, 8, 4, 48
PREDICTION_HIDDEN = 192  # Transformers has one size for prediction network and joint
PROMPTS = 128
MEL_MEAN, MEL_STD = -11.0, 4.4  # of the training clips' log-mel, silence included


def build_config(tokenizer_dir: Path) -> dict[str, Any]:
    """The NeMo configuration: the released checkpoint's, but for the sizes."""
    return {
        "target": "nemo.collections.asr.models.rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt",
        "sample_rate": 16000,
        "compute_eval_loss": False,
        "log_prediction": False,
        "model_defaults": {
            "enc_hidden": D_MODEL,
            "pred_hidden": PREDICTION_HIDDEN,
            "joint_hidden": PREDICTION_HIDDEN,
            "initialize_prompt_feature": True,
            "num_prompts": PROMPTS,
            "prompt_dictionary": {**PROMPT_DICTIONARY, "auto": AUTO_PROMPT_INDEX},
        },
        "tokenizer": {"dir": str(tokenizer_dir), "type": "bpe"},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": "NA",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": 128,
            "n_fft": 512,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": 128,
            "feat_out": -1,
            "n_layers": LAYERS,
            "d_model": D_MODEL,
            "use_bias": False,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": CHANNELS,
            "causal_downsampling": True,
            "ff_expansion_factor": 4,
            "self_attention_model": "rel_pos",
            "n_heads": HEADS,
            "att_context_size": [[LEFT_CONTEXT, right] for right in LOOKAHEADS],
            "att_context_style": "chunked_limited",
            "xscaling": False,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 9,
            "conv_norm_type": "layer_norm",
            "conv_context_size": "causal",
            "dropout": 0.1,
            "dropout_pre_encoder": 0.0,
            "dropout_emb": 0.0,
            "dropout_att": 0.0,
        },
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {
                "pred_hidden": PREDICTION_HIDDEN,
                "pred_rnn_layers": 2,
                "t_max": None,
                "dropout": 0.0,
            },
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "fused_batch_size": 2,
            "jointnet": {
                "joint_hidden": PREDICTION_HIDDEN,
                "activation": "relu",
                "dropout": 0.0,
            },
        },
        "decoding": {
            "strategy": "greedy_batch",
            "strip_lang_tags": False,
            "greedy": {"max_symbols": 10},
        },
        "loss": {
            "loss_name": "default",
            "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0},
        },
        "optim": {"name": "adamw", "lr": 1e-3},
    }


class LockedDropout(nn.Module):
    """Dropout of whole channels of a clip: one mask for all its frames.

    On a CPU `nn.Dropout` draws a number for every element, a sixth of the whole training step.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mask `x` [batch, frames, channels] while training."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.dim() - 2) + (x.shape[-1],)
        return x * (torch.rand(shape, device=x.device) < keep).to(x.dtype).div(keep)


def unmasked_front(layers: nn.Sequential) -> nn.Sequential:
    """NeMo's subsampling convolutions for training on a CPU: the same modules and weights.

    Every row of a batch is full, so nothing is masked; and with channels last in fp32, oneDNN's
    gradient of a depthwise convolution takes a quarter of its time with channels first in bf16
    (80 against 320 ms for 10 rows of 4 s, measured).
    """
    from nemo.collections.asr.parts.submodules.subsampling import MaskedConvSequential

    class UnmaskedFront(MaskedConvSequential):  # type: ignore[misc]
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[Any, torch.Tensor]:
            if not self.training:
                masked: tuple[Any, torch.Tensor] = super().forward(x, lengths)
                return masked
            with torch.autocast(x.device.type, enabled=False):
                # A tensor of one channel has no order of channels: the weights bring it in.
                x = x.float().unsqueeze(1)
                for layer in self:
                    x = layer(x)
            return x, torch.full_like(lengths, x.shape[2])

    for layer in layers:
        layer.to(memory_format=torch.channels_last)
    return UnmaskedFront(*layers)


def build_model(tokenizer_dir: Path, *, seed: int = 0) -> Any:
    """The NeMo model with initial weights."""
    import logging

    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.ERROR)
    from nemo.collections.asr.models import EncDecRNNTBPEModelWithPrompt
    from omegaconf import OmegaConf

    torch.manual_seed(seed)
    model = EncDecRNNTBPEModelWithPrompt(
        cfg=OmegaConf.create(build_config(tokenizer_dir)), trainer=None
    )
    initialise(model)
    model.encoder.pre_encode.conv = unmasked_front(model.encoder.pre_encode.conv)
    for module in list(model.encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, LockedDropout(child.p))
    return model


def initialise(model: Any) -> None:
    """Let the audio through: see README.md, "Initialisation"."""
    front = model.encoder.pre_encode
    with torch.no_grad():
        convolutions = [m for m in front.modules() if isinstance(m, nn.Conv2d)]
        for index, conv in enumerate(convolutions):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            # a depthwise stage has no ReLU behind it: it is followed by a pointwise one
            if conv.groups > 1:
                conv.weight.mul_(0.5**0.5)
            nn.init.zeros_(conv.bias)
            if index == 0:
                conv.weight.div_(MEL_STD)
                conv.bias.sub_(conv.weight.sum((1, 2, 3)) * MEL_MEAN)
        nn.init.xavier_uniform_(front.out.weight)
        if front.out.bias is not None:
            nn.init.zeros_(front.out.bias)
        # Every branch begins silent, so that the layers hand the audio through unchanged.
        for layer in model.encoder.layers:
            for last in (
                layer.feed_forward1.linear2,
                layer.self_attn.linear_out,
                layer.conv.pointwise_conv2,
                layer.feed_forward2.linear2,
            ):
                nn.init.zeros_(last.weight)
        for module in model.prompt_kernel.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)


def stage_variation(model: Any, mel: torch.Tensor) -> dict[str, tuple[float, float]]:
    """How much each stage's output varies over clips and over frames, and its size.

    `mel` [clips, 128, frames]. For each stage: (deviation over clips, mean magnitude). A stage
    whose deviation is a hundredth of its size drowns the audio in constants.
    """
    outputs: dict[str, tuple[float, float]] = {"mel": _variation(mel.transpose(1, 2))}
    hooks = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_m: nn.Module, _i: object, out: Any) -> None:
            value = out[0] if isinstance(out, tuple) else out
            outputs[name] = _variation(value)

        hooks.append(module.register_forward_hook(hook))

    watch("subsampling", model.encoder.pre_encode)
    for index, layer in enumerate(model.encoder.layers):
        watch(f"layer {index}", layer)
    watch("prompt", model.prompt_kernel)
    model.eval()
    with torch.no_grad():
        length = torch.full((mel.shape[0],), mel.shape[2])
        encoded, _ = model.encoder(audio_signal=mel, length=length)
        add_prompt(model, encoded.transpose(1, 2), torch.full((mel.shape[0],), AUTO_PROMPT_INDEX))
    model.train()
    for handle in hooks:
        handle.remove()
    return outputs


def _variation(value: torch.Tensor) -> tuple[float, float]:
    return value.float().std(0).mean().item(), value.float().abs().mean().item()


def add_prompt(model: Any, encoded: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """The prompt kernel over [batch, frames, d_model], in fp32: prompt [batch] of slot numbers."""
    with torch.autocast(encoded.device.type, enabled=False):
        one_hot = nn.functional.one_hot(prompt, PROMPTS).to(torch.float32)
        one_hot = one_hot[:, None, :].expand(-1, encoded.shape[1], -1)
        fused: torch.Tensor = model.prompt_kernel(torch.cat([encoded.float(), one_hot], -1))
    return fused
