"""Which module overflowed first: a failed step is repeated with every module watched.

A step is a function of the weights and the batch's address, so the step that gave NaN gives it again. Nothing is
watched in a run without overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value.to_local() if isinstance(value, DTensor) else value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _finite(value: Any) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in _tensors(value))


class _Watch:
    """What the modules saw: the first bad value on the way forward, and on the way back."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        self.names = names
        self.found: str | None = None
        self.backward: list[tuple[nn.Module, str, bool]] = []  # module, "into" or "out of", whether finite

    def name(self, module: nn.Module) -> str:
        return f"'{self.names[module] or type(module).__name__}' ({type(module).__name__})"

    def enters(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.found is None and not _finite((args, kwargs)):
            self.found = f"{self.name(module)} is handed NaN or infinity, which no module before it gave"
        self._hook(module, (args, kwargs), "out of")

    def leaves(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self.found is None and not _finite(output):
            bad = [n for n, p in module.named_parameters() if not _finite(p.detach())]
            why = f" with a weight '{bad[0]}' that isn't finite" if bad else ""
            self.found = f"{self.name(module)} is the first module to overflow{why}"
        self._hook(module, output, "into")

    def _hook(self, module: nn.Module, value: Any, which: str) -> None:
        """Note the gradients that pass a module on the way back: they enter at its output and leave at its input."""
        if next(module.children(), None) is not None or not torch.is_grad_enabled():
            return
        for tensor in _tensors(value):
            if tensor.requires_grad:
                tensor.register_hook(lambda g: self.backward.append((module, which, _finite(g))))

    def first_back(self, network: nn.Module) -> str | None:
        """The first module on the way back that received a finite gradient and made one that isn't."""
        bad_weights = {m for m in self.names if any(not _finite(p.grad) for p in m.parameters(recurse=False))}
        spoiled: set[nn.Module] = set()
        for module, which, finite in self.backward:
            if which == "into" and not finite:
                spoiled.add(module)
            if module in spoiled:
                continue
            if (which == "out of" and not finite) or (which == "into" and module in bad_weights):
                return f"{self.name(module)} is the first module whose gradient overflows"
        if any(not finite for _, _, finite in self.backward):
            return "the gradient overflows between the loss and the network's modules"
        names = [n for n, p in network.named_parameters() if not _finite(p.grad)]
        return f"the gradient of '{names[0]}' overflows" if names else None


@contextmanager
def _watched(network: nn.Module) -> Iterator[_Watch]:
    watch = _Watch({module: name for name, module in network.named_modules()})
    handles = [m.register_forward_pre_hook(watch.enters, with_kwargs=True) for m in watch.names]
    handles += [m.register_forward_hook(watch.leaves, with_kwargs=True) for m in watch.names]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def first_overflow(
    losses: Sequence[Callable[[], Mapping[str, Tensor]]], network: nn.Module, *, scale: float = 1.0,
    agree: Callable[[str | None], str | None] = lambda found: found,
) -> str:  # fmt: skip
    """Take the parts of a failed step again, each loss times `scale`, and say which module overflowed first.

    `agree` is called after each pass: it takes what this process found and returns what any of them found, so that
    all leave together.
    """
    found = None
    with torch.compiler.set_stance("force_eager"):
        for loss_of in losses:
            network.zero_grad(set_to_none=True)
            with _watched(network) as watch:
                scalars = loss_of()
                if watch.found is None and not _finite(scalars["loss"].detach()):
                    bad = [k for k, v in scalars.items() if not _finite(v.detach())]
                    watch.found = f"every module is finite and the loss itself overflows ({', '.join(bad)})"
                found = agree(watch.found)
                if found is None:
                    (scalars["loss"] * scale).backward()
                    found = agree(watch.first_back(network))
            if found is not None:
                break
    network.zero_grad(set_to_none=True)
    return found or "the step was finite when it was taken again"
