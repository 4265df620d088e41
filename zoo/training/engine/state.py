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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.schema.errors import ConfigError, WeightsError
from zoo.training.engine import checkpoint
from zoo.training.engine.distributed import like, whole
from zoo.training.engine.ema import Average

if TYPE_CHECKING:
    from zoo.training.engine.loop import Loop

# Settings that a resumed run may change without changing the weights' identity.
OF_ONE_SITTING = ("steps", "seconds", "compile", "channels_last", "checkpointing", "save_every", "validate_every",
                  "sheet_every", "keep", "parallel", "patience")  # fmt: skip


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


def save(loop: Loop) -> Path:
    """Write a checkpoint of the loop's step; every process must call it, the first writes."""
    for average in loop.averages:
        average.gather()
    tensors: dict[str, Mapping[str, Tensor]] = {
        "network": {k: whole(v) for k, v in loop.network.state_dict().items()},
        **averages_of(loop.averages),
        "optimizer": optimizer_tensors(loop.network, loop.optimizers),
    }
    if loop.adversary is not None:
        tensors["adversary"] = dict(loop.adversary.network.state_dict())
        tensors["adversary-optimizer"] = optimizer_tensors(loop.adversary.network, loop.adversary.optimizers)
    remembered = getattr(loop.objective, "state", None)
    if remembered is not None:
        tensors["objective"] = remembered()
    # Of a run that fits a time, the requested settings: the steps derived from it are no change for the next sitting.
    settings = loop.settings if loop.fitting is None else loop.fitting.recipe
    state = {
        "identity": loop.identity, "settings": asdict(settings), "seconds": loop.seconds,
        "skipped": loop.skipped, "stopping": loop.stopping.state(), "scaler": loop.scaler.state_dict(),
        "world": loop.devices.world, **({"fitting": loop.fitting.state()} if loop.fitting is not None else {}),
    }  # fmt: skip
    path = loop.folder / "checkpoints"
    if loop.devices.rank > 0:
        return path / f"step-{loop.step:08d}"
    return checkpoint.save(path, loop.step, tensors, state, keep=loop.settings.keep)


def resume(loop: Loop) -> list[str]:
    """Restore a loop from its newest checkpoint that verifies; returns what was skipped, in words."""
    path, skipped = checkpoint.newest(loop.folder / "checkpoints")
    if path is None:
        count = "the one checkpoint" if len(skipped) == 1 else f"all {len(skipped)} checkpoints"
        raise WeightsError(
            f"nothing to resume: {count} in '{loop.folder / 'checkpoints'}' can't be read (of the newest: "
            f"{skipped[0].partition(';')[0]}); restore one, or start anew in another folder with --run",
            code="checkpoint-damaged",
        )
    tensors, state, step = checkpoint.read(path)
    _check(loop, path, tensors, state)
    if len(set(loop.devices.gather(step))) > 1:
        raise ConfigError(
            f"the run's processes see other checkpoints in '{path.parent}'; keep it on a shared disk",
            code="folder-not-shared",
        )
    entries = loop.network.state_dict()
    with torch.no_grad():
        for name, value in tensors["network"].items():
            entries[name].copy_(like(value, entries[name]))
    for name, average in zip(averages_of(loop.averages), loop.averages, strict=True):
        average.load_state(tensors[name])
    load_optimizers(loop.network, loop.optimizers, tensors["optimizer"])
    if loop.adversary is not None:
        loop.adversary.network.load_state_dict(tensors["adversary"])
        load_optimizers(loop.adversary.network, loop.adversary.optimizers, tensors["adversary-optimizer"])
    remember = getattr(loop.objective, "load_state", None)
    if remember is not None:
        remember(tensors["objective"])
    skipped = [
        *skipped,
        *_changed(state["settings"], asdict(loop.settings if loop.fitting is None else loop.fitting.recipe)),
    ]
    loop.step, loop.seconds, loop.skipped = step, float(state["seconds"]), int(state.get("skipped", 0))
    if loop.fitting is not None and "fitting" in state:
        loop.fitting.load_state(state["fitting"])
        loop.settings = loop.fitting.begin()
    if "stopping" in state:
        loop.stopping.load_state(state["stopping"])
    if state.get("scaler") and loop.scaler.is_enabled():
        loop.scaler.load_state_dict(state["scaler"])
    return skipped


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Changed settings that affect the weights from here on, in words."""
    there = [name for name in now if name in before and name not in OF_ONE_SITTING]
    plain = {name: (_plain(before[name]), _plain(now[name])) for name in there}
    return [f"train.{name} is {new} from here on and was {old}" for name, (old, new) in plain.items() if old != new]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check(loop: Loop, path: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """ConfigError where the checkpoint is another run's, WeightsError where it lacks something; before any change."""
    if state["identity"] != loop.identity:
        raise ConfigError(
            f"checkpoint '{path}' belongs to another recipe ({state['identity']}, not {loop.identity}); "
            "resume with its own recipe or choose another run folder",
            code="run-of-another-recipe",
        )
    before = state["settings"].get("optimizer", "adamw")
    if before != loop.settings.optimizer:
        raise ConfigError(
            f"checkpoint '{path}' was trained with train.optimizer '{before}', not '{loop.settings.optimizer}'; "
            "go on with the same one or choose another run folder",
            code="run-of-another-recipe",
        )
    needed = {"network": loop.network.state_dict(), **averages_of(loop.averages)}
    if loop.adversary is not None:
        needed["adversary"] = loop.adversary.network.state_dict()
    for name, own in needed.items():
        if tensors.get(name, {}).keys() != own.keys() or any(tensors[name][k].shape != own[k].shape for k in own):
            raise WeightsError(
                f"checkpoint '{path}' holds another network than the recipe's ({name}); resume with its own recipe",
                code="run-of-another-recipe",
            )
    for name in [n for n in ("optimizer", "adversary-optimizer", "objective") if _wanted(loop, n)]:
        if name not in tensors:
            raise WeightsError(
                f"checkpoint '{path}' lacks '{name}', which this run needs; start the run anew",
                code="checkpoint-incomplete",
            )


def _wanted(loop: Loop, name: str) -> bool:
    if name == "objective":
        return hasattr(loop.objective, "load_state")
    return name == "optimizer" or loop.adversary is not None
