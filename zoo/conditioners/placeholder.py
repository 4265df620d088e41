"""A conditioner without a network, in place of text encoders where only speed matters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from zoo.conditioners import arguments
from zoo.diffusion.types import Condition


class StandIn:
    """Random tokens drawn from a prompt's letters: stands in for a text encoder where only speed matters.

    prompts -> Condition(tokens (B, length, context_width), vector (B, vector_width)). Equal prompts get equal tokens.
    """

    fits = "zoo.conditioners.arguments:stand_in"
    fills: ClassVar[Mapping[str, str]] = {"tokens": "context_width", "vector": "vector_width"}
    null_prompt = ""

    def __init__(self, *, context_width: int | None = 768, length: int = 77, vector_width: int | None = None) -> None:
        arguments.stand_in(context_width=context_width, length=length, vector_width=vector_width)
        self.context_width, self.length, self.vector_width = context_width, length, vector_width

    def __call__(self, prompts: Sequence[str]) -> Condition:
        tokens = None if self.context_width is None else self._drawn(prompts, (self.length, self.context_width))
        vector = None if self.vector_width is None else self._drawn(prompts, (self.vector_width,))
        return Condition(tokens=tokens, vector=vector)

    def null(self, batch: int) -> Condition:
        """The condition of the empty prompt."""
        return self([""] * batch)

    def _drawn(self, prompts: Sequence[str], shape: tuple[int, ...]) -> Tensor:
        rows = []
        for prompt in prompts:
            seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:7])
            rows.append(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
        return torch.stack(rows)
