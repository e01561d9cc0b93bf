"""NeMo 3.0.0: its encoder's `cache_aware_stream_step`, and its whole model for other peers."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.peer import LEFT_CONTEXT, Step, features, read


def encoder(folder: Path) -> Any:
    """NeMo's ConformerEncoder with the weights of a folder."""
    from nemo.collections.asr.modules import ConformerEncoder

    from tests.reference.nemo_model import nemo_config, to_nemo_names

    config, weights = read(folder)
    options = nemo_config(Path("unused"), config)["encoder"]
    options.pop("_target_")
    model = ConformerEncoder(**options).eval()
    names = to_nemo_names({k: v for k, v in weights.items() if k.startswith("encoder.")})
    model.load_state_dict({k.removeprefix("encoder."): v for k, v in names.items()})
    return model


def whole_model(folder: Path) -> Any:
    """NeMo's EncDecRNNTBPEModelWithPrompt with the weights of a folder, and made-up pieces."""
    from tests.reference.nemo_model import build

    config, weights = read(folder)
    return build(folder / "nemo-tokenizer", weights, config, made_up_pieces(config["vocab_size"]))


@cache
def made_up_pieces(vocabulary: int) -> bytes:
    """A SentencePiece model of words, of so many pieces with the blank: only how many counts."""
    import sentencepiece

    size, model = vocabulary - 1, io.BytesIO()
    letters = "abcdefghijklm"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([letters] * 20),
        model_writer=model,
        vocab_size=size,
        user_defined_symbols=[f"\u2581word{n}" for n in range(size - len(letters) - 2)],
        model_type="char",
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


class NemoPeer:
    """fp32, or bf16 by autocast, as NeMo's own pipeline has it."""

    def __init__(self, folder: Path, precision: str) -> None:
        self._encoder = encoder(folder)
        self._bf16 = precision == "bf16"

    def stream(self, lookahead: int, streams: int) -> Step:
        """See Peer."""
        self._encoder.set_default_att_context_size([LEFT_CONTEXT, lookahead])
        chunk = 8 * (lookahead + 1)
        old = self._encoder.streaming_cfg.pre_encode_cache_size[1]  # mel frames heard again
        mel = features(streams, old + chunk).transpose(1, 2).contiguous()
        lengths = torch.full((streams,), old + chunk)
        caches = list(self._encoder.get_initial_cache_state(batch_size=streams))

        def step() -> object:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                frames, _, *caches[:] = self._encoder.cache_aware_stream_step(
                    processed_signal=mel,
                    processed_signal_length=lengths,
                    cache_last_channel=caches[0],
                    cache_last_time=caches[1],
                    cache_last_channel_len=caches[2],
                    keep_all_outputs=False,
                    drop_extra_pre_encoded=self._encoder.streaming_cfg.drop_extra_pre_encoded,
                )
            return frames

        return step
