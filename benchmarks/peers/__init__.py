"""Other engines on the same weights: what one step of their encoder costs on this machine.

    python -m nemotron_voice.bench.random_model build/random
    python -m benchmarks.peers --weights build/random

Needs the extras `reference` and `peers`. Each peer steps its own streaming encoder in its own way,
all streams in one batch, with its left context full. Only the encoder is timed, from features to
frames: whatever the peer does before and after is a gift to it, as our own steps are timed whole,
from samples to tokens.
"""
