"""A request's numbers as a condition: sizes and crops, as SDXL's added `time_ids` (Podell et al. 2023, section 2.2).

Each number is embedded as time is (Vaswani et al. 2017), the embeddings joined in the order of their names. Networks
that read a number by name find it bare among the condition's scalars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from zoo.conditioners import arguments
from zoo.diffusion.types import Condition
from zoo.networks.blocks import timestep_embedding
from zoo.schema.errors import UsageError

NULL = "null"  # a call's mark of the null condition, among its numbers


class Numbers:
    """A call's numbers, embedded as time is -> Condition(vector (B, len(names) * width), scalars).

    Args:
        names: of the numbers, in order; those of a call are listed at `zoo.pipeline.conditioning.numbers_of`.
        width: of each embedding, cosines first; null embeds none, and gives the scalars alone.
        fixed: numbers that are always these, whether or not a call has such numbers: `{aesthetic_score: 6.0}`.
        nothing: those that are others in the null condition, or the negative prompt's (SDXL's refiner: an
            aesthetic_score of 2.5); all others are the same in both.
    """

    papers = ("2307.01952 SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis",)
    fits = "zoo.conditioners.arguments:numbers"
    source = "request"
    fills: ClassVar[Mapping[str, Sequence[str]]] = {"vector": ("names", "width"), "scalars": ()}

    def __init__(
        self, *, names: Sequence[str] = (
            "original_height", "original_width", "crop_top", "crop_left", "target_height", "target_width",
        ), width: int | None = 256, fixed: Mapping[str, float] | None = None,
        nothing: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        arguments.numbers(names=names, width=width, fixed=fixed, nothing=nothing)
        self.names, self.width, self.fixed, self.nothing = tuple(names), width, dict(fixed or {}), dict(nothing or {})

    def __call__(self, requests: Sequence[Mapping[str, Any]]) -> Condition:
        """A call's numbers by name, one mapping a sample; UsageError for a name that they lack."""
        rows = []
        for request in requests:
            known = {**request, **self.fixed, **(self.nothing if request.get(NULL) else {})}
            missing = next((name for name in self.names if name not in known), None)
            if missing is not None:
                raise UsageError(
                    f"conditioner 'numbers' reads '{missing}' and a call has {', '.join(request)}; say it in fixed",
                    code="condition-missing",
                )
            rows.append([float(known[name]) for name in self.names])
        values = torch.tensor(rows)  # (B, len(names))
        scalars = dict(zip(self.names, values.unbind(1), strict=True))
        if self.width is None:
            return Condition(scalars=scalars)
        vector = timestep_embedding(values.flatten(), self.width).view(len(rows), -1)
        return Condition(vector=vector, scalars=scalars)
