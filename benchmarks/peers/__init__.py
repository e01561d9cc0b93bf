"""Ours and other engines on the same weights: what one step costs on this machine, in one run.

    python -m nemotron_voice.bench.random_model build/random
    python -m benchmarks.peers --weights build/random

Needs the extras `reference` and `peers`. Each peer steps its own streaming encoder in its own way,
all streams in one batch, with its left context full. sherpa-onnx and NeMo's pipeline are timed
whole, as our own steps are, from samples to text. Of the others only the encoder is timed, from
features to frames: whatever they do before and after is a gift to them.
"""
