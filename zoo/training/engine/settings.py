"""The `train:` block of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from zoo.schema.errors import ConfigError
from zoo.training.engine.optimizers import NAMES as OPTIMIZERS

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PARALLEL = ("ddp", "fsdp")
RANGES = {"seconds": 1e9, "learning_rate": 1e3, "weight_decay": 1e3, "gradient_clip": 1e9}  # upper bounds
COUNTS = ("steps", "batch_size", "accumulate", "save_every", "validate_every", "sheet_every", "keep")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The `train:` block of a recipe.

    The learning rate warms up over `warmup_steps`, stays, and falls linearly to zero over the last `decay_steps`.

    Args:
        steps: of the run; with `seconds` only what warmup_steps and decay_steps are shares of.
        seconds: of a run that fits this time, and sets its steps itself (zoo.training.engine.time_limit); 0 for one of
            `steps`.
        batch_size: samples of one optimizer step, over all devices and all parts.
        accumulate: parts a device's share of a batch is taken in, one after another, to save memory.
        average: decay of the weights' moving average, or several; the first is validated and is what NAME holds.
        precision: what networks compute in; fp16 comes with a loss scale, and skips the steps that overflow it.
        patience: validations without a lower loss after which the run stops; 0 never stops early.
        gradient_clip: the largest norm of a gradient, longer ones are made that long; 0 or null clips nothing.
        compile: through torch.compile. graphs: an optimizer step as one CUDA graph, recorded once; on a CPU there is
            none. channels_last: memory format. checkpointing: recompute activations.
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
    gradient_clip: float | None = 1.0
    accumulate: int = 1
    average: float | Sequence[float] = 0.999
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    compile: bool = False
    graphs: bool = False
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
                raise ConfigError(
                    f"train.{name} is '{getattr(self, name)}'; use one of {', '.join(allowed)}", code="choice-unknown"
                )
        for name in COUNTS:
            self._whole(name, 1, 2**24 if name == "batch_size" else 10**9)
        for name in ("warmup_steps", "decay_steps", "patience"):
            self._whole(name, 0, 10**9)
        self._whole("seed", 0, 2**64 - 1)
        for name, most in RANGES.items():
            value: Any = getattr(self, name)
            value = 0.0 if value is None and name == "gradient_clip" else value
            if not (_number(value) and 0.0 <= value <= most):
                raise ConfigError(
                    f"train.{name} is {value!r}; give a number from 0 to {most:g}", code="number-out-of-range"
                )
        betas = self.betas
        if len(betas) != 2 or not all(_number(b) and 0.0 <= b < 1.0 for b in betas):
            raise ConfigError(
                f"train.betas is {list(betas)}; give two numbers from 0 to below 1, like [0.9, 0.99]",
                code="number-out-of-range",
            )
        if not self.averages or not all(0.0 <= d < 1.0 for d in self.averages):
            raise ConfigError(
                f"train.average is {self.average}; give a decay from 0 to below 1, or a list of them",
                code="number-out-of-range",
            )
        if len(set(self.averages)) < len(self.averages):
            raise ConfigError(
                f"train.average names a decay twice: {self.average}; name each once", code="entries-repeated"
            )
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ConfigError(
                "train.optimizer 'muon' needs whole matrices and train.parallel 'fsdp' cuts them; "
                "use parallel ddp or optimizer adamw",
                code="parallel-unfit",
            )
        if self.parallel == "fsdp" and self.precision == "fp16":
            raise ConfigError(
                "train.precision 'fp16' can't be scaled under train.parallel 'fsdp'; use bf16, or ddp",
                code="parallel-unfit",
            )
        self.share(1)

    def _whole(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(
                f"train.{name} is {value!r}; give a whole number from {least} to {most}", code="number-out-of-range"
            )

    @property
    def largest_norm(self) -> float:
        """The norm that gradients are held to; infinite where they are not."""
        return self.gradient_clip or float("inf")

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
                f"use a multiple of {world * self.accumulate}, or another number of devices",
                code="batch-indivisible",
            )
        return self.batch_size // (world * self.accumulate)

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step `step`, counted from 0."""
        up = min(1.0, (step + 1) / max(1, self.warmup_steps))
        down = min(1.0, (self.steps - step) / self.decay_steps) if self.decay_steps else 1.0
        return self.learning_rate * up * down


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
