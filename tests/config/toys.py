"""A toy package of components, and weight cards for them, so that config tests need no real model."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from typing import Any

import yaml

from zoo.schema.registry import Entry, Registry

SOURCE = '''
"""Toys."""
raise RuntimeError("importing this is forbidden: signatures are read, not run")

from dataclasses import dataclass
from typing import ClassVar, Literal
import absent_package


class Net(Module):
    """A net."""

    def __init__(self, *, in_channels: int = 4, context_width: int | None = 8, size_multiple: int = 4,
                 vector_width: int | None = None, wide: list[int] = (), classes: int | None = None,
                 null_class: bool = False, level: bool | None = None):
        pass


@dataclass
class Noisy:
    noises = True
    schedule: "Schedule"
    noised: Literal["before", "after"] = "before"


@dataclass
class Clean:
    noises = False


class Labels:
    source = "labels"

    def __init__(self, *, names: list[str], null_class: bool = True):
        pass

    def null(self, batch):
        pass


class Codec(Module):
    factor = 4

    def __init__(self, channels: int = 4):
        pass


class Plain(Module):
    default = True
    factor = 1

    def __init__(self, *, channels: int = 3):
        pass


class Text:
    def __init__(self, *, width: int = 8):
        pass

    def null(self, batch):
        pass


class Mute:
    def __init__(self, *, width: int = 8):
        pass


@dataclass
class Free:
    first = "which it would drop"
    once = "the second would drop the first"
    compares = True
    needs = ("null",)
    neutral: ClassVar[dict] = {"scale": 1.0}
    call_scale = "scale"
    scale: float = 4.0


@dataclass
class Judge:
    needs = ("labels",)
    classifier: "Module"
    scale: float = 1.0


@dataclass
class Needy:
    known: "Tensor"
'''

# What a check makes to plan a run; numpy is all that they need.
WALKING = '''
"""Toys that walk."""
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from zoo.samplers.grid import Trailing, rows
from zoo.diffusion.types import Coefficients, StepTable

Order = Literal["up", "down"]


@dataclass(frozen=True, kw_only=True)
class Even:
    """An even grid."""

    def __call__(self, schedule, steps):
        return Trailing()(schedule, steps)


@dataclass(frozen=True, kw_only=True)
class Bent:
    """A bent grid."""
    bend: float = 2.0

    def __call__(self, schedule, steps):
        return 1.0 - (np.arange(steps) / steps) ** self.bend


@dataclass(frozen=True, kw_only=True)
class _Base:
    steps: int = 10
    shared: ClassVar[int] = 3

    def plan(self, schedule, steps=None, *, interval=(1.0, 0.0)):
        count = self.steps if steps is None else steps
        return StepTable(rows(schedule, grid=self.grid, steps=count, interval=interval, final="clean"))


@dataclass(frozen=True, kw_only=True)
class Walk(_Base):
    """Walks.

    And more.
    """
    eta: float = 0.0
    grid: "Grid" = field(default_factory=Even)
    order: Order = "up"
    hidden: int = field(init=False, default=1)


@dataclass(frozen=True, kw_only=True)
class Run(_Base):
    """Runs."""
    speed: tuple[float, float] = (1.0, 2.0)
    grid: "Grid" = field(default_factory=Even)


@dataclass
class Scheme:
    steps: int = 100

    @property
    def T(self):
        return self.steps

    def __call__(self, t):
        return 1.0 - 0.9 * np.asarray(t), 0.9 * np.asarray(t)


@dataclass
class Velocity:
    def __call__(self, alpha, sigma):
        return Coefficients(alpha, -sigma, 1.0)
'''

MADE = ("grid", "sampler", "schedule", "parameterization")
TARGETS = {
    "grid": {"even": "Even", "karras": "Bent"},
    "sampler": {"walk": "Walk", "run": "Run"},
    "schedule": {"scheme": "Scheme"},
    "parameterization": {"velocity": "Velocity"},
    "network": {"net": "Net"},
    "autoencoder": {"codec": "Codec", "identity": "Plain"},
    "conditioner": {"text": "Text", "mute": "Mute", "labels": "Labels"},
    "guidance": {"classifier-free": "Free", "classifier": "Judge", "needy": "Needy"},
    "low_res": {"gaussian": "Noisy", "plain": "Clean"},
}


def write_package(folder: Path) -> Registry:
    """Write the package `toys_for_zoo` and name its components; importing those that no check makes would raise."""
    for name in [name for name in sys.modules if name.startswith("toys_for_zoo")]:
        del sys.modules[name]  # that of the test before
    importlib.invalidate_caches()
    package = folder / "toys_for_zoo"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(SOURCE)
    (package / "walking.py").write_text(WALKING)
    return Registry(
        Entry(kind, name, f"toys_for_zoo.{'walking' if kind in MADE else 'parts'}:{attr}", "toys")
        for kind, names in TARGETS.items()
        for name, attr in names.items()
    )


def write_card(folder: Path, name: str, kind: str, component: str, /, **changes: Any) -> str:
    """A card and its weight file; returns what a preset writes for it."""
    content = b"weights of " + name.encode()
    (folder / f"{name}.safetensors").write_bytes(content)
    card: dict[str, Any] = {
        "schema": "zoo.card/1",
        "kind": kind,
        "component": component,
        "summary": f"The {name}.",
        "config": {},
        "contract": {},
        "file": {
            "name": f"{name}.safetensors",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "dtype": "float32",
        },
    }
    if kind == "network":
        card["denoiser"] = {"schedule": {"name": "scheme", "steps": 50}, "parameterization": "velocity"}
    card.update(changes)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(card, sort_keys=False))
    return str(path)


def stage(**changes: Any) -> dict[str, Any]:
    """A stage of fresh toys that fit each other."""
    return {
        "name": "base",
        "listens": ["words"],
        "size": 64,
        "denoiser": {"network": "net", "schedule": "scheme", "parameterization": "velocity"},
        "autoencoder": "codec",
        "guidance": [{"name": "classifier-free", "scale": 4.0}],
        "sampler": {"name": "walk", "steps": 20, "eta": 0.5},
        **changes,
    }


def pipeline(*stages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A pipeline of fresh toys that fit each other."""
    return {
        "schema": "zoo.pipeline/1",
        "summary": "Toys.",
        "conditioners": {"words": "text"},
        "stages": list(stages) or [stage()],
        **changes,
    }
