"""The recipe of the bundled checkpoint: corpus, synthesis, training, export, evaluation."""
