"""How well a model hears, at the latency that will be deployed: clips in, error rates out.

    manifest    which clips, checked before anything runs (hub: from a Hugging Face dataset)
    listening   each clip through a stream of the engine, as in a call
    hypotheses  what was heard, a JSON line a clip
    scoring     errors, error rates and their intervals, by named normalisation
    emission    how long after a word its text is shown, and final
    summary     figures by latency and locale
    comparison  two sets of hypotheses of the same clips
    report      tables and pictures

Needs the extra `evaluate`.
"""
