"""NeMo 3.0.0's CacheAwareRNNTPipeline: whole steps of many streams, from samples to text.

As released it never applies the language prompt; here it does (`_prompted_step`), as NeMo's main
branch does since.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.nemo_peer import whole_model
from benchmarks.peers.peer import LEFT_CONTEXT, Step, speech

_CONFIG: dict[str, Any] = {
    "asr": {
        "device": "cpu",
        "device_id": 0,
        "compute_dtype": "float32",
        "use_amp": False,
        "decoding": {
            "strategy": "greedy_batch",
            "preserve_alignments": False,
            "fused_batch_size": -1,
            "greedy": {
                "use_cuda_graph_decoder": False,
                "max_symbols": 10,
                "ngram_lm_model": None,
                "ngram_lm_alpha": 0.0,
            },
        },
    },
    "confidence": {
        "exclude_blank": True,
        "aggregation": "mean",
        "method_cfg": {
            "name": "entropy",
            "entropy_type": "tsallis",
            "alpha": 0.5,
            "entropy_norm": "exp",
        },
    },
    "itn": {"input_case": "lower_cased", "whitelist": None, "overwrite_cache": False,
            "max_number_of_permutations_per_split": 729, "left_padding_size": 4, "batch_size": 32,
            "n_jobs": 1},
    "nmt": {"model_name": None, "source_language": "English", "target_language": "Russian",
            "waitk": -1, "device": "cpu", "device_id": 0, "batch_size": 1, "llm_params": {},
            "sampling_params": {}},
    "endpointing": {"stop_history_eou": 800, "residue_tokens_at_end": 2},
    "matmul_precision": "high",
    "log_level": 40,
    "pipeline_type": "cache_aware",
    "asr_decoding_type": "rnnt",
    "enable_pnc": False,
    "enable_itn": False,
    "enable_nmt": False,
    "asr_output_granularity": "segment",
    "cache_dir": None,
    "lang": None,
    "return_tail_result": False,
}  # fmt: skip
_MOST = 32  # streams
_ids = itertools.count()


class PipelinePeer:
    """A pipeline a mode, which is set when it is built."""

    def __init__(self, folder: Path, precision: str) -> None:
        del precision  # fp32
        from nemo.collections.asr.inference.model_wrappers import (
            cache_aware_rnnt_inference_wrapper as wrapper,
        )

        wrapper.CacheAwareRNNTInferenceWrapper.execute_step = _prompted_step
        self._file = folder / "nemo.nemo"
        if not self._file.exists():
            whole_model(folder).save_to(str(self._file))
        self._lookahead = -1
        self._pipeline: Any = None

    def stream(self, lookahead: int, streams: int) -> Step:
        """See Peer."""
        from nemo.collections.asr.inference.streaming.framing.request import Frame
        from nemo.collections.asr.inference.streaming.framing.request_options import (
            ASRRequestOptions,
        )

        if lookahead != self._lookahead:
            self._pipeline = None
            self._pipeline = self._built(lookahead)
            self._lookahead = lookahead
        else:
            self._pipeline.close_session()
        pipeline = self._pipeline
        pipeline.open_session()
        chunks = speech(streams, lookahead)
        numbers = [next(_ids) for _ in range(streams)]
        begun = False

        def step() -> object:
            nonlocal begun
            options = None if begun else ASRRequestOptions(language_code="auto")
            requests = [
                Frame(
                    samples=torch.from_numpy(samples),
                    stream_id=number,
                    is_first=not begun,
                    is_last=False,
                    options=options,
                )
                for number, samples in zip(numbers, next(chunks), strict=True)
            ]
            begun = True
            return pipeline.transcribe_step(requests)

        return step

    def _built(self, lookahead: int) -> Any:
        from nemo.collections.asr.inference.factory.pipeline_builder import PipelineBuilder
        from omegaconf import OmegaConf

        streaming = {
            "sample_rate": 16_000,
            "batch_size": _MOST,
            "num_slots": _MOST,
            "word_boundary_tolerance": 4,
            "att_context_size": [LEFT_CONTEXT, lookahead],
            "use_cache": True,
            "use_feat_cache": True,
            "chunk_size_in_secs": None,
            "request_type": "frame",
        }
        asr = _CONFIG["asr"] | {"model_name": str(self._file)}
        config = OmegaConf.create(_CONFIG | {"asr": asr, "streaming": streaming})
        return PipelineBuilder.build_pipeline(config)


def _prompted_step(
    self: Any,
    mel: torch.Tensor,
    lengths: torch.Tensor,
    context: Any,
    previous: Any,
    drop: int,
    keep: bool,
    drop_left_context: int | None = None,
    valid_out_len: int | None = None,
    prompt_vectors: torch.Tensor | None = None,
) -> tuple[Any, Any]:
    """`execute_step` of NeMo 3.0.0's wrapper, with the prompt between encoder and decoder."""
    from nemo.collections.asr.inference.utils.context_manager import CacheAwareContext

    del drop_left_context, valid_out_len
    model = self.asr_model
    frames, frame_counts, channel, time, length = model.encoder.cache_aware_stream_step(
        processed_signal=mel,
        processed_signal_length=lengths,
        cache_last_channel=context.cache_last_channel,
        cache_last_time=context.cache_last_time,
        cache_last_channel_len=context.cache_last_channel_len,
        keep_all_outputs=keep,
        drop_extra_pre_encoded=drop,
    )
    if prompt_vectors is not None:
        frames = frames.transpose(1, 2)
        prompt = prompt_vectors.to(frames.dtype)[:, None].expand(-1, frames.shape[1], -1)
        frames = model.prompt_kernel(torch.cat([frames, prompt], -1)).transpose(1, 2)
    best = model.decoding.rnnt_decoder_predictions_tensor(
        frames, frame_counts, return_hypotheses=True, partial_hypotheses=previous
    )
    return best, CacheAwareContext(
        cache_last_channel=channel, cache_last_time=time, cache_last_channel_len=length
    )
