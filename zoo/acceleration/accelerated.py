"""A denoiser's network evaluated with precomputed embeddings of a run's steps, keys and values, and deep features.

`Denoiser.forward` calls its `evaluate` in the network's place; here that is an `AcceleratedRun`. `bind` starts one for
each run, so that only what was compiled and recorded is kept between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.acceleration.engine import Engine
from zoo.acceleration.fast import Fast, lay_out_weights
from zoo.acceleration.step_cache import DeepFeatures
from zoo.diffusion.denoiser import Denoiser, times

if TYPE_CHECKING:
    from zoo.diffusion.types import StepTable


@dataclass(frozen=True, kw_only=True)
class Accelerated:
    """What is evaluated in a network's place: an engine of the fast path, a step cache, or both."""

    engine: Engine | None = None
    step_cache: DeepFeatures | None = None

    def begin(self, denoiser: Denoiser, table: StepTable) -> AcceleratedRun:
        """The evaluation of one run."""
        return AcceleratedRun(denoiser, table, self.engine, self.step_cache)


def speed_up(denoiser: Denoiser, fast: Fast) -> None:
    """Run the network as the fast path says (zoo.acceleration.fast); also where its weights were moved since."""
    lay_out_weights(denoiser.network, fast)
    denoiser.acceleration = Accelerated(engine=Engine(denoiser.network, fast), step_cache=step_cache_of(denoiser))


def cached(denoiser: Denoiser, step_cache: DeepFeatures) -> Denoiser:
    """The same network in a denoiser with a step cache; ConfigError for one that can't be cut."""
    step_cache.check(denoiser.network)
    made = Denoiser(
        network=denoiser.network, schedule=denoiser.schedule, parameterization=denoiser.parameterization,
        time_input=denoiser.time_input_name, time_rounding=denoiser.time_rounding, low_res=denoiser.low_res,
        initial_scale=denoiser.initial_scale, variance=denoiser.variance, image_condition=denoiser.image_condition,
    )  # fmt: skip
    made.acceleration = Accelerated(step_cache=step_cache)
    return made.train(denoiser.training)


def step_cache_of(denoiser: Denoiser) -> DeepFeatures | None:
    """The step cache under which a denoiser runs, if any."""
    return getattr(denoiser.acceleration, "step_cache", None)


class AcceleratedRun:
    """(x, time, arguments) -> the network's output, in one run."""

    def __init__(
        self, denoiser: Denoiser, table: StepTable, engine: Engine | None, cache: DeepFeatures | None
    ) -> None:  # fmt: skip
        self.denoiser, self.table, self.engine, self.cache = denoiser, table, engine, cache
        # Embeddings by the network's input for t, and keys and values of the text.
        self._embeddings: dict[float, Tensor] = {}
        self._context: Any = None
        # Of a step cache: deep features, and how many evaluations they have served.
        self._deep: Tensor | None = None
        self._age = 0

    def __call__(self, x: Tensor, time: float | Tensor, arguments: Mapping[str, Any]) -> Tensor:
        """x (B, C, *spatial) as the network takes it; time is one for all samples, or (B,)."""
        network: Any = self.denoiser.network
        engine, cache = self.engine, self.cache
        ahead = engine is not None and engine.fast.precompute and hasattr(network, "evaluate")
        if ahead and not isinstance(time, Tensor):
            if time not in self._embeddings:
                self._embed_ahead(time, x, arguments)
            if self._context is None and arguments.get("context") is not None:
                self._context = network.keys_values(arguments["context"])
            emb, context = self._embeddings[time], self._context
        else:
            now = times(time, x)
            if cache is None:
                return network(x, now, **arguments) if engine is None else engine.whole(x, now, arguments)
            emb, context = network.embed(now, dtype=x.dtype, **_embedded(arguments)), arguments.get("context")
        evaluate = network.evaluate if engine is None else engine.parts
        mask = arguments.get("mask")
        if cache is None:
            return evaluate(x, emb, context, mask)[0]
        if self._deep is None or self._age >= cache.every:
            output, self._deep = evaluate(x, emb, context, mask, blocks=cache.blocks)
            self._age = 0
        else:
            output, _ = evaluate(x, emb, context, mask, blocks=cache.blocks, deep=self._deep)
        self._age += 1
        return output

    def _embed_ahead(self, number: float, x: Tensor, arguments: Mapping[str, Any]) -> None:
        """The embeddings of every step of the table (and of a t that isn't in it) by one call."""
        denoiser, given = self.denoiser, _embedded(arguments)
        numbers = list(dict.fromkeys([number, *(denoiser.time_input(s.t) for s in self.table.steps)]))
        # Time alone is the same for all samples; a class or a level is not.
        rows = x.shape[0] if given else 1
        time = times(torch.tensor(numbers, dtype=torch.float64), x).repeat_interleave(rows)
        repeated = {name: value.repeat(len(numbers), *[1] * (value.ndim - 1)) for name, value in given.items()}
        made = denoiser.network.embed(time, dtype=x.dtype, **repeated)  # type: ignore[operator]
        self._embeddings = dict(zip(numbers, made.unflatten(0, (len(numbers), rows)).unbind(0), strict=True))


def _embedded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a network reads by its embedding, beside time: all but the text."""
    return {name: value for name, value in arguments.items() if name not in ("context", "mask")}
