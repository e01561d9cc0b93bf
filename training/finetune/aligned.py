"""Training along the known times of words, where the manifests have them: hours become enough.

The full-sum transducer loss has to find out by itself which sound writes which piece. A small
network with little speech learns the texts' grammar first, and then has no need to listen. Where
each word's time is known (synthesis, a forced aligner), the loss is the joint's cross-entropy
along the one path on which each piece is written as soon as it has been said, as in
`training/train.py`; model, loader and augmentation are NeMo's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse.dataset.collation import collate_vectors
from lightning.pytorch import LightningModule
from nemo.collections.asr.data.audio_to_text_lhotse_prompt_index import (
    LhotseSpeechToTextBpeDatasetWithPromptIndex,
)
from nemo.collections.common.data.lhotse import get_lhotse_dataloader_from_config
from omegaconf import OmegaConf
from torch.nn import functional

from training.finetune.vocabulary import rows_of_pieces
from training.loss import path_logits, predictions
from training.model_config import add_prompt
from training.targets import TargetMaker, TimedWord, path_nodes

TAIL_S = 0.6  # of silence behind each clip: the time in which its last pieces are due
NOISE = 0.1  # share of the pieces that the prediction network is shown wrong
DEAF = 0.15  # share of the path at which it isn't heard, so that the encoder must be
STRAY = 0.3  # weight of the ways back to the path


class AlignedBatch(NamedTuple):
    """Tensors of one step. The first two are as in NeMo's batches."""

    signal: torch.Tensor  # [rows, samples]
    signal_len: torch.Tensor  # [rows]
    prompt: torch.Tensor  # [rows]
    tokens: torch.Tensor  # [rows, longest], padded with 0
    token_counts: torch.Tensor  # [rows]
    node_row: torch.Tensor  # [nodes] and so on: the path, and ways back to it
    node_frame: torch.Tensor
    node_written: torch.Tensor
    node_step: torch.Tensor
    node_weight: torch.Tensor
    node_kept: torch.Tensor  # whether its clip is speech of what the base knows


class AlignedDataset(LhotseSpeechToTextBpeDatasetWithPromptIndex):  # type: ignore[misc]
    """NeMo's dataset, which also says when each piece is due."""

    def __init__(self, model: Any, cfg: dict[str, Any], tag_of: Callable[[str], list[int]]) -> None:
        super().__init__(model.tokenizer, cfg)
        self._blank = model.joint.num_classes_with_blank - 1
        self._rate = model.cfg.sample_rate
        self._samples_per_frame = round(
            model.cfg.preprocessor.window_stride * self._rate * model.cfg.encoder.subsampling_factor
        )
        self._maker = TargetMaker(model.tokenizer.tokenizer, tag_of)

    def __getitem__(self, cuts: Any) -> AlignedBatch:
        """Tensors of some cuts."""
        audio, lengths, cuts = self.load_audio(cuts)  # all cuts as long as the longest
        spoken = (lengths / self._rate).tolist()
        tail = round(TAIL_S * self._rate)
        audio, lengths = torch.nn.functional.pad(audio, (0, tail)), lengths + tail
        prompts, targets, nodes, kept = [], [], [], []
        for cut, spoken_s, length in zip(cuts, spoken, lengths.tolist(), strict=True):
            prompts.append(self._get_prompt_index_for_cut(cut))
            language = cut.supervisions[0].language
            stretch = spoken_s / cut.custom["spoken_s"]  # of a change of speed
            words = [
                TimedWord(w["word"], w["start"] * stretch, w["end"] * stretch, language)
                for w in cut.custom["words"]
            ]
            target = self._maker.make(
                words, length // self._samples_per_frame, tags=prompts[-1] == self.auto_index
            )
            targets.append(target)
            kept.append(cut.custom["keep"])
            nodes.append(path_nodes(target, self._blank, token_weight=1.0, stray_weight=STRAY))

        def joined(name: str) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([getattr(one, name) for one in nodes]))

        counts = torch.tensor([len(one.tokens) for one in targets])
        node_row = torch.repeat_interleave(torch.tensor([len(one.frame) for one in nodes]))
        return AlignedBatch(
            signal=audio,
            signal_len=lengths,
            prompt=torch.tensor(prompts),
            tokens=collate_vectors([torch.from_numpy(one.tokens) for one in targets], 0),
            token_counts=counts,
            node_row=node_row,
            node_frame=joined("frame"),
            node_written=joined("written"),
            node_step=joined("step"),
            node_weight=joined("weight").float(),
            node_kept=torch.tensor(kept)[node_row],
        )


class AlignedTraining(LightningModule):
    """A NeMo model, trained along paths.

    Of speech of what the base knows it learns the base's own answers beside the text: how likely
    each piece was to the base, at every node of the path. A little old speech then holds more than
    its texts say (distillation, as in "Learning without Forgetting", Li and Hoiem 2016).

    Args:
        model: NeMo's, which learns.
        base: `checkpoint.as_it_is` before it learnt; None: texts only.
        rate: of AdamW, at its highest.
        warmup_steps: in which the rate rises.
        steps: in all.
        hold: weight of the base's answers, beside the texts' 1.
    """

    weight_decay = 1e-3

    def __init__(
        self,
        model: Any,
        base: Any | None,
        *,
        rate: float,
        warmup_steps: int,
        steps: int,
        hold: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self._base = [] if base is None else [base]  # a list: not to be trained or saved
        self._hold = hold
        self._rate, self._warmup, self._steps = rate, warmup_steps, steps

    @property
    def cfg(self) -> Any:
        """NeMo's configuration."""
        return self.model.cfg

    def training_step(self, batch: AlignedBatch, _: int) -> dict[str, torch.Tensor]:
        """The loss of a batch."""
        model = self.model
        mel, mel_len = model.preprocessor(input_signal=batch.signal, length=batch.signal_len)
        heard = mel
        if model.spec_augmentation is not None:
            heard = model.spec_augmentation(input_spec=mel, length=mel_len)
        drawn = random.getstate()
        scores = _scores(model, heard, mel_len, batch, noise=NOISE, deaf=DEAF)
        losses = functional.cross_entropy(scores, batch.node_step, reduction="none")
        if self._base and batch.node_kept.any():
            random.setstate(drawn)  # the encoder draws its look-ahead: the same for both
            answers = self._answers(mel, mel_len, batch)
            kept = batch.node_kept
            apart = functional.kl_div(
                scores[kept].log_softmax(-1), answers[kept], log_target=True, reduction="none"
            )
            held = self._hold * apart.sum(-1)
            losses = losses.index_put((kept.nonzero()[:, 0],), held, accumulate=True)
        # Per frame, as in `loss.path_loss`.
        frames = mel_len.sum() / model.cfg.encoder.subsampling_factor
        return {"loss": (losses * batch.node_weight).sum() / (0.4 * frames)}

    @torch.no_grad()
    def _answers(
        self, mel: torch.Tensor, mel_len: torch.Tensor, batch: AlignedBatch
    ) -> torch.Tensor:
        """The base's log probabilities at each node, of what is neither masked nor misread."""
        base = self._base[0].to(mel.device)
        base.encoder.training = self.model.encoder.training  # it draws; its layers don't drop out
        return _scores(base, mel, mel_len, batch, noise=0.0, deaf=0.0).log_softmax(-1)

    def configure_optimizers(self) -> Any:
        """AdamW, whose rate rises, then falls by a cosine."""
        learning = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            learning, lr=self._rate, betas=(0.9, 0.98), weight_decay=self.weight_decay
        )

        def share(step: int) -> float:
            if step < self._warmup:
                return (step + 1) / self._warmup
            done = min(1.0, (step - self._warmup) / max(1, self._steps - self._warmup))
            return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _scores(
    model: Any,
    mel: torch.Tensor,
    mel_len: torch.Tensor,
    batch: AlignedBatch,
    *,
    noise: float,
    deaf: float,
) -> torch.Tensor:
    """A model's scores at each node: [nodes, pieces + 1]."""
    encoded, _lengths = model.encoder(audio_signal=mel, length=mel_len)
    encoded = add_prompt(model, encoded.transpose(1, 2), batch.prompt)
    with torch.autocast(encoded.device.type, enabled=False):
        written = predictions(model, batch, noise=noise)
        return path_logits(model, encoded, written, batch, deaf=deaf)


class NewRowsTraining(AlignedTraining):
    """`AlignedTraining` inside `only_new_rows`."""

    weight_decay = 0.0  # it would move old rows, whose gradients are none


@contextmanager
def only_new_rows(model: Any, new_pieces: int) -> Iterator[None]:
    """Inside, only the rows of new pieces learn, and the blank's: from what is heard already.

    A frozen encoder tells a new language's sounds apart quite well; but the row of a piece that was
    never chosen is so far from it that at the rate of the other weights it hardly begins. So these
    rows go first, fast, and what they don't know yet doesn't disturb the rest.

    Args:
        model: NeMo's.
        new_pieces: how many pieces were appended.
    """
    growing = rows_of_pieces(model)
    first = len(growing[-1]) - 1 - new_pieces

    def of_new_rows(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        gradient[:first] = 0.0
        return gradient

    learning = [p for p in model.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad = False
    hooks = []
    for parameter in growing:
        parameter.requires_grad = True
        hooks.append(parameter.register_hook(of_new_rows))
    model.encoder.eval()  # it hears as it does in use
    try:
        yield
    finally:
        model.encoder.train()
        for hook in hooks:
            hook.remove()
        for parameter in learning:
            parameter.requires_grad = True


def loader(model: Any, config: dict[str, Any], tag_of: Callable[[str], list[int]]) -> Any:
    """NeMo's loader of a configuration, with word times."""
    return get_lhotse_dataloader_from_config(
        OmegaConf.create(config),
        global_rank=0,
        world_size=1,
        dataset=AlignedDataset(model, config, tag_of),
        tokenizer=model.tokenizer,
    )
