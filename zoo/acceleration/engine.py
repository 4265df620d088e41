"""A network under the fast path: laid out, compiled and recorded as far as that is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.acceleration.fast import Fast, compiled
from zoo.acceleration.graphs import Fixed, Function, Graphed, Moving


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
        """network.evaluate, for an embedding and keys and values that were computed before."""
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
        # Without a step cache nothing uses the deep features, which a recording would copy at every step.
        return made if fixed["blocks"] else made[:1]
