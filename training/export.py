"""Write the trained network as the package ships it, as a `.nemo`, and prove that both load.

One command: `python -m training.export --work build/training`. The folder has the layout of the
Hugging Face checkpoint (Transformers' configuration keys and weight names); weights are stored in
fp16, rounded once, so that what is loaded is what was evaluated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from nemotron_voice.languages import AUTO_PROMPT_INDEX
from nemotron_voice.model.weights import from_nemo_name
from training.checkpoint import load_weights, open_model
from training.model_config import (
    CHANNELS,
    D_MODEL,
    HEADS,
    LANGUAGES,
    LAYERS,
    LEFT_CONTEXT,
    LOOKAHEADS,
    PREDICTION_HIDDEN,
    PROMPTS,
    add_prompt,
)

LIMIT_BYTES = 20_000_000


def huggingface_config(pieces: int) -> dict[str, Any]:
    """config.json of `Nemotron3_5AsrConfig`, and what this project adds to it."""
    return {
        "architectures": ["Nemotron3_5AsrForRNNT"],
        "model_type": "nemotron3_5_asr",
        "dtype": "float32",
        "vocab_size": pieces + 1,
        "blank_token_id": pieces,
        "decoder_start_token_id": pieces,
        "pad_token_id": 0,
        "decoder_hidden_size": PREDICTION_HIDDEN,
        "num_decoder_layers": 2,
        "hidden_act": "relu",
        "max_symbols_per_step": 10,
        "is_encoder_decoder": True,
        "num_prompts": PROMPTS,
        "prompt_intermediate_size": 2 * D_MODEL,
        "default_prompt_id": AUTO_PROMPT_INDEX,
        "encoder_config": {
            "model_type": "nemotron_asr_streaming_encoder",
            "hidden_size": D_MODEL,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "intermediate_size": 4 * D_MODEL,
            "hidden_act": "silu",
            "attention_bias": False,
            "convolution_bias": False,
            "scale_input": False,
            "conv_kernel_size": 9,
            "subsampling_factor": 8,
            "subsampling_conv_channels": CHANNELS,
            "subsampling_conv_kernel_size": 3,
            "subsampling_conv_stride": 2,
            "num_mel_bins": 128,
            "max_position_embeddings": 5000,
            "sliding_window": LEFT_CONTEXT + 1,
            "default_num_lookahead_tokens": LOOKAHEADS[0],
            "dropout": 0.0,
            "activation_dropout": 0.0,
            "attention_dropout": 0.0,
            "layerdrop": 0.0,
        },
        "languages": list(LANGUAGES),
        "supported_num_lookahead_tokens": list(LOOKAHEADS),
    }


def export(work: Path, folder: Path, nemo_file: Path) -> int:
    """Write both forms, each whole or not at all; returns the step that the weights are of."""
    model, _ = open_model(work)
    state = load_weights(work, model)
    weights = {
        from_nemo_name(name): value.to(torch.float16).contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith("preprocessor.")
    }
    config = huggingface_config(model.joint.num_classes_with_blank - 1)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        made = Path(name)
        text = json.dumps(config, indent=2) + "\n"
        (made / "config.json").write_text(text, encoding="utf-8")
        shutil.copyfile(work / "tokenizer" / "tokenizer.model", made / "tokenizer.model")
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
        size = sum(path.stat().st_size for path in made.iterdir())
        if size > LIMIT_BYTES:
            raise SystemExit(f"{size} bytes, and at most {LIMIT_BYTES} may be shipped")
        _prove(model, made)
        for path in made.iterdir():
            path.chmod(0o644)
            path.replace(folder / path.name)
    model.save_to(str(nemo_file))
    print(f"step {state['step']}: {folder} {size / 1e6:.2f} MB, {nemo_file}")
    return int(state["step"])


def _prove(model: Any, folder: Path) -> None:
    """Transformers' model of that folder makes the same frames and the same scores as NeMo's."""
    from transformers import Nemotron3_5AsrForRNNT

    other, info = Nemotron3_5AsrForRNNT.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    wrong = {name: list(keys) for name, keys in info.items() if keys}
    if wrong:
        raise SystemExit(f"Transformers doesn't find its weights: {wrong}")
    other.eval()
    torch.manual_seed(0)
    mel = torch.randn(1, 128, 281) * 4 - 11
    prompt = torch.tensor([AUTO_PROMPT_INDEX])
    worst = 0.0
    with torch.inference_mode():
        for lookahead in LOOKAHEADS:
            model.encoder.set_default_att_context_size([LEFT_CONTEXT, lookahead])
            encoded, _ = model.encoder(audio_signal=mel, length=torch.tensor([mel.shape[2]]))
            ours = model.joint.enc(add_prompt(model, encoded.transpose(1, 2), prompt))
            theirs = other.get_audio_features(
                mel.transpose(1, 2), num_lookahead_tokens=lookahead, prompt_ids=prompt
            ).pooler_output
            worst = max(worst, (ours - theirs).abs().max().item())
    if worst > 1e-4:
        raise SystemExit(f"NeMo and Transformers differ by {worst}")
    print(f"Transformers equals NeMo within {worst:.1e}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--folder", type=Path, default=Path("nemotron_voice/demo"))
    parser.add_argument("--nemo", type=Path, default=None)
    args = parser.parse_args()
    export(args.work, args.folder, args.nemo or args.work / "demo.nemo")


if __name__ == "__main__":
    main()
