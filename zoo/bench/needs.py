"""What a pipeline takes in memory and in operations, found out without weights and without drawing.

Its networks are built on torch's meta device, where tensors have shapes and no numbers, and a call of one step goes
through them in float32: texts, stages, decoding. Every tensor that an operation makes counts until nothing holds it;
what libraries allocate inside an operation isn't seen. Activations are taken to grow with the batch and with the width
of a number.
"""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

import zoo
from zoo.acceleration.eight_bit import wide_layers
from zoo.acceleration.offload import content
from zoo.autoencoders import rows, tiles
from zoo.bench.pipelines import picture, words
from zoo.bench.suite import PROMPTS
from zoo.config.check import Resolved, resolve
from zoo.pipeline.parts import networks_in
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.stage import Stage, lay_out, pixels
from zoo.schema.errors import ZooError

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a number


@dataclass(frozen=True, kw_only=True)
class How:
    """How a pipeline is drawn with; the last three as in `zoo.pipeline.parts.Saving`."""

    precision: str = "float32"
    batch: int = 1
    offload: bool = False
    decode: str = "whole"
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class PartNeeds:
    """A part: `wide` are numbers that eight bits may hold, with `scales`; activations are bytes of float32, for one
    image, by how they are computed (`whole`; a decoder's also `rows`, whatever the batch, and `tiles`)."""

    name: str
    kind: str  # conditioners, denoiser, autoencoder or guidance
    parameters: int
    wide: int
    scales: int
    largest: int  # numbers of the largest wide layer, which is multiplied out where it is used
    activations: dict[str, int]
    operations: int  # of one call for one image; 2 a multiply-add
    calls: int

    def weight_bytes(self, how: How) -> int:
        """What its weights take."""
        width = WIDTHS[how.precision]
        if how.weights is None or self.kind == "autoencoder":
            return self.parameters * width
        return (self.parameters - self.wide + self.scales) * width + self.wide

    def peak_bytes(self, how: How) -> int:
        """What its activations take at once."""
        width, by = WIDTHS[how.precision], how.decode if how.decode in self.activations else "whole"
        batch = 1 if by == "rows" else how.batch
        extra = self.largest * width if how.weights is not None and self.kind != "autoencoder" else 0
        return self.activations[by] * width // 4 * batch + extra


@dataclass(frozen=True, kw_only=True)
class Needs:
    """A pipeline's parts in the order of their calls."""

    parts: tuple[PartNeeds, ...]

    def weight_bytes(self, how: How) -> int:
        """Of all parts."""
        return sum(part.weight_bytes(how) for part in self.parts)

    def peak_bytes(self, how: How) -> int:
        """The most at once: weights, all or one part's, and activations."""
        if how.offload:
            return max(part.weight_bytes(how) + part.peak_bytes(how) for part in self.parts)
        return self.weight_bytes(how) + max(part.peak_bytes(how) for part in self.parts)

    @property
    def operations(self) -> int:
        """Of one image."""
        return sum(part.operations * part.calls for part in self.parts)


class _MadeError(Exception):
    """A pipeline is there, and its weights aren't wanted."""


def unread(resolved: Resolved) -> Pipeline:
    """A checked pipeline on the meta device; of weight files only headers were read."""
    found: list[Pipeline] = []

    def stop(pipe: Pipeline) -> None:
        found.append(pipe)
        raise _MadeError

    try:
        with torch.device("meta"):
            zoo.build(resolved, before_weights=stop)
    except _MadeError:
        for module in found[0].modules():
            module.to("meta")
    return found[0]


@torch.no_grad()  # in inference mode an operation made of others would be seen as one
def needs_of(pipe: Pipeline, *, size: int | tuple[int, ...] | None = None) -> Needs:
    """What one image takes. pipe: one from `unread`."""
    called = words(pipe, 1, PROMPTS, size)  # type: ignore[arg-type]
    shown = pipe.stages[0].denoiser.image_condition
    if shown is not None:
        side = picture(*pixels(lay_out(pipe.stages, size)[0]))
        called |= {"image": side, "mask": side[:1]} if shown == "masked" else {shown: side[0]}
    checked = pipe.check(**called, steps=1)
    (walk,) = pipe.walks(checked)
    one, live = slice(0, 1), Live(t for module in pipe.modules() for t in content(module).values())
    found: dict[str, PartNeeds] = {}
    x: Any = None
    for run in walk.runs:
        stage = run.stage
        towers = {
            n: m for n in stage.conditioners if isinstance(m := pipe.conditioners[n], nn.Module) and n not in found
        }
        with live.watching(towers.values()) as seen:
            run.conditioning(run.number, one)
        for (name, made), operations in zip(towers.items(), seen.operations, strict=True):
            found[name] = _part(name, "conditioners", made, seen.peak, operations, calls=1)
        with live.watching([stage.denoiser.network]) as seen:
            x = run.draw(one, x, lambda _: None)
        evaluations = stage.sampler.plan(stage.denoiser.schedule, interval=stage.interval).evaluations
        name = f"{stage.name}.denoiser"
        found[name] = _part(name, "denoiser", stage.denoiser, seen.peak, seen.operations[0], calls=evaluations)
        for number, module in enumerate(networks_in(stage.guidance)):
            name = f"{stage.name}.guidance.{number}"
            found[name] = _part(name, "guidance", module, 0, 0, calls=0)
        if isinstance(stage.autoencoder, nn.Module) and next(stage.autoencoder.parameters(), None) is not None:
            found[f"{stage.name}.autoencoder"] = _decoder(f"{stage.name}.autoencoder", pipe, stage, x, live)
    return Needs(parts=tuple(found.values()))


def planned(config: Mapping[str, Any], *, size: int | None, how: How) -> dict[str, Any]:
    """What is planned for a row of a suite, to be held against what it took; or why nothing can be."""
    try:
        needs = _needs(json.dumps([config, size]))
    except (ZooError, RuntimeError, NotImplementedError) as error:
        return {"planned_weight_bytes": None, "planned_activation_bytes": None, "planned_reason": str(error)[:160]}
    weights = needs.weight_bytes(how)
    return {
        "planned_weight_bytes": weights, "planned_activation_bytes": needs.peak_bytes(how) - weights,
        "planned_reason": None,
    }  # fmt: skip


@lru_cache(maxsize=16)
def _needs(row: str) -> Needs:
    config, size = json.loads(row)
    return needs_of(unread(resolve(config)), size=size)


def _part(name: str, kind: str, module: nn.Module, peak: int, operations: int, *, calls: int) -> PartNeeds:
    layers = [layer.weight for layer in wide_layers(module)]
    return PartNeeds(
        name=name, kind=kind, parameters=sum(p.numel() for p in module.parameters()),
        wide=sum(w.numel() for w in layers), scales=sum(len(w) for w in layers),
        largest=max((w.numel() for w in layers), default=0), activations={"whole": peak}, operations=operations,
        calls=calls,
    )  # fmt: skip


def _decoder(name: str, pipe: Pipeline, stage: Stage, x: Tensor, live: Live) -> PartNeeds:
    """An autoencoder; what its decoder takes by rows and by tiles follows from its features' sizes."""
    with live.watching([]) as seen:
        images = pipe.parts.decode(stage, x).nbytes
    coder: Any = stage.autoencoder
    made = _part(name, "autoencoder", coder, seen.peak, seen.total, calls=1)
    decoder: Any = getattr(coder, "decoder", None)
    if not hasattr(decoder, "by"):
        return made
    height, width = x.shape[2:]
    whole = made.activations["whole"]
    tile = whole * min(tiles.TILE, height) * min(tiles.TILE, width) // (height * width)
    by_rows = rows.peak_bytes(decoder, (height, width), 4) + images
    activations = {"whole": whole, "rows": min(by_rows, whole), "tiles": min(tile + 2 * images, whole)}
    return dataclasses.replace(made, activations=activations)


@dataclass
class Seen:
    """What a call made: the most bytes at once, over those before it, and operations: of each module's first call, and
    of everything."""

    peak: int = 0
    operations: list[int] = dataclasses.field(default_factory=list)
    total: int = 0


class Live(TorchDispatchMode):
    """Counts operations, and the bytes of tensors that are alive; those of `known` tensors aren't counted."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = self.operations = 0
        self._sizes: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    @contextmanager
    def watching(self, modules: Iterable[nn.Module]) -> Iterator[Seen]:
        """What is called inside."""
        seen, before, done = Seen(), self.now, self.operations
        self.most = self.now
        hooks: list[Any] = []
        for number, module in enumerate(modules):
            seen.operations.append(0)
            began: list[int] = []
            hooks.append(module.register_forward_pre_hook(lambda *_, began=began: began.append(self.operations)))

            def after(*_: Any, began: list[int] = began, number: int = number) -> None:
                seen.operations[number] = seen.operations[number] or self.operations - began[-1]

            hooks.append(module.register_forward_hook(after))
        try:
            with self, _WithoutNumbers(self):
                yield seen
        finally:
            for hook in hooks:
                hook.remove()
        seen.peak, seen.total = self.most - before, self.operations - done

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """`__torch_dispatch__`."""
        made = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.operations += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=made)
        for tensor in (made,) if isinstance(made, Tensor) else tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._see(tensor)
        return made

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place = storage._cdata
        if place in self._sizes:
            return
        self._sizes[place] = storage.nbytes()
        self.now += self._sizes[place]
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, place)

    def _gone(self, place: int) -> None:
        self.now -= self._sizes.pop(place)


# Not defined inside the class, where torch would have its compiler look at it, and import that for seconds.
Live.__torch_dispatch__ = Live.dispatch  # type: ignore[method-assign]


class _WithoutNumbers(TorchFunctionMode):
    """Attention as devices do it, without the matrix of all pairs, which the meta device would make; and where numbers
    are wanted on the host, ones."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live = live

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if func is F.scaled_dot_product_attention and args[0].ndim == 4:
                q, k, v = args[:3]
                self.live.operations += sdpa_flop_count(q.shape, k.shape, v.shape)
                return q.new_empty((*q.shape[:-1], v.shape[-1]))
            if func in (Tensor.cpu, Tensor.any):
                return torch.ones(args[0].shape if func is Tensor.cpu else (), dtype=args[0].dtype)
        return func(*args, **(kwargs or {}))
