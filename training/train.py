"""Train the demo network on a growing corpus, for a number of minutes.

One command: `python -m training.train --work build/training --minutes 80`. Stopped, it goes on with
`--resume`. A GPU is used where there is one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from training.checkpoint import open_model, read_state, save_state
from training.dataset import Batch, Batches, Corpus
from training.evaluate import evaluate
from training.features import LogMel
from training.loss import path_loss, predictions, transducer_loss
from training.model_config import D_MODEL, LEFT_CONTEXT, add_prompt, stage_variation
from training.parallel import Meeting, Table
from training.targets import CLASSES

LOOKAHEAD_SHARES = {0: 0.18, 1: 0.18, 3: 0.28, 6: 0.18, 13: 0.18}
LOG_EVERY = 25


@dataclass(slots=True)
class Settings:
    """What a run is told."""

    work: Path
    minutes: float
    batch_s: float = 64.0
    rate: float = 1e-3
    warmup: int = 200
    average: float = 0.997
    full_sum_from: float = 2.0  # share of the run after which the full sum joins in; 2: never
    limit: int | None = None
    augment: bool = True
    precision: str = "auto"
    eval_minutes: float = 8.0
    save_minutes: float = 4.0
    seed: int = 0
    processes: int = 1
    meeting_s: float = 10.0


@dataclass(slots=True)
class Clock:
    """Time spent training, over interruptions; evaluations count."""

    spent: float = 0.0
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Spent until now."""
        return self.spent + time.monotonic() - self.since


class Trainer:
    """One run."""

    def __init__(
        self,
        settings: Settings,
        *,
        resume: bool,
        init: bool = False,
        rank: int = 0,
        table: Table | None = None,
    ) -> None:
        self.settings = settings
        self.rank, self.table = rank, table
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any
        self.log_mel: LogMel
        self.model, self.log_mel = open_model(settings.work)
        self.model.to(self.device).train()
        self.head = nn.Linear(D_MODEL, CLASSES).to(self.device)
        self.blank = self.model.joint.num_classes_with_blank - 1
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.rate, betas=(0.9, 0.98), weight_decay=1e-3, fused=True
        )
        self.step = 0
        self.clock = Clock()
        self.averaged, _ = open_model(settings.work)
        self.averaged.load_state_dict(self.model.state_dict())
        self.averaged.to(self.device)
        if resume:
            self._resume()
        elif init:
            state = read_state(settings.work)
            self.model.load_state_dict(state["average"])
            self.head.load_state_dict(state["head"])
            self.averaged.load_state_dict(state["average"])
        torch.manual_seed(settings.seed + 1000 * rank + self.step)
        self.log_path = settings.work / "run" / "log.jsonl"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.bf16 = settings.precision == "bf16" or (
            settings.precision == "auto" and _fast_bf16(self.device)
        )

    @property
    def progress(self) -> float:
        """Share of the run that is over."""
        return min(self.clock.seconds / (60 * self.settings.minutes), 1.0)

    def run(self) -> None:
        """Train until the time is up."""
        batches = Batches(
            self.settings.work,
            self.log_mel,
            self.blank,
            batch_s=self.settings.batch_s,
            seed=self.settings.seed + 1000 * self.rank + self.step,
            augment=self.settings.augment,
            limit=self.settings.limit,
        )
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=1,
            prefetch_factor=8,
            multiprocessing_context="fork",
        )
        dev = Corpus(self.settings.work, "dev")
        meeting = Meeting(self.rank, self.table, self.settings.meeting_s)
        self.clock.since = time.monotonic()
        saved = evaluated = self.clock.seconds
        sums: dict[str, float] = {}
        began = time.monotonic()
        for batch in loader:
            batches.progress.value = self.progress
            if self.step == 0 and self.rank == 0:
                self._print_variation(batch)
            for name, value in self._train_step(batch.to(self.device)).items():
                sums[name] = sums.get(name, 0.0) + value
            meeting.average(self._learnt())
            if self.step % LOG_EVERY == 0:
                if self.rank == 0:
                    self._log(batch, sums, time.monotonic() - began)
                sums, began = {}, time.monotonic()
            over = self.progress >= 1.0
            if over or self.clock.seconds - evaluated > 60 * self.settings.eval_minutes:
                self._evaluate(dev)
                evaluated = self.clock.seconds
            if over or self.clock.seconds - saved > 60 * self.settings.save_minutes:
                if self.rank == 0:
                    self._save()
                saved = self.clock.seconds
            if over:
                break

    def _learnt(self) -> list[torch.Tensor]:
        """Weights and their running moments, which meetings average."""
        state = self.optimiser.state
        names = ("exp_avg", "exp_avg_sq")
        moments = [state[p][name] for p in self.parameters if state[p] for name in names]
        return [*self.parameters, *moments]

    def _train_step(self, batch: Batch) -> dict[str, float]:
        settings, model, progress = self.settings, self.model, self.progress
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate * self._schedule(progress)
        pick = torch.multinomial(torch.tensor(list(LOOKAHEAD_SHARES.values())), 1).item()
        model.encoder.set_default_att_context_size(
            [LEFT_CONTEXT, list(LOOKAHEAD_SHARES)[int(pick)]]
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            length = torch.full((batch.mel.shape[0],), batch.mel.shape[2], device=self.device)
            encoded, _ = model.encoder(audio_signal=batch.mel, length=length)
            encoded = encoded.transpose(1, 2)[:, : batch.letters.shape[1]].float()
        letters = functional.cross_entropy(
            self.head(encoded).flatten(0, 1), batch.letters.flatten(), label_smoothing=0.02
        )
        encoded = add_prompt(model, encoded, batch.prompt)
        written = predictions(model, batch, noise=0.1)
        path, right = path_loss(
            model,
            encoded,
            written,
            batch,
            token_weight=1.0 + max(0.0, 1.0 - 2.0 * progress),
            deaf=0.12 + 0.25 * max(0.0, 1.0 - 2.5 * progress),
        )
        # First the encoder learns to hear letters; the path's loss takes over as it gets meaning.
        turn = min(1.0, progress * 10.0)
        loss = (0.2 + 0.8 * turn) * path + (2.0 - 1.5 * turn) * letters
        figures = {"path": path.item(), "letters": letters.item(), "right": right}
        if progress > settings.full_sum_from:
            full = self._full_sum(encoded, written, batch)
            loss = 0.5 * loss + 0.5 * full
            figures["full"] = full.item()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 2.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        self._average()
        return figures | {"norm": float(norm), "seconds": batch.seconds}

    def _full_sum(self, encoded: torch.Tensor, written: torch.Tensor, batch: Batch) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            heard, said = self.model.joint.enc(encoded), self.model.joint.pred(written)
            logits = self.model.joint.joint_net(heard[:, :, None] + said[:, None])
        losses = transducer_loss(logits.float(), batch.tokens, batch.token_counts)
        return losses.sum() / batch.token_counts.sum()

    def _schedule(self, progress: float) -> float:
        warm = min(1.0, (self.step + 1) / self.settings.warmup)
        return warm * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.averaged.parameters()), list(self.model.parameters()), 1.0 - keep
        )

    def _print_variation(self, batch: Batch) -> None:
        for name, (over_clips, size) in stage_variation(self.model, batch.mel).items():
            print(f"  {name}: varies by {over_clips:.3f} over clips, size {size:.3f}", flush=True)

    def _log(self, batch: Batch, sums: dict[str, float], took: float) -> None:
        count = LOG_EVERY
        line = {name: round(value / count, 4) for name, value in sums.items() if name != "seconds"}
        line |= {
            "step": self.step,
            "epoch": batch.epoch,
            "hours": round(batch.hours, 2),
            "minutes": round(self.clock.seconds / 60, 2),
            "speed": round(sums["seconds"] / took, 1),
            "rate": self.optimiser.param_groups[0]["lr"],
        }
        self._write(line)
        left = (1 - self.progress) * self.settings.minutes
        print(
            f"step {self.step} epoch {batch.epoch} ({batch.hours:.2f} h) "
            f"path {line['path']:.3f} letters {line['letters']:.3f} right {line['right']:.3f} "
            + (f"full {line['full']:.3f} " if "full" in line else "")
            + f"norm {line['norm']:.2f} lr {line['rate']:.1e} {line['speed']:.0f} s/s "
            f"left {left:.1f} min",
            flush=True,
        )

    def _evaluate(self, dev: Corpus) -> None:
        dev.refresh()
        if not dev.clips:
            return
        began = time.monotonic()
        # two processes: one evaluates `auto`, the other forced prompts
        both = self.settings.processes == 1
        for auto in (True, False) if both else (self.rank == 0,) if self.rank < 2 else ():
            figures, heard = evaluate(
                self.averaged, self.log_mel, dev.clips[:100], lookahead=3, auto=auto
            )
            self._write({"step": self.step, "dev": figures, "auto": auto})
            whole = figures["all"]
            each = " ".join(f"{k} {v['wer']}" for k, v in figures.items() if k != "all")
            print(
                f"dev {'auto' if auto else 'forced'} WER {whole['wer']} written "
                f"{whole['written_wer']} language {whole['language']} | {each}",
                flush=True,
            )
        for clip, one in list(zip(dev.clips, heard, strict=False))[:5]:
            print(f"  {clip.text!r} -> {one.text!r}", flush=True)
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)

    def _write(self, line: dict[str, Any]) -> None:
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        save_state(
            self.settings.work,
            {
                "model": self.model.state_dict(),
                "average": self.averaged.state_dict(),
                "head": self.head.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "spent": self.clock.seconds,
            },
        )

    def _resume(self) -> None:
        state = read_state(self.settings.work)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["average"])
        self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.clock = Clock(spent=state["spent"])


def _fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed natively; elsewhere it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    info = Path("/proc/cpuinfo")
    return info.exists() and "amx_bf16" in info.read_text(encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--minutes", type=float, default=80.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init", action="store_true", help="start from the last run's average")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch-s", type=float, default=64.0)
    parser.add_argument("--full-sum-from", type=float, default=2.0)
    parser.add_argument("--overfit", type=int, default=None, help="only the first N clips, as is")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--processes", type=int, default=1, help="that train apart and average")
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = Settings(
        work=args.work,
        minutes=args.minutes,
        rate=args.rate,
        batch_s=args.batch_s,
        full_sum_from=args.full_sum_from,
        limit=args.overfit,
        augment=args.overfit is None,
        precision=args.precision,
        seed=args.seed,
        processes=args.processes,
    )
    work = (settings, args.threads, args.resume, args.init)
    (args.work / "run").mkdir(parents=True, exist_ok=True)
    if args.processes == 1:
        _train(0, None, *work)
        return
    model, _ = open_model(args.work)
    numbers = 3 * (sum(p.numel() for p in model.parameters()) + (D_MODEL + 1) * CLASSES)
    table = Table.lay(args.processes, numbers)
    torch.multiprocessing.spawn(_train, args=(table, *work), nprocs=args.processes)


def _train(
    rank: int,
    table: Table | None,
    settings: Settings,
    threads: int,
    resume: bool,  # noqa: FBT001
    init: bool,  # noqa: FBT001
) -> None:
    torch.set_num_threads(threads)
    Trainer(settings, resume=resume, init=init, rank=rank, table=table).run()


if __name__ == "__main__":
    main()
