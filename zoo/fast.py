"""The fast path: what makes a run quicker and changes its pictures by rounding alone; off by default.

| part | what it does | on where nothing is said |
|---|---|---|
| `precompute` | time embeddings of all steps at once, keys and values of the text once a run | everywhere |
| `channels_last` | convolutions see pixels' channels side by side in memory | cpu, cuda |
| `compile` | networks and decoder through torch.compile, which fuses norms and activations | cuda |
| `graphs` | a network evaluation is recorded once as a CUDA graph and replayed: no launch is waited for | cuda |

Guided and unguided samples go through the network in one batch with or without it (`zoo.guidance.classifier_free`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import UsageError

# moving: inputs that differ from step to step; fixed: those of the whole run.
Moving = tuple[Tensor | None, ...]
Fixed = Mapping[str, Any]
Function = Callable[[Moving, Fixed], tuple[Tensor, ...]]
Recorder = Callable[[Function, Moving, Fixed], tuple[tuple[Tensor, ...], Callable[[], None]]]


@dataclass(frozen=True, kw_only=True)
class Fast:
    """Which parts of the fast path are on; `backend` is torch.compile's, `eager` to trace and generate no code."""

    precompute: bool = False
    channels_last: bool = False
    compile: bool = False
    graphs: bool = False
    backend: str = "inductor"

    def record(self) -> dict[str, Any]:
        """As a record says it; the backend where it is not torch's own."""
        said = asdict(self)
        return {k: v for k, v in said.items() if k != "backend" or (self.compile and v != "inductor")}


def choose(
    device: torch.device, *, precompute: bool | None, channels_last: bool | None, compile: bool | None,
    graphs: bool | None,
) -> Fast:  # fmt: skip
    """What was asked for; None is what helps on the device (see the module)."""
    cuda = device.type == "cuda"
    if graphs and not cuda:
        raise UsageError(f"CUDA graphs need a cuda device and the pipeline is on {device}; leave graphs out")

    def said(value: bool | None, otherwise: bool) -> bool:
        return otherwise if value is None else bool(value)

    return Fast(
        precompute=said(precompute, True), channels_last=said(channels_last, cuda or device.type == "cpu"),
        compile=said(compile, cuda), graphs=said(graphs, cuda),
    )  # fmt: skip


class Engine:
    """A network under the fast path: laid out, compiled and recorded as far as that is on."""

    def __init__(self, network: Any, fast: Fast) -> None:
        self.network, self.fast = network, fast
        self._whole = self._prepared(self._call_whole)
        self._parts = self._prepared(self._call_parts)

    def whole(self, x: Tensor, time: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
        """network(x, time, **fields)."""
        return self._whole((self._laid(x), time), fields)[0]

    def parts(
        self, x: Tensor, emb: Tensor, context: Any, mask: Tensor | None, *, blocks: int = 0, deep: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """network.evaluate, for an embedding and keys and values that were worked out before."""
        return self._parts((self._laid(x), emb, deep), {"context": context, "mask": mask, "blocks": blocks})

    def _laid(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self.fast.channels_last and x.ndim == 4 else x

    def _prepared(self, function: Function) -> Function:
        made: Function = compiled(function, self.fast.backend) if self.fast.compile else function
        return Graphed(made) if self.fast.graphs else made

    def _call_whole(self, moving: Moving, fixed: Fixed) -> tuple[Tensor, ...]:
        x, time = moving
        return (self.network(x, time, **fixed),)

    def _call_parts(self, moving: Moving, fixed: Fixed) -> tuple[Tensor, ...]:
        x, emb, deep = moving
        made = self.network.evaluate(x, emb, fixed["context"], fixed["mask"], blocks=fixed["blocks"], deep=deep)
        # Without a step cache nobody asks for the deep features, which a recording would copy at every step.
        return made if fixed["blocks"] else made[:1]


def compiled(method: Any, backend: str) -> Any:
    """A bound method through torch.compile, for the shapes that it meets.

    torch counts compilations by code object and from the eighth on runs uncompiled, with no more than a warning. So
    each method is given a code object of its own: the stages of a cascade, or the pipelines of a benchmark, would
    otherwise use up each other's.
    """
    plain = method.__func__
    own = FunctionType(
        plain.__code__.replace(), plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__
    )
    own.__kwdefaults__ = plain.__kwdefaults__
    return torch.compile(MethodType(own, method.__self__), dynamic=False, backend=backend)


class Graphed:
    """A function of tensors, recorded the first time that shapes are met, and replayed from then on.

    `record` makes a recording: given the function and the memory that it shall read, the memory that it writes and
    what runs it again.
    """

    def __init__(self, function: Function, record: Recorder | None = None) -> None:
        self.function = function
        self.record: Recorder = record_cuda_graph if record is None else record
        self.recordings: dict[Any, _Recording] = {}
        self._known: tuple[tuple[Any, ...], Any] = ((), ())  # the fixed values of the latest call, and their shapes

    def __call__(self, moving: Moving, fixed: Fixed) -> tuple[Tensor, ...]:
        # A recording has no gradient, which guidance that goes back through the network asks for.
        if torch.is_grad_enabled() and any(m is not None and m.requires_grad for m in moving):
            return self.function(moving, fixed)
        key = (_shapes(moving), self._fixed_shapes(fixed))
        if key not in self.recordings:
            self.recordings[key] = _Recording(self.function, moving, fixed, self.record)
        return self.recordings[key].replay(moving, fixed)

    def _fixed_shapes(self, fixed: Fixed) -> Any:
        # A large U-Net has 140 keys and values, the same ones from step to step: they are looked through once a run.
        values = tuple(fixed.items())
        seen, shapes = self._known
        same = len(seen) == len(values) and all(
            a[0] == b[0] and a[1] is b[1] for a, b in zip(seen, values, strict=True)
        )
        if not same:
            shapes = _shapes(values)
            self._known = (values, shapes)
        return shapes


def record_cuda_graph(
    function: Function, moving: Moving, fixed: Fixed
) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
    """A CUDA graph of the function, on the device of what it reads."""
    place = next(m.device for m in moving if m is not None)
    # A stream, and so a graph, belongs to the device that is current when it is made.
    with torch.cuda.device(place):
        # Recording allows no first-time work (compilation, workspaces), so the function runs before, off the stream.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                function(moving, fixed)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # What another thread asks of the driver meanwhile (its power, say) is none of this recording's business.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = function(moving, fixed)

    def run() -> None:
        with torch.cuda.device(place):
            graph.replay()

    return outputs, run if torch.cuda.device_count() > 1 else graph.replay


class _Recording:
    """A recording with the memory that it reads and writes."""

    def __init__(self, function: Function, moving: Moving, fixed: Fixed, record: Recorder) -> None:
        # Inference mode's tensors may not be written to outside of it, and a recording outlives the run it was made in.
        with torch.inference_mode(False), torch.no_grad():
            self.moving = tuple(None if m is None else m.clone() for m in moving)
            self.fixed = {name: _copied(value) for name, value in fixed.items()}
        self.source = fixed
        self.outputs, self.run = record(function, self.moving, self.fixed)

    def replay(self, moving: Moving, fixed: Fixed) -> tuple[Tensor, ...]:
        for place, value in zip(self.moving, moving, strict=True):
            if place is not None and value is not None:
                place.copy_(value)
        # What is fixed for a run is copied once a run.
        for name, value in fixed.items():
            if value is not self.source[name]:
                _copy_into(self.fixed[name], value)
        self.source = fixed
        self.run()
        # The next replay writes over the outputs, and others may still hold these.
        return tuple(output.clone() for output in self.outputs)


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    return tuple(_shapes(v) for v in value) if isinstance(value, tuple) else value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return tuple(_copied(v) for v in value) if isinstance(value, tuple) else value


def _copy_into(place: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        place.copy_(value)
    elif isinstance(value, tuple):
        for inner, given in zip(place, value, strict=True):
            _copy_into(inner, given)


def lay_out_weights(module: Any, fast: Fast) -> None:
    """The weights of a module in the memory format asked for."""
    # torch has this memory format for pictures' filters only, and refuses volumes' instead of passing them over.
    if fast.channels_last and isinstance(module, nn.Module) and all(p.ndim < 5 for p in module.parameters()):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compiled_decoder(autoencoder: Any, fast: Fast) -> None:
    """An autoencoder's decode through torch.compile, where that is on and it has a network."""
    if not isinstance(autoencoder, nn.Module) or next(autoencoder.parameters(), None) is None:
        return
    plain = type(autoencoder).decode.__get__(autoencoder)  # type: ignore[attr-defined]
    autoencoder.decode = compiled(plain, fast.backend) if fast.compile else plain  # type: ignore[assignment]
