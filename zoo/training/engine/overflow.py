"""Which module overflowed first: a failed step is repeated with every module watched.

A step is a function of the weights and the batch's address, so the step that gave NaN gives it again. Nothing is
watched in a run without overflow. Forward it is `zoo.acceleration.overflow`, and here what gradients do besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.acceleration.overflow import Watch, finite, tensors_in, watched


class _Watch(Watch):
    """What the modules saw, on the way back too."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        super().__init__(names)
        self.backward: list[tuple[nn.Module, str, bool]] = []  # module, "into" or "out of", whether finite

    def enters(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        super().enters(module, args, kwargs)
        self._hook(module, (args, kwargs), "out of")

    def leaves(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        super().leaves(module, args, kwargs, output)
        self._hook(module, output, "into")

    def _hook(self, module: nn.Module, value: Any, which: str) -> None:
        """Note the gradients that pass a module on the way back: they enter at its output and leave at its input."""
        if next(module.children(), None) is not None or not torch.is_grad_enabled():
            return
        for tensor in tensors_in(value):
            if tensor.requires_grad:
                tensor.register_hook(lambda g: self.backward.append((module, which, finite(g))))

    def first_back(self, network: nn.Module) -> str | None:
        """The first module on the way back that received a finite gradient and made one that isn't."""
        bad_weights = {m for m in self.names if any(not finite(p.grad) for p in m.parameters(recurse=False))}
        spoiled: set[nn.Module] = set()
        for module, which, good in self.backward:
            if which == "into" and not good:
                spoiled.add(module)
            if module in spoiled:
                continue
            if (which == "out of" and not good) or (which == "into" and module in bad_weights):
                return f"{self.name(module)} is the first module whose gradient overflows"
        if any(not good for _, _, good in self.backward):
            return "the gradient overflows between the loss and the network's modules"
        names = [n for n, p in network.named_parameters() if not finite(p.grad)]
        return f"the gradient of '{names[0]}' overflows" if names else None


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
            with watched(network, _Watch) as watch:
                scalars = loss_of()
                if watch.found is None and not finite(scalars["loss"].detach()):
                    bad = [k for k, v in scalars.items() if not finite(v.detach())]
                    watch.found = f"every module is finite and the loss itself overflows ({', '.join(bad)})"
                found = agree(watch.found)
                if found is None:
                    (scalars["loss"] * scale).backward()
                    found = agree(watch.first_back(network))
            if found is not None:
                break
    network.zero_grad(set_to_none=True)
    return found or "the step was finite when it was taken again"
