"""What is measured: which model, in which precision, with how many threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nemotron_voice.bench.random_folder import resolve
from nemotron_voice.config import EngineOptions, Precision
from nemotron_voice.engine import Engine
from nemotron_voice.model.checkpoint import load_checkpoint
from nemotron_voice.model.precision import arithmetic_of, device_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An engine to be loaded, in as many processes as it takes.

    Subject(model="random", precision="int8", threads=2)
    """

    model: str = "random"  # a name that Engine.load takes, or "random": the real size
    precision: Precision = "fp32"
    device: str = "cpu"
    threads: int | None = None  # CPU threads of the network; None leaves torch's choice

    @classmethod
    def of(cls, *, model: str, precision: str, device: str, threads: int | None) -> Subject:
        """A subject by names that a user gave, refused before a process is started for it.

        "auto" becomes what it stands for on this machine, so that figures say it.

        Raises:
            ConfigurationError: an engine has no such option.
        """
        choices: dict[str, Any] = {"device": device, "precision": precision, "threads": threads}
        options = EngineOptions(**choices)
        target, chosen = device_of(options.device), options.precision
        if chosen == "auto":
            weights = load_checkpoint(resolve(model)).weights
            chosen = arithmetic_of(chosen, target.type, weights)
        return cls(model=model, precision=chosen, device=str(target), threads=threads)

    def load(self, *, max_streams: int, max_batch: int | None = None) -> Engine:
        """Load the engine.

        Args:
            max_streams: slots.
            max_batch: streams in one step at most; None: the engine's default.

        Raises:
            ModelNotFoundError, CheckpointError, ConfigurationError.
        """
        options: dict[str, Any] = {} if max_batch is None else {"max_batch": max_batch}
        return Engine.load(
            resolve(self.model),
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            max_streams=max_streams,
            **options,
        )
