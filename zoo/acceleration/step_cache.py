"""Step caches: a U-Net's deep features change slowly from step to step, and can be used again.

Ma et al. 2024 (DeepCache): at every `every`-th network evaluation the whole network runs and the features that enter
its last blocks are kept; between, only the outermost blocks run, on these features. Benchmarks measure the cost
in quality (docs/benchmarks.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo.schema.errors import ConfigError
from zoo.schema.ranges import within

MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class DeepFeatures:
    """Run the whole U-Net at every `every`-th evaluation, and only its outermost blocks between.

    Args:
        every: 1 is no cache at all, 2 halves the deep work.
        blocks: blocks (of the efficient U-Net: levels) on the way in, and as many on the way out, that always run.
    """

    papers = ("2312.00858 DeepCache: Accelerating Diffusion Models for Free",)
    calls = ("evaluate",)

    every: int = 2
    blocks: int = 2

    def __post_init__(self) -> None:
        within(1, MOST, {"every": self.every, "blocks": self.blocks})

    def check(self, network: Any) -> None:
        """ConfigError for a network that can't be cut there."""
        cuts = getattr(network, "cuts", None)
        if cuts is None or not hasattr(network, "evaluate"):
            raise ConfigError(
                f"a step cache cuts a U-Net in two, and {type(network).__name__} is none; take it out",
                code="step-cache-unfit",
            )
        if self.blocks > cuts:
            raise ConfigError(
                f"a step cache is to run {self.blocks} blocks at every step and this network has {cuts} beside its "
                f"deepest; set blocks to 1 to {cuts}",
                code="step-cache-unfit",
            )

    def full_evaluations(self, evaluations: int) -> int:
        """How many of a run's evaluations are of the whole network."""
        return -(-evaluations // self.every)
