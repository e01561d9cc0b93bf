"""NeMo's and Lightning's training, configured for a few hours of speech."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf, open_dict
from torch import nn

from training.loss import transducer_loss
from training.model_config import MEL_MEAN

LAST = "last.ckpt"
NEW_ROWS_RATE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how fast."""

    steps: int = 2_000
    rate: float = 3e-4  # at its highest; falls to nothing by a cosine
    warmup_steps: int = 100
    new_rows_steps: int = 120  # before these, of new pieces' rows alone, at NEW_ROWS_RATE
    batch_s: float = 60.0  # seconds of audio in a step
    average: float = 0.995  # the weights kept are a moving average; 0: the last ones
    hold: float = 1.0  # weight of the base's answers to what is to be kept, beside its texts' 1
    base_share: float = 0.0  # of the base in each of the encoder's weights, at the end
    seed: int = 0
    precision: str = "auto"  # bf16-mixed where the processor computes it natively, else 32-true
    save_minutes: float = 5.0
    threads: int | None = None


class TorchTransducerLoss(nn.Module):
    """NeMo's loss in PyTorch operations, where its own has no GPU: 30 times as fast on a CPU."""

    reduction: str | None = None  # NeMo's wrapper sets it while it calls, and reduces itself

    def forward(
        self,
        acts: torch.Tensor,
        labels: torch.Tensor,
        act_lens: torch.Tensor,
        label_lens: torch.Tensor,
    ) -> torch.Tensor:
        """Loss of each row.

        Args:
            acts: [rows, frames, longest + 1, pieces + 1], log probabilities or scores.
            labels: [rows, longest].
            act_lens: frames of each row.
            label_lens: pieces of each row.
        """
        return transducer_loss(acts.float(), labels, label_lens, act_lens)


class MovingAverage(Callback):
    """Keeps an exponential moving average of the weights, in the checkpoints as well."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._average: dict[str, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, model: Any, *_: Any) -> None:
        """Move the average; at first faster, so that it forgets where it came from."""
        with torch.no_grad():
            learnt = {n: p for n, p in model.named_parameters() if p.requires_grad}
            if not self._average:
                self._average = {name: p.detach().clone() for name, p in learnt.items()}
            step = trainer.global_step
            keep = min(self._keep, (1 + step) / (10 + step))
            for name, parameter in learnt.items():
                self._average[name].lerp_(parameter.detach(), 1.0 - keep)

    def put_into(self, model: Any) -> None:
        """Give the model the average."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._average:
                    parameter.copy_(self._average[name])

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoint."""
        return dict(self._average)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of Lightning's checkpoint."""
        self._average = dict(state_dict)


class Progress(Callback):
    """A line every half minute: how far, how fast, the loss."""

    def __init__(self, steps: int, *, what: str = "", every_s: float = 30.0) -> None:
        self._steps, self._what, self._every_s = steps, what, every_s
        self._said = time.monotonic()
        self._losses: list[float] = []
        self._audio_s = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, model: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count, and say it when it is time."""
        self._losses.append(float(outputs["loss"]))
        self._audio_s += float(batch[1].sum()) / model.cfg.sample_rate
        now = time.monotonic()
        if now - self._said < self._every_s and trainer.global_step < self._steps:
            return
        took = now - self._said
        left_s = took / len(self._losses) * (self._steps - trainer.global_step)
        print(
            f"{self._what}step {trainer.global_step} of {self._steps}: loss "
            f"{sum(self._losses) / len(self._losses):.2f}, {self._audio_s / took:.0f} s of speech "
            f"a second, {left_s / 60:.1f} min left",
            flush=True,
        )
        self._said, self._losses, self._audio_s = now, [], 0.0


def frozen_but(model: Any, trainable: str) -> int:
    """Freeze what isn't to learn; returns how many weights learn.

    Args:
        model: NeMo's.
        trainable: "all", "blocks" (all but the subsampling), or "decoder" (prediction network,
            joint and prompt kernel).
    """
    frozen = {"all": [], "blocks": [model.encoder.pre_encode], "decoder": [model.encoder]}
    for part in frozen[trainable]:
        for parameter in part.parameters():
            parameter.requires_grad = False
        for module in part.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def train(
    model: Any,
    loader: dict[str, Any],
    recipe: Recipe,
    folder: Path,
    *,
    tag_of: Callable[[str], list[int]] | None,
    base: Any | None,
    new_pieces: int,
    resume: bool,
) -> None:
    """Train a NeMo model in place.

    Args:
        model: `EncDecRNNTBPEModelWithPrompt`.
        loader: of `data.loader_config`.
        recipe: how.
        tag_of: a language's tag as pieces, to train along the words' times; None: by the full sum.
        base: `checkpoint.as_it_is`: its answers to what is to be kept are learnt as well (along
            words' times), and its encoder is mixed in at the end; None: neither.
        new_pieces: how many the vocabulary has been given.
        folder: of checkpoints and logs.
        resume: go on from the last checkpoint there.
    """
    seed_everything(recipe.seed, workers=True, verbose=False)
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    on_gpu = torch.cuda.is_available()
    augment(model)
    model.train()  # Lightning leaves it as it is, and a restored model may be in evaluation mode
    average = MovingAverage(recipe.average)
    trainer = Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        max_steps=recipe.steps,
        precision=_precision(recipe.precision),  # type: ignore[arg-type]  # one of Lightning's
        gradient_clip_val=1.0,
        use_distributed_sampler=False,  # Lhotse's does that
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=200,  # NeMo decodes a batch each time
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=CSVLogger(str(folder), name="", version=""),
        callbacks=[
            average,
            Progress(recipe.steps),
            ModelCheckpoint(
                dirpath=folder,
                filename="last",
                enable_version_counter=False,
                save_top_k=1,
                save_on_train_epoch_end=False,
                train_time_interval=_minutes(recipe.save_minutes),
            ),
        ],
    )
    last = folder / LAST
    state = str(last) if resume and last.exists() else None
    if tag_of is None:
        _as_nemo_does(model, loader, recipe, trainer)
        trainer.fit(model, ckpt_path=state)
    else:
        from training.finetune import aligned

        if new_pieces and recipe.new_rows_steps and state is None:
            batches = aligned.loader(model, loader, tag_of)
            _new_rows_first(model, base, batches, recipe, new_pieces)
        module = aligned.AlignedTraining(
            model,
            base,
            rate=recipe.rate,
            warmup_steps=recipe.warmup_steps,
            steps=recipe.steps,
            hold=recipe.hold,
        )
        trainer.fit(module, aligned.loader(model, loader, tag_of), ckpt_path=state)
    trainer.save_checkpoint(last)  # a longer run may go on from here
    if recipe.average:
        average.put_into(trainer.lightning_module)
    if base is not None:
        mix_in(model, base, recipe.base_share)
    model.eval()


@torch.no_grad()
def mix_in(model: Any, base: Any, share: float) -> None:
    """Move the encoder's weights some way back to the base's: what lies between hears both.

    Weights of a model and of what was fine-tuned from it can be averaged, and the average forgets
    more slowly than it unlearns [Wortsman et al. 2022, WiSE-FT]. Not the decoder's: between the
    base's and those that have learnt to write new pieces lies nothing that writes them (measured:
    docs/fine-tuning.md).

    Args:
        model: NeMo's, which changes.
        base: `checkpoint.as_it_is` of it before it learnt.
        share: of the base; 0: nothing changes.
    """
    learnt = dict(model.encoder.named_parameters())
    for name, old in base.encoder.named_parameters():
        learnt[name].lerp_(old, share)


def _new_rows_first(
    model: Any, base: Any | None, batches: Any, recipe: Recipe, new_pieces: int
) -> None:
    """Along the times of words."""
    from training.finetune import aligned

    steps = recipe.new_rows_steps
    module = aligned.NewRowsTraining(
        model, base, rate=NEW_ROWS_RATE, warmup_steps=max(1, steps // 6), steps=steps
    )
    trainer = Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        max_steps=steps,
        precision=_precision(recipe.precision),  # type: ignore[arg-type]  # one of Lightning's
        use_distributed_sampler=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[Progress(steps, what="new pieces: ")],
    )
    with aligned.only_new_rows(model, new_pieces):
        trainer.fit(module, batches)


def _as_nemo_does(model: Any, loader: dict[str, Any], recipe: Recipe, trainer: Trainer) -> None:
    """Loss, optimiser and data of NeMo's own training."""
    if not torch.cuda.is_available():
        model.loss._loss = TorchTransducerLoss()  # noqa: SLF001 - it has no setter
    _prompt_in_fp32(model)
    model.set_trainer(trainer)
    with open_dict(model.cfg):
        model.cfg.optim = OmegaConf.create(
            {
                "name": "adamw",
                "lr": recipe.rate,
                "betas": [0.9, 0.98],
                "weight_decay": 1e-3,
                "sched": {
                    "name": "CosineAnnealing",
                    "warmup_steps": recipe.warmup_steps,
                    "max_steps": recipe.steps,
                    "min_lr": recipe.rate / 100,
                },
            }
        )
    model.setup_optimization(model.cfg.optim)
    model.setup_training_data(OmegaConf.create(loader))


def _prompt_in_fp32(model: Any) -> None:
    """As in the engine: in bf16 the prompt's part of the sum is rounded away."""
    kernel = model.prompt_kernel
    inner = kernel.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            result: torch.Tensor = inner(x.float())
        return result

    kernel.forward = forward


def augment(model: Any) -> None:
    """SpecAugment, where the checkpoint's configuration has none.

    What is masked takes the features' mean, as in the method's paper. That is 0 of normalised
    features only: of plain log-mel, 0 is louder than any voice.
    """
    if model.spec_augmentation is None:
        from nemo.collections.asr.modules import SpectrogramAugmentation

        normalised = model.cfg.preprocessor.get("normalize") not in {None, "NA"}
        model.spec_augmentation = SpectrogramAugmentation(
            freq_masks=2,
            freq_width=20,
            time_masks=4,
            time_width=0.05,
            mask_value=0.0 if normalised else MEL_MEAN,
        )


def _precision(asked: str) -> str:
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    info = Path("/proc/cpuinfo")
    native = info.exists() and "amx_bf16" in info.read_text(encoding="utf-8")
    return "bf16-mixed" if native else "32-true"


def _minutes(minutes: float) -> Any:
    from datetime import timedelta

    return timedelta(minutes=minutes)
