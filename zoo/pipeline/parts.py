"""A pipeline's parts as a run calls them: each where its weights are, and in its own precision.

Parts are named after their place: a conditioner's own name, `STAGE.denoiser`, `STAGE.autoencoder`; `conditioners`,
`denoiser` and `autoencoder` are all of a kind, `rest` what nothing else names. Where they take turns
(zoo.acceleration.offload), the one that is called comes first. A part in half precision that gives NaN or infinity is
called again with every module watched, and then in float32, in which it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from zoo.acceleration.eight_bit import KINDS
from zoo.acceleration.offload import Home, Turns
from zoo.acceleration.overflow import HALF, find_overflow, finite
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.types import Guidance
from zoo.pipeline.stage import Stage
from zoo.schema.advice import option
from zoo.schema.errors import NumericError, UsageError
from zoo.schema.notes import note
from zoo.schema.unknown import unknown

T = TypeVar("T")
V = TypeVar("V")
DECODINGS = ("whole", "rows", "tiles")


@dataclass(frozen=True, kw_only=True)
class Saving:
    """How a pipeline saves memory.

    offload: parts take turns in the device's memory. decode: the autoencoder's decoder runs all at once, by `rows` to
    the same image, or by `tiles`, which changes it. weights: those of networks and text encoders in eight bits.
    """

    offload: bool = False
    decode: Literal["whole", "rows", "tiles"] = "whole"
    weights: Literal["int8", "fp8"] | None = None

    def __post_init__(self) -> None:
        if self.decode not in DECODINGS:
            raise UsageError(unknown("way to decode", self.decode, DECODINGS), code="choice-unknown")
        if self.weights is not None and self.weights not in KINDS:
            raise UsageError(unknown("kind of eight bits", self.weights, KINDS), code="choice-unknown")
        if not isinstance(self.offload, bool):
            raise UsageError(f"offload is {self.offload!r}; give true or false", code="argument-type-wrong")

    def record(self) -> dict[str, Any]:
        """The form of a record."""
        return asdict(self)


class Parts:
    """See the module. `widened` lists what overflowed, for the record; `changed` is called after a part was."""

    def __init__(
        self, conditioners: Mapping[str, Any], stages: Sequence[Stage], homes: Mapping[nn.Module, Home] | None = None
    ) -> None:
        self.stages, self.homes = stages, homes or {}
        self.widened: list[dict[str, str]] = []
        self.turns: Turns | None = None
        self.changed: Callable[[], None] = lambda: None
        named = {name: (made, "conditioners") for name, made in conditioners.items()}
        for stage in stages:
            named[f"{stage.name}.denoiser"] = (stage.denoiser, "denoiser")
            named[f"{stage.name}.autoencoder"] = (stage.autoencoder, "autoencoder")
        self.kinds = {name: kind for name, (_, kind) in named.items()}
        self.names: dict[nn.Module, str] = {}
        for name, (made, _) in named.items():
            if isinstance(made, nn.Module):
                self.names.setdefault(made, name)

    def chosen(self, said: V | Mapping[str, V], module: nn.Module) -> V | None:
        """What a value for all parts, or a mapping of parts to values, says of a module."""
        if not isinstance(said, Mapping):
            return said
        name = self.names.get(module, "rest")
        return next((said[key] for key in (name, self.kinds.get(name, "rest"), "rest") if key in said), None)

    def check(self, said: Any) -> None:
        """UsageError for a mapping that names a part which isn't there."""
        known = dict.fromkeys([*self.names.values(), *self.kinds.values(), "rest"])
        for key in said if isinstance(said, Mapping) else ():
            if key not in known:
                raise UsageError(unknown("part", str(key), list(known)), code="choice-unknown")

    def record(self, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """What a record says beside its device and dtype: parts that have others, and what overflowed."""
        placed = {}
        for module, name in self.names.items():
            first = next(module.parameters(), None)
            if first is not None:
                where = first.device if self.turns is None else self.turns.device
                placed[name] = {"device": str(where), "dtype": str(first.dtype).removeprefix("torch.")}
        alike = {"device": str(device), "dtype": str(dtype).removeprefix("torch.")}
        mixed = {"parts": placed} if any(one != alike for one in placed.values()) else {}
        return mixed | ({"widened": list(self.widened)} if self.widened else {})

    def take_turns(self, device: torch.device, others: Sequence[nn.Module]) -> None:
        """Offload from now on; `others` are modules that no name is for, like a classifier that guides."""
        units = [[module] for module in self.names if not isinstance(module, Denoiser)]
        units += [[_bare(m) for m in (stage.denoiser, *networks_in(stage.guidance))] for stage in self.stages]
        units += [[module] for module in others if module not in self.names]
        self.turns = Turns(device, units, self.homes)

    def enter(self, module: Any) -> None:
        """Before a part is called."""
        if self.turns is not None:
            self.turns.enter(_bare(module))

    def leave(self) -> None:
        """After a call: no part stays in the device's memory that takes turns."""
        if self.turns is not None:
            self.turns.leave()

    def condition(self, conditioner: Any, call: Callable[[], T]) -> T:
        """What a conditioner gives."""
        return self._guarded(conditioner, call)

    def sample(self, stage: Stage, call: Callable[[], Tensor]) -> Tensor:
        """What a stage's sampler gives."""
        return self._guarded(stage.denoiser, call)

    def encode(self, stage: Stage, images: Tensor) -> Tensor:
        """Latents of images (B, C, H, W) in [-1, 1], in float32 where the images are."""
        coder = stage.autoencoder
        return self._guarded(coder, lambda: coder.encode(_to(coder, images))).to(images.device, torch.float32)

    def decode(self, stage: Stage, x: Tensor) -> Tensor:
        """Images of samples, float32; not clipped."""
        coder = stage.autoencoder
        return self._guarded(coder, lambda: coder.decode(_to(coder, x)), given=x).float()

    def _guarded(self, module: Any, call: Callable[[], T], given: Any = ()) -> T:
        self.enter(module)
        error: NumericError | None = None
        try:
            made = call()
        except NumericError as raised:
            error = raised
        else:
            half = isinstance(module, nn.Module) and dtype_of(module) in HALF
            if not half or finite(made) or not finite(given):
                return made
        if not isinstance(module, nn.Module) or dtype_of(module) not in HALF:
            assert error is not None
            raise error
        watch, before = find_overflow(module, call), str(dtype_of(module)).removeprefix("torch.")
        if watch.module is None:  # it was given NaN, or has a weight that isn't finite
            raise error or NumericError(
                f"{self.names.get(module, type(module).__name__)} gave NaN or infinity in {before}: "
                f"{watch.found or 'no module did when it was called again'}; check the weights",
                code="network-not-finite",
            )
        self._widen(module)
        made = call()
        part, where = self.names.get(module, type(module).__name__), watch.module.removeprefix("network.")
        self.widened.append({"part": part, "module": where, "from": before, "to": "float32"})
        note(
            f"{part} overflowed {before} in '{where}', and goes on in float32; "
            f"say {option('dtype', f'{part}=float32')} to begin so",
            stacklevel=4,
        )  # fmt: skip
        return made

    def _widen(self, module: nn.Module) -> None:
        module.to(torch.float32)
        if self.turns is not None:
            self.turns.leave()
            self.enter(module)
        self.changed()


def networks_in(guidance: Sequence[Any]) -> list[nn.Module]:
    """The networks inside a stage's guidance: a classifier, a weaker denoiser; one guidance may hold another."""
    found: list[nn.Module] = []
    held = list(guidance)
    while held:
        inside = list(vars(held.pop()).values())
        found += [value for value in inside if isinstance(value, nn.Module)]
        held += [value for value in inside if isinstance(value, Guidance) and hasattr(value, "__dict__")]
    return found


def _bare(module: Any) -> Any:
    """A denoiser's network, or the module itself."""
    return module.network if isinstance(module, Denoiser) else module


def _to(module: Any, x: Tensor) -> Tensor:
    """A tensor where a module's weights are, in their precision."""
    first = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    return x if first is None else x.to(first.device, first.dtype)


def dtype_of(module: Any) -> torch.dtype:
    """The precision of a module's parameters; float32 for one without."""
    parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    return torch.float32 if parameter is None else parameter.dtype
