"""Networks that take turns in a device's memory: one is there while it is called, the weights of the others at home.

On an accelerator home is the host's memory. On the CPU it is what `homes` gives: the files, from which weights are read
again. Weights are never written back, since drawing doesn't change them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

Home = Callable[[], Mapping[str, Tensor]]  # a module's parameters and buffers by name


def content(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters and buffers, those that no file holds among them."""
    return {n: t.detach() for n, t in (*module.named_parameters(), *module.named_buffers())}


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replace parameters and buffers, wherever and of whatever kind the tensors are."""
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        holder = module.get_submodule(owner)
        if leaf in holder._parameters:
            holder._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        else:
            holder._buffers[leaf] = tensor


class Turns:
    """See the module.

    Args:
        device: where networks are called.
        units: those that are called together, like a denoiser and what guides it; they come and leave together.
        homes: of modules whose weights are read again, where the device is the CPU; others stay there.
    """

    def __init__(
        self, device: torch.device, units: Iterable[Sequence[nn.Module]], homes: Mapping[nn.Module, Home]
    ) -> None:
        self.device = device
        self.inside: tuple[nn.Module, ...] | None = None
        self._homes: dict[nn.Module, Home] = {}
        self._unit: dict[nn.Module, tuple[nn.Module, ...]] = {}
        for unit in units:
            # On the CPU a module that no file is for would wait in the memory that it is to leave.
            able = (module for module in unit if module in homes or device.type != "cpu")
            own = tuple(module for module in able if module not in self._unit)
            self._unit |= dict.fromkeys(own, own)
            for module in own:
                if device.type == "cpu":
                    self._homes[module] = homes[module]
                else:
                    kept = {name: tensor.to("cpu") for name, tensor in content(module).items()}
                    self._homes[module] = lambda kept=kept: kept
                self._out(module)

    def enter(self, module: nn.Module) -> None:
        """Have a module's weights on the device, and no other unit's."""
        unit = self._unit.get(module)
        if unit is None or unit is self.inside:
            return
        self.leave()
        for one in unit:
            own = content(one)
            put(one, {n: t.to(self.device, own[n].dtype) for n, t in self._homes[one]().items()})
        self.inside = unit

    def leave(self) -> None:
        """Have no weights on the device."""
        for module in self.inside or ():
            self._out(module)
        self.inside = None

    def _out(self, module: nn.Module) -> None:
        if self.device.type == "cpu":  # its memory is the device's: a place for each tensor is all that stays
            put(module, {n: torch.empty_like(t, device="meta") for n, t in content(module).items()})
        else:
            own = content(module)
            put(module, {n: t.to(own[n].dtype) for n, t in self._homes[module]().items()})
