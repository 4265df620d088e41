"""A tiny objective that tests of the engine train: every random address matters to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.processes import ended, worlds
from zoo.training.engine.loop import Loop, TrainSettings
from zoo.training.engine.objective import Batch


class Line:
    """Fit a small convolution to another one; noise in, so that every random address matters."""

    rows, validation_rows = 10, 5
    device = torch.device("cpu")

    def __init__(self, *, dropout: float = 0.0, precision: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.precision = precision
        self.network: nn.Module = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Dropout(dropout), nn.ModuleList([nn.Conv2d(4, 4, 1)])[0],
            nn.Conv2d(4, 1, 1),
        )  # fmt: skip
        self.poison: int | None = None

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        x = batch.noise((2, 5, 5), "x") + torch.from_numpy(batch.rows).view(-1, 1, 1, 1) / 10
        # Stratified over the global batch, as timesteps are.
        level = (batch.places + batch.uniform("level")) / batch.of
        target = x.sum(dim=1, keepdim=True) * torch.from_numpy(level).float().view(-1, 1, 1, 1)
        with torch.autocast("cpu", self.precision, enabled=self.precision != torch.float32):
            y = network(x).float()
        loss = (y - target).square().mean()
        if self.poison is not None and batch.training and int(batch.samples[-1]) >= self.poison:
            loss = loss * float("nan")
        return {"loss": loss, "level": torch.tensor(level.mean())}

    def sheet(self, network: nn.Module) -> Tensor | None:
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return network.state_dict(), {}


def settings(**changes: Any) -> TrainSettings:
    plain = {
        "steps": 20, "batch_size": 4, "warmup_steps": 3, "decay_steps": 4, "precision": "fp32", "save_every": 5,
        "validate_every": 5, "sheet_every": 20, "keep": 3, "weight_decay": 0.1, "learning_rate": 1e-2,
    }  # fmt: skip
    return TrainSettings(**{**plain, **changes})


def weights_of(loop: Loop) -> dict[str, Tensor]:
    """Trained weights and every average's, copied."""
    found = {k: v.clone() for k, v in loop.network.state_dict().items()}
    for average in loop.averages:
        found |= {f"{average.decay}.{k}": v.clone() for k, v in average.state().items()}
    return found


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[k] - second[k]).abs().max()) for k in first)


def together(world: int, work: Callable[[], object], folder: Path) -> list[tuple[int | None, str]]:
    """Run `work` in `world` processes as torchrun would; each one's exit code and what it raised, in words."""
    folder.mkdir(parents=True, exist_ok=True)
    said = [folder / f"rank-{rank}.txt" for rank in range(world)]
    codes = ended(worlds([work] * world, said))
    return [(code, place.read_text() if place.exists() else "") for code, place in zip(codes, said, strict=True)]
