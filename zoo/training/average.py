"""The exponential moving average of weights (Ho et al. 2020, appendix B; Song & Ermon 2020, section 4.3)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """Follows a network's parameters; its buffers are copied.

    The decay grows as (1 + step) / (10 + step) up to `decay`, so that a short run forgets its random start.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take the network's parameters after `step` optimizer steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for own, new in zip(self.network.parameters(), network.parameters(), strict=True):
            own.lerp_(new, 1.0 - decay)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(self.network.state_dict())
