"""The `train:` block of a recipe: how long, how fast, how often, on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from zoo.errors import ConfigError
from zoo.training.optimizers import NAMES as OPTIMIZERS

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PARALLEL = ("ddp", "fsdp")
COUNTS = ("steps", "batch_size", "accumulate", "save_every", "validate_every", "sheet_every", "keep")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The `train:` block of a recipe.

    The learning rate warms up over `warmup_steps`, stays, and falls linearly to zero over the last `decay_steps`.

    Args:
        steps: of the run; with `seconds` only what warmup_steps and decay_steps are shares of.
        seconds: of a run that fits this time, and sets its steps itself (zoo.training.fitting); 0 for one of `steps`.
        batch_size: samples of one optimizer step, over all devices and all parts.
        accumulate: parts a device's share of a batch is taken in, one after another, to save memory.
        average: decay of the weights' moving average, or several; the first is validated and is what NAME holds.
        precision: what networks compute in; fp16 comes with a loss scale, and skips the steps that overflow it.
        patience: validations without a lower loss after which the run stops; 0 never stops early.
        compile: through torch.compile. channels_last: memory format. checkpointing: recompute activations.
        parallel: how several devices share a run: each has all weights (ddp) or a piece of them (fsdp).
    """

    steps: int
    batch_size: int
    seconds: float = 0.0
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    optimizer: Literal["adamw", "muon"] = "adamw"
    gradient_clip: float = 1.0
    accumulate: int = 1
    average: float | Sequence[float] = 0.999
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    compile: bool = False
    channels_last: bool = True
    checkpointing: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    seed: int = 0
    save_every: int = 1000
    validate_every: int = 500
    sheet_every: int = 2000
    patience: int = 0
    keep: int = 2

    def __post_init__(self) -> None:
        for name, allowed in (("precision", PRECISIONS), ("optimizer", OPTIMIZERS), ("parallel", PARALLEL)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"train.{name} is '{getattr(self, name)}'; use one of {', '.join(allowed)}")
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0.0 <= self.seconds < float("inf"):
            raise ConfigError(f"train.seconds is {self.seconds}; give a time, or 0 for a run of train.steps")
        if self.patience < 0:
            raise ConfigError(f"train.patience is {self.patience}; give a number of validations, or 0 to never stop")
        if not self.averages or not all(0.0 <= d < 1.0 for d in self.averages):
            raise ConfigError(f"train.average is {self.average}; give a decay from 0 to below 1, or a list of them")
        if len(set(self.averages)) < len(self.averages):
            raise ConfigError(f"train.average names a decay twice: {self.average}; name each once")
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ConfigError(
                "train.optimizer 'muon' needs whole matrices and train.parallel 'fsdp' cuts them; "
                "use parallel ddp or optimizer adamw"
            )
        if self.parallel == "fsdp" and self.precision == "fp16":
            raise ConfigError("train.precision 'fp16' can't be scaled under train.parallel 'fsdp'; use bf16, or ddp")
        self.share(1)

    @property
    def averages(self) -> tuple[float, ...]:
        """Every decay, the first first."""
        return (float(self.average),) if isinstance(self.average, int | float) else tuple(self.average)

    @property
    def dtype(self) -> torch.dtype:
        """The precision networks compute in; weights and optimizer stay float32."""
        return PRECISIONS[self.precision]

    def share(self, world: int) -> int:
        """Samples of one forward pass on one of `world` devices; ConfigError where the batch can't be split evenly."""
        if self.batch_size % (world * self.accumulate):
            parts = f"{world} devices" if self.accumulate == 1 else f"{world} devices x {self.accumulate} parts each"
            raise ConfigError(
                f"train.batch_size {self.batch_size} can't be split evenly over {parts}; "
                f"use a multiple of {world * self.accumulate}, or another number of devices"
            )
        return self.batch_size // (world * self.accumulate)

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step `step`, counted from 0."""
        up = min(1.0, (step + 1) / max(1, self.warmup_steps))
        down = min(1.0, (self.steps - step) / self.decay_steps) if self.decay_steps else 1.0
        return self.learning_rate * up * down
