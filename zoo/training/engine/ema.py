"""The exponential moving average of weights (Ho et al. 2020, appendix B; Song & Ermon 2020, section 4.3)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from zoo.training.engine.distributed import like, whole
from zoo.training.engine.optimizers import on_lists


class Average:
    """Follows a network's parameters; its buffers are copied.

    The decay grows as (1 + step) / (10 + step) up to `decay`, so that a short run forgets its random start.
    `network` is a plain network of the averaged weights. Of a network that is cut over several processes each follows
    its own pieces, and `gather`, called in every process, puts them together in `network`.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._pieces: list[Tensor] = []  # of a network in pieces

    def follow(self, network: nn.Module) -> None:
        """Declare `network` cut in pieces; its averages are cut from here on."""
        mine = self.network.parameters()
        self._pieces = [like(own, new) for own, new in zip(mine, network.parameters(), strict=True)]

    def decay_at(self, step: int) -> float:
        """The decay after `step` optimizer steps."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, network: nn.Module, step: int = 0, *, decay: Any = None, stopped: Tensor | None = None) -> None:
        """Take the network's parameters after `step` optimizer steps; nothing where `stopped`, on the device, is 1.

        `decay`, a number or on the device, takes the place of `decay_at(step)`.
        """
        rate = 1.0 - (self.decay_at(step) if decay is None else decay)
        own = [_local(p) for p in self._pieces or self.network.parameters()]
        new = [_local(p) for p in network.parameters()]
        if len(own) != len(new):
            raise ValueError(f"an average of {len(own)} parameters can't follow a network of {len(new)}")
        if stopped is None:
            on_lists._foreach_lerp_(own, new, rate)
        else:
            way = on_lists._foreach_sub(new, own)
            on_lists._foreach_mul_(way, rate * (1.0 - stopped))
            on_lists._foreach_add_(own, way)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def gather(self) -> None:
        """Bring `network` up to date."""
        if self._pieces:
            for whole_one, own in zip(self.network.parameters(), self._pieces, strict=True):
                whole_one.copy_(whole(own))

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(self.network.state_dict())

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `state`."""
        self.network.load_state_dict(tensors)
        for whole_one, own in zip(self.network.parameters(), self._pieces, strict=bool(self._pieces)):
            _local(own).copy_(_local(like(whole_one, own)))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
