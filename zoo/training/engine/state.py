"""The content of a checkpoint: weights, averages, optimizers; the same files for any number of devices.

| file | tensors |
|---|---|
| `network` | the trained weights |
| `average`, `average-DECAY` | the first moving average, and each further one |
| `optimizer` | PARAMETER\\|ENTRY: moments and step counts |
| `adversary`, `adversary-optimizer` | of an objective's second network |
| `objective` | what an objective remembers of the run: the losses an importance sampler has seen |

No generator's state is among them: everything random is addressed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.schema.errors import ConfigError, WeightsError
from zoo.training.engine import checkpoint
from zoo.training.engine.adversary import Adversary
from zoo.training.engine.distributed import Devices, like, whole
from zoo.training.engine.early_stopping import Stopping
from zoo.training.engine.ema import Average
from zoo.training.engine.objective import Objective
from zoo.training.engine.settings import TrainSettings
from zoo.training.engine.time_limit import Fitting

# Settings that a resumed run may change without changing the weights' identity.
OF_ONE_SITTING = ("steps", "seconds", "compile", "graphs", "channels_last", "checkpointing", "save_every",
                  "validate_every", "sheet_every", "keep", "parallel", "patience")  # fmt: skip


def averages_of(averages: Sequence[Average]) -> dict[str, dict[str, Tensor]]:
    """Each average's tensors under its file's name."""
    return {"average" if i == 0 else f"average-{a.decay:g}": a.state() for i, a in enumerate(averages)}


def optimizer_tensors(network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """PARAMETER|ENTRY -> tensor."""
    names = {id(p): n for n, p in network.named_parameters()}
    return {
        f"{names[id(p)]}|{key}": whole(value)
        for optimizer in optimizers
        for p, entry in optimizer.state.items()
        for key, value in entry.items()
    }  # fmt: skip


def load_optimizers(
    network: nn.Module, optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """Give optimizers the state of `optimizer_tensors`."""
    parameters = dict(network.named_parameters())
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    for key, value in tensors.items():
        name, entry = key.rsplit("|", 1)
        parameter = parameters[name]
        # Moments follow their parameter. AdamW's step count, a fused one, stands beside its parameter too.
        owner[id(parameter)].state[parameter][entry] = like(value, parameter)


class Resumable:
    """What of a run a checkpoint restores, as its attributes, and how."""

    objective: Objective
    settings: TrainSettings
    folder: Path
    identity: str
    devices: Devices
    network: nn.Module
    averages: list[Average]
    optimizers: list[torch.optim.Optimizer]
    adversary: Adversary | None
    scaler: torch.amp.GradScaler
    stopping: Stopping
    fitting: Fitting | None
    step: int
    skipped: int
    seconds: float

    def save(self) -> Path:
        """Write a checkpoint of this step; every process must call it, the first writes."""
        for average in self.averages:
            average.gather()
        tensors: dict[str, Mapping[str, Tensor]] = {
            "network": {k: whole(v) for k, v in self.network.state_dict().items()},
            **averages_of(self.averages),
            "optimizer": optimizer_tensors(self.network, self.optimizers),
        }
        if self.adversary is not None:
            tensors["adversary"] = dict(self.adversary.network.state_dict())
            tensors["adversary-optimizer"] = optimizer_tensors(self.adversary.network, self.adversary.optimizers)
        remembered = getattr(self.objective, "state", None)
        if remembered is not None:
            tensors["objective"] = remembered()
        # Of a run that fits a time, the requested settings: the steps derived from it are no change for the next
        # sitting.
        settings = self.settings if self.fitting is None else self.fitting.recipe
        state = {
            "identity": self.identity, "settings": asdict(settings), "seconds": self.seconds,
            "skipped": self.skipped, "stopping": self.stopping.state(), "scaler": self.scaler.state_dict(),
            "world": self.devices.world, **({"fitting": self.fitting.state()} if self.fitting is not None else {}),
        }  # fmt: skip
        path = self.folder / "checkpoints"
        if self.devices.rank > 0:
            return path / f"step-{self.step:08d}"
        return checkpoint.save(path, self.step, tensors, state, keep=self.settings.keep)

    def resume(self) -> list[str]:
        """Continue from the newest checkpoint that verifies; returns what was skipped, in words.

        None at all is an error.
        """
        path, skipped = checkpoint.newest(self.folder / "checkpoints")
        if path is None:
            count = "the one checkpoint" if len(skipped) == 1 else f"all {len(skipped)} checkpoints"
            raise WeightsError(
                f"nothing to resume: {count} in '{self.folder / 'checkpoints'}' can't be read (of the newest: "
                f"{skipped[0].partition(';')[0]}); restore one, or start anew in another folder with --run",
                code="checkpoint-damaged",
            )
        tensors, state, step = checkpoint.read(path)
        self._check(path, tensors, state)
        if len(set(self.devices.gather(step))) > 1:
            raise ConfigError(
                f"the run's processes see other checkpoints in '{path.parent}'; keep it on a shared disk",
                code="folder-not-shared",
            )
        entries = self.network.state_dict()
        with torch.no_grad():
            for name, value in tensors["network"].items():
                entries[name].copy_(like(value, entries[name]))
        for name, average in zip(averages_of(self.averages), self.averages, strict=True):
            average.load_state(tensors[name])
        load_optimizers(self.network, self.optimizers, tensors["optimizer"])
        if self.adversary is not None:
            self.adversary.network.load_state_dict(tensors["adversary"])
            load_optimizers(self.adversary.network, self.adversary.optimizers, tensors["adversary-optimizer"])
        remember = getattr(self.objective, "load_state", None)
        if remember is not None:
            remember(tensors["objective"])
        skipped = [
            *skipped,
            *_changed(state["settings"], asdict(self.settings if self.fitting is None else self.fitting.recipe)),
        ]
        self.step, self.seconds, self.skipped = step, float(state["seconds"]), int(state.get("skipped", 0))
        if self.fitting is not None and "fitting" in state:
            self.fitting.load_state(state["fitting"], step, self.seconds)
            self.settings = self.fitting.begin()
        if "stopping" in state:
            self.stopping.load_state(state["stopping"])
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        return skipped

    def _check(self, path: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Raise ConfigError where the checkpoint is another run's, WeightsError where it lacks something."""
        if state["identity"] != self.identity:
            raise ConfigError(
                f"checkpoint '{path}' belongs to another recipe ({state['identity']}, not {self.identity}); "
                "resume with its own recipe or choose another run folder",
                code="run-of-another-recipe",
            )
        before = state["settings"].get("optimizer", "adamw")
        if before != self.settings.optimizer:
            raise ConfigError(
                f"checkpoint '{path}' was trained with train.optimizer '{before}', not '{self.settings.optimizer}'; "
                "go on with the same one or choose another run folder",
                code="run-of-another-recipe",
            )
        needed = {"network": self.network.state_dict(), **averages_of(self.averages)}
        if self.adversary is not None:
            needed["adversary"] = self.adversary.network.state_dict()
        for name, own in needed.items():
            if tensors.get(name, {}).keys() != own.keys() or any(tensors[name][k].shape != own[k].shape for k in own):
                raise WeightsError(
                    f"checkpoint '{path}' holds another network than the recipe's ({name}); resume with its own recipe",
                    code="run-of-another-recipe",
                )
        for name in [n for n in ("optimizer", "adversary-optimizer", "objective") if self._wanted(n)]:
            if name not in tensors:
                raise WeightsError(
                    f"checkpoint '{path}' lacks '{name}', which this run needs; start the run anew",
                    code="checkpoint-incomplete",
                )

    def _wanted(self, name: str) -> bool:
        if name == "objective":
            return hasattr(self.objective, "load_state")
        return name == "optimizer" or self.adversary is not None


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Changed settings that affect the weights from here on, in words."""
    there = [name for name in now if name in before and name not in OF_ONE_SITTING]
    plain = {name: (_plain(before[name]), _plain(now[name])) for name in there}
    return [f"train.{name} is {new} from here on and was {old}" for name, (old, new) in plain.items() if old != new]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
