"""Which module overflowed first: what gave NaN or infinity is called again with every module watched.

A call is a function of its arguments, the weights and the addressed noise, so what overflowed overflows again. Nothing
is watched where nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.schema.errors import NumericError

HALF = (torch.float16, torch.bfloat16)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in lists, mappings and the fields of objects, like a `Condition`."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value.to_local() if hasattr(value, "to_local") else value  # type: ignore[operator]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from tensors_in(getattr(value, name))


def finite(value: Any) -> bool:
    """Whether no number in it is NaN or infinite; those of the meta device are none."""
    return all(t.is_meta or bool(torch.isfinite(t).all()) for t in tensors_in(value))


class Watch:
    """What the modules saw: the first bad value on the way forward."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        self.names = names
        self.module: str | None = None  # the name of a module that made it of finite numbers
        self.found: str | None = None  # a sentence about it

    def name(self, module: nn.Module) -> str:
        """A module's name and class."""
        return f"'{self.names[module] or type(module).__name__}' ({type(module).__name__})"

    def enters(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A forward pre-hook."""
        if self.found is None and not finite((args, kwargs)):
            self.found = f"{self.name(module)} is handed NaN or infinity, which no module before it gave"

    def leaves(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A forward hook."""
        if self.found is None and not finite(output):
            bad = [n for n, p in module.named_parameters() if not finite(p.detach())]
            why = f" with a weight '{bad[0]}' that isn't finite" if bad else ""
            self.module = None if bad else self.names[module]
            self.found = f"{self.name(module)} is the first module to overflow{why}"


@contextmanager
def watched(network: nn.Module, kind: type[Watch] = Watch) -> Iterator[Any]:
    """A network's modules under watch."""
    watch = kind({module: name for name, module in network.named_modules()})
    handles = [m.register_forward_pre_hook(watch.enters, with_kwargs=True) for m in watch.names]
    handles += [m.register_forward_hook(watch.leaves, with_kwargs=True) for m in watch.names]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def find_overflow(network: nn.Module, call: Callable[[], Any]) -> Watch:
    """Call again what overflowed, uncompiled, and watch; `found` is None where no module's output was bad."""
    with torch.compiler.set_stance("force_eager"), watched(network) as watch:
        try:
            call()
        except NumericError:
            if watch.found is None:
                raise
    return watch
