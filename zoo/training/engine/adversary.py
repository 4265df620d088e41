"""A second network that an objective trains against the first (Goodfellow et al. 2014; Esser et al. 2021, eq. 6).

An objective that has one names it `adversary` and gives `adversary_loss(network, batch)`, whose entry `loss` it
minimises; that loss needs no gradient of the first network. Both networks' gradients are made before either steps,
so a step that overflows changes neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from zoo.schema.errors import ConfigError
from zoo.training.engine.distributed import Devices, LossOf
from zoo.training.engine.objective import Batch, Objective
from zoo.training.engine.optimizers import optimizers
from zoo.training.engine.settings import TrainSettings


class Adversary:
    """The adversary with its optimizer: AdamW, at the run's learning rate."""

    def __init__(self, objective: Objective, settings: TrainSettings, devices: Devices) -> None:
        if settings.precision == "fp16" or devices.sharded:
            raise ConfigError(
                "an objective with an adversary trains with train.precision bf16 or fp32 and train.parallel ddp",
                code="parallel-unfit",
            )
        self.network: nn.Module = objective.adversary.to(objective.device)  # type: ignore[attr-defined]
        first = objective.network

        def loss(_: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            return objective.adversary_loss(first, batch)  # type: ignore[attr-defined]

        self.loss_of = devices.wrap(LossOf(loss, self.network))
        self.devices, self.clip = devices, settings.largest_norm
        self.optimizers = optimizers(
            self.network, "adamw", learning_rate=settings.learning_rate, weight_decay=settings.weight_decay,
            betas=settings.betas,
        )  # fmt: skip
        self.network.requires_grad_(False)  # the first network's loss passes through it

    def gradients(self, shares: Sequence[Batch]) -> dict[str, float]:
        """Make the gradients of a step; its scalars, means over the shares."""
        sums: dict[str, float] = {}
        self.network.train().requires_grad_(True)
        for i, share in enumerate(shares):
            with self.devices.gradients_meet(self.loss_of, i + 1 == len(shares)):
                scalars = self.loss_of(share)
                (scalars["loss"] / len(shares)).backward()
            for key, value in scalars.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / len(shares)
        self.network.requires_grad_(False)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        return {**sums, "gradient_norm": float(norm)}

    def step(self, rate: float) -> None:
        """Take the step."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        for p in self.network.parameters():
            p.grad = None
