"""Record what NeMo and Transformers make of the tiny network, for where they aren't installed.

Run `python -m tests.reference.record`; it writes tests/data/reference.*.
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from nemotron_voice.model.config import LOOKAHEADS, ModelConfig
from tests.model.tiny import chunks_of, random_weights, sweep, tiny_json
from tests.reference import huggingface_model, nemo_model

DATA = Path(__file__).parents[1] / "data"
SECONDS = 5.3
PROMPTS = {"de-DE": 9, "auto": 101}


def main() -> None:
    """Write encoder frames [frames, d_model] and features as tensors, tokens as JSON."""
    audio = sweep(SECONDS)
    sizes = tiny_json()
    weights = random_weights(ModelConfig.from_huggingface(sizes))
    huggingface = huggingface_model.build(sizes, weights)
    with tempfile.TemporaryDirectory() as folder:
        nemo = nemo_model.build(Path(folder), weights)
    mel = huggingface_model.features(audio, 128)
    tensors = {"features": mel[0, :100].contiguous()}
    tokens = {}
    for lookahead in LOOKAHEADS:
        count = chunks_of(audio, lookahead) * (lookahead + 1)
        for language, prompt in PROMPTS.items():
            whole = nemo_model.whole(nemo, audio, lookahead, language)
            heard = huggingface_model.stream(
                huggingface, mel[:, : 8 * (count - 1) + 1], lookahead, prompt
            )
            if [token for token in whole.tokens if token[1] < count] != heard:
                raise SystemExit(f"NeMo and Transformers differ at {lookahead}, {language}")
            key = f"{lookahead}/{prompt}"
            tensors[key] = whole.frames[:count].contiguous()
            tokens[key] = heard
    DATA.mkdir(exist_ok=True)
    save_file(tensors, DATA / "reference.safetensors")
    versions = {name: importlib.metadata.version(name) for name in ("nemo_toolkit", "transformers")}
    versions["torch"] = torch.__version__
    content = {"versions": versions, "tokens": tokens}
    (DATA / "reference.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
