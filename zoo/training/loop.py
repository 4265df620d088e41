"""The training loop: one optimizer step after another, each the same whether the run was interrupted or not.

Everything random is addressed by (seed, purpose, global sample number), so a checkpoint holds weights, their average
and the optimizer's state, and no generator's. A non-finite loss stops the run before the optimizer step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.draws import rows_of_batch
from zoo.errors import ConfigError, NumericError
from zoo.training import checkpoint
from zoo.training.average import Average
from zoo.training.objective import Batch, Objective
from zoo.training.scalars import Scalars


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The `train:` block of a recipe.

    The learning rate warms up over `warmup_steps`, stays, and falls linearly to zero over the last `decay_steps`.
    """

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_clip: float = 1.0
    average: float = 0.999
    precision: str = "bf16"
    seed: int = 0
    save_every: int = 1000
    validate_every: int = 500
    sheet_every: int = 2000
    keep: int = 2

    def __post_init__(self) -> None:
        if self.precision not in ("bf16", "fp32"):
            raise ConfigError(f"train.precision is '{self.precision}'; use 'bf16' or 'fp32'")
        for name in ("steps", "batch_size", "save_every", "validate_every", "sheet_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} is {getattr(self, name)}; it must be 1 or more")

    @property
    def dtype(self) -> torch.dtype:
        """The precision networks compute in; weights and optimizer stay float32."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step `step`, counted from 0."""
        up = min(1.0, (step + 1) / max(1, self.warmup_steps))
        down = min(1.0, (self.steps - step) / self.decay_steps) if self.decay_steps else 1.0
        return self.learning_rate * up * down


@dataclass(frozen=True)
class Progress:
    """What the loop reports after each step."""

    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float


class Loop:
    """Trains `objective.network`; `run()` goes to the last step, from a checkpoint where one was resumed."""

    def __init__(self, objective: Objective, settings: TrainSettings, folder: Path, *, identity: str) -> None:
        self.objective, self.settings, self.folder, self.identity = objective, settings, folder, identity
        self.network: nn.Module = objective.network.to(objective.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.network, decay=settings.average)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
        self.step = 0
        self.seconds = 0.0  # of training, over all sittings

    # -- checkpoints

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        names = {id(p): n for n, p in self.network.named_parameters()}
        return {
            f"{names[id(p)]}|{key}": value
            for p, entry in self.optimizer.state.items()
            for key, value in entry.items()
        }  # fmt: skip

    def save(self) -> Path:
        """Write a checkpoint of this step."""
        tensors = {
            "network": dict(self.network.state_dict()),
            "average": self.average.state(),
            "optimizer": self._optimizer_tensors(),
        }
        state = {"identity": self.identity, "settings": asdict(self.settings), "seconds": self.seconds}
        return checkpoint.save(self.folder / "checkpoints", self.step, tensors, state, keep=self.settings.keep)

    def resume(self) -> list[str]:
        """Continue from the newest checkpoint that verifies; returns what was skipped. None at all is an error."""
        path, skipped = checkpoint.newest(self.folder / "checkpoints")
        if path is None:
            raise ConfigError(f"nothing to resume: '{self.folder / 'checkpoints'}' has no checkpoint that verifies")
        tensors, state, step = checkpoint.read(path)
        if state["identity"] != self.identity:
            raise ConfigError(
                f"checkpoint '{path}' belongs to another recipe ({state['identity']}, not {self.identity}); "
                "resume with its own recipe or choose another run folder"
            )
        self.network.load_state_dict(tensors["network"])
        self.average.network.load_state_dict(tensors["average"])
        parameters = dict(self.network.named_parameters())
        for key, value in tensors["optimizer"].items():
            name, entry = key.rsplit("|", 1)
            if value.ndim == 4:  # moments follow their parameter's memory format
                value = value.contiguous(memory_format=torch.channels_last)
            # AdamW keeps its step count on the host unless capturable, fused ones beside the parameter.
            self.optimizer.state[parameters[name]][entry] = value.to(parameters[name].device)
        self.step, self.seconds = step, float(state["seconds"])
        return skipped

    # -- the run

    def batch(self, step: int) -> Batch:
        """Batch `step` of the run."""
        size, seed = self.settings.batch_size, self.settings.seed
        return Batch(
            rows=rows_of_batch(seed, step, size, self.objective.rows),
            samples=np.arange(step * size, (step + 1) * size, dtype=np.int64),
            seed=seed,
            device=self.objective.device,
        )

    def train_step(self) -> float:
        """One optimizer step; returns its loss. Raises NumericError before anything changes if that isn't finite."""
        settings = self.settings
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate(self.step)
        scalars = self.objective.loss(self.network, self.batch(self.step))
        loss = float(scalars["loss"].detach())
        if not math.isfinite(loss):
            raise NumericError(
                f"the loss of step {self.step} is {loss}; the last checkpoint is unharmed: "
                "resume with a lower train.learning_rate or train.precision=fp32"
            )
        scalars["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.gradient_clip)
        if not torch.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise NumericError(
                f"the gradient of step {self.step} is not finite; the last checkpoint is unharmed: "
                "resume with a lower train.learning_rate or train.precision=fp32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.network, self.step)
        return loss

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean scalars of the averaged network over the validation rows, with the same noise every time."""
        size, count = self.settings.batch_size, self.objective.validation_rows
        sums: dict[str, float] = {}
        for start in range(0, count, size):
            rows = np.arange(start, min(start + size, count))
            batch = Batch(
                rows=rows, samples=rows, seed=self.settings.seed, training=False, device=self.objective.device
            )
            for key, value in self.objective.loss(self.average.network, batch).items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(rows)
        return {key: value / count for key, value in sums.items()}

    def run(self, on_progress: Callable[[Progress], Any] | None = None) -> Mapping[str, float]:
        """Train to the last step, saving on the way; returns the last validation scalars.

        An interrupt saves nothing: it may fall inside a step, and half a step is no state to resume from.
        """
        settings = self.settings
        scalars = Scalars(self.folder)
        last: Mapping[str, float] = {}
        rate = 0.0
        try:
            while self.step < settings.steps:
                begin = time.perf_counter()
                loss = self.train_step()
                took = time.perf_counter() - begin
                self.seconds += took
                rate = settings.batch_size / took if rate == 0.0 else 0.95 * rate + 0.05 * settings.batch_size / took
                if self.step % 20 == 0 or self.step == settings.steps:
                    scalars.write(self.step, {"train/loss": loss, "train/images_per_second": rate})
                if self.step % settings.validate_every == 0 or self.step == settings.steps:
                    last = self.validate()
                    scalars.write(self.step, {f"validation/{k}": v for k, v in last.items()})
                if self.step % settings.sheet_every == 0 or self.step == settings.steps:
                    sheet = self.objective.sheet(self.average.network)
                    if sheet is not None:
                        scalars.picture(self.step, sheet)
                if self.step % settings.save_every == 0 or self.step == settings.steps:
                    self.save()
                if on_progress is not None:
                    left = (settings.steps - self.step) * settings.batch_size / rate
                    on_progress(Progress(self.step, settings.steps, loss, rate, left))
        finally:
            scalars.close()
        return last
