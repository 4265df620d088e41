"""The fast path: what makes a run faster and changes its images by rounding alone; off by default.

| part | what it does | on by default |
|---|---|---|
| `precompute` | time embeddings of all steps at once, keys and values of the text once a run | everywhere |
| `channels_last` | convolutions see channels side by side in memory; on cuda a decoder's only if compiled | cpu, cuda |
| `compile` | networks and decoder through torch.compile, which fuses norms and activations | cuda |
| `packed` | linear layers and convolutions by oneDNN, weights in its layout (zoo.acceleration.packed) | cpu |
| `graphs` | a network evaluation is recorded once as a CUDA graph and replayed: no launch overhead | cuda |

Guided and unguided samples go through the network in one batch with or without it (`zoo.guidance.classifier_free`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from zoo.acceleration import packed as packing
from zoo.schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Fast:
    """Which parts of the fast path are on; `backend` is torch.compile's, `eager` to trace and generate no code."""

    precompute: bool = False
    channels_last: bool = False
    packed: bool = False
    compile: bool = False
    graphs: bool = False
    backend: str = "inductor"

    def record(self) -> dict[str, Any]:
        """The form of a record; with the backend where it is not torch's own."""
        said = asdict(self)
        return {k: v for k, v in said.items() if k != "backend" or (self.compile and v != "inductor")}


def choose(
    device: torch.device, *, precompute: bool | None = None, channels_last: bool | None = None,
    packed: bool | None = None, compile: bool | None = None, graphs: bool | None = None,
) -> Fast:  # fmt: skip
    """What was requested; None is what helps on the device (see the module)."""
    cuda, cpu = device.type == "cuda", device.type == "cpu"
    if packed and (not cpu or not packing.able()):
        why = f"the pipeline is on {device}" if not cpu else "this PyTorch was built without it"
        raise UsageError(f"packed weights are oneDNN's, on a CPU, and {why}; leave packed out", code="device-unfit")
    if packed and compile:
        raise UsageError("a compiled network packs its weights itself; leave packed out", code="option-conflict")
    if graphs and not cuda:
        raise UsageError(
            f"CUDA graphs need a cuda device and the pipeline is on {device}; leave graphs out", code="device-unfit"
        )

    def said(value: bool | None, otherwise: bool) -> bool:
        return otherwise if value is None else bool(value)

    return Fast(
        precompute=said(precompute, True), channels_last=said(channels_last, cuda or cpu),
        packed=said(packed, cpu and not compile and packing.able()), compile=said(compile, cuda),
        graphs=said(graphs, cuda),
    )  # fmt: skip


def compiled(method: Any, backend: str) -> Any:
    """A bound method through torch.compile, for the shapes that it is called with.

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


def lay_out_weights(module: Any, fast: Fast) -> None:
    """The weights of a module in the requested memory format, and by oneDNN where that is requested."""
    if not isinstance(module, nn.Module):
        return
    # torch has this memory format for images' filters only, and refuses volumes' instead of skipping them.
    if fast.channels_last and all(p.ndim < 5 for p in module.parameters()):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    (packing.pack if fast.packed else packing.unpack)(module)


def speed_up_decoder(autoencoder: Any, fast: Fast) -> None:
    """An autoencoder laid out and its decode through torch.compile, where that is on and it has a network.

    By rows or tiles it isn't compiled: they come in many shapes.

    On a cuda device only a compiled decoder is laid out channels-last: one that wasn't compiled was slower so on an
    H200 (docs/gpu.md).
    """
    first = next(autoencoder.parameters(), None) if isinstance(autoencoder, nn.Module) else None
    if first is None:
        return
    compile = fast.compile and getattr(getattr(autoencoder, "decoder", None), "by", "whole") == "whole"
    if compile or first.device.type != "cuda":
        lay_out_weights(autoencoder, fast)
    plain = type(autoencoder).decode.__get__(autoencoder)  # type: ignore[attr-defined]
    autoencoder.decode = compiled(plain, fast.backend) if compile else plain  # type: ignore[assignment]
