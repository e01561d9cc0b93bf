"""Transformers 5.23: `get_audio_features` with its caches of keys, values and convolutions."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.peers.peer import Step, features, read


class TransformersPeer:
    """`Nemotron3_5AsrForRNNT`; all streams at the same offset, as its caches demand."""

    def __init__(self, folder: Path, precision: str) -> None:
        from tests.reference.huggingface_model import build

        config, weights = read(folder)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self._model = build(config, weights).to(dtype)
        self._dtype = dtype

    def stream(self, lookahead: int, streams: int) -> Step:
        """See Peer."""
        chunk = 8 * (lookahead + 1)
        mel = features(streams, chunk).to(self._dtype)
        prompts = torch.full((streams,), 101)
        caches: list[object] = [None, None]

        def step(mel: torch.Tensor = mel) -> object:
            with torch.inference_mode():
                output = self._model.get_audio_features(
                    input_features=mel,
                    past_key_values=caches[0],
                    padding_cache=caches[1],
                    num_lookahead_tokens=lookahead,
                    use_cache=True,
                    prompt_ids=prompts,
                    output_attention_mask=False,
                )
            caches[:] = output.past_key_values, output.padding_cache
            return output.pooler_output

        step(mel[:, : 1 + 8 * lookahead])
        return step
