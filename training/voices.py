"""The Kokoro speakers: which are trained on, which are held out, and how new ones are mixed.

A speaker is a convex mix of style vectors, written `ff_siwis*0.62+am_fenrir*0.38`. A mix of a
voice of the language (the larger share) with any other is a new person who still pronounces
the language well; a voice named in `HELD_OUT` never takes part in a training mix of its language.
"""

import random
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Voices native to each language that are trained on, pure and mixed.
NATIVE = {
    "en-US": (
        "af_heart", "af_aoede", "af_kore", "af_sarah", "af_alloy", "af_nova", "af_sky",
        "af_jessica", "af_river", "am_fenrir", "am_puck", "am_onyx", "am_echo", "am_liam",
        "am_adam", "am_eric", "bf_emma", "bf_alice", "bf_lily", "bm_george", "bm_fable",
        "bm_daniel",
    ),
    "es-ES": ("ef_dora", "em_santa"),
    "fr-FR": ("ff_siwis",),
    "it-IT": ("if_sara",),
    "pt-BR": ("pf_dora", "pm_santa"),
    # Only for the demonstration of fine-tuning; the bundled checkpoint hasn't heard Hindi.
    "hi-IN": ("hf_alpha", "hf_beta", "hm_omega"),
}  # fmt: skip
# Partners for mixes in any language.
PARTNERS = (
    "af_heart", "af_aoede", "af_kore", "af_sarah", "af_alloy", "af_nova", "am_fenrir", "am_puck",
    "am_onyx", "am_echo", "am_liam", "am_adam", "am_eric", "am_santa", "af_river", "bf_emma",
    "bf_alice", "bf_lily", "bm_george", "bm_fable", "bm_daniel", "hf_alpha", "hf_beta",
    "hm_omega", "hm_psi", "if_sara", "ef_dora", "ff_siwis", "pf_dora", "em_santa", "pm_santa",
    "jf_nezumi", "jm_kumo", "zf_xiaoyi", "zm_yunxi", "zm_yunyang",
)  # fmt: skip
# Never trained on in any mix: test, dev and demo speakers are made of them.
HELD_OUT = {
    "en-US": ("af_bella", "am_michael", "bf_isabella", "bm_lewis"),
    "es-ES": ("em_alex", "ef_dora*0.60+am_michael*0.40", "ef_dora*0.65+af_bella*0.35"),
    "fr-FR": (
        "ff_siwis*0.60+am_michael*0.40",
        "ff_siwis*0.65+af_bella*0.35",
        "ff_siwis*0.60+bf_isabella*0.40",
    ),
    "it-IT": ("im_nicola", "if_sara*0.60+am_michael*0.40", "if_sara*0.65+af_bella*0.35"),
    "pt-BR": ("pm_alex", "pf_dora*0.60+am_michael*0.40", "pf_dora*0.65+af_bella*0.35"),
    "hi-IN": ("hm_psi", "hf_alpha*0.60+am_michael*0.40", "hf_beta*0.65+af_bella*0.35"),
}


def training_speaker(language: str, rng: random.Random) -> str:
    """A speaker for one training clip: one in five pure, the rest mixes."""
    native = rng.choice(NATIVE[language])
    if rng.random() < 0.2:
        return native
    out = {native, *HELD_OUT[language]}  # hm_psi is no partner where it is held out
    partner = rng.choice([name for name in PARTNERS if name not in out])
    # Below about 0.55 the partner's accent takes over: Whisper then heard Swahili.
    share = rng.uniform(0.3 if language == "en-US" else 0.58, 0.88)
    return f"{native}*{share:.2f}+{partner}*{1 - share:.2f}"


def held_out_speaker(language: str, rng: random.Random) -> str:
    """A speaker of the test, dev and demo splits."""
    return rng.choice(HELD_OUT[language])


def style(speaker: str, folder: Path) -> NDArray[np.float32]:
    """The style table of a speaker: [510 lengths in phonemes, 256]."""
    table = np.zeros((510, 256), np.float32)
    for term in speaker.split("+"):
        name, _, share = term.partition("*")
        table += float(share or 1) * _stored(folder / f"{name}.bin")
    return table


@cache
def _stored(path: Path) -> NDArray[np.float32]:
    return np.fromfile(path, np.float32).reshape(-1, 256)
