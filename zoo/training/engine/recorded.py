"""An optimizer step as one recording that is replayed.

A small network's step is some thousand short operations, and launching them one by one takes a host longer than they
take the device. Recorded as a CUDA graph they are one launch, and meanwhile the host prepares the next batch.
What the host decides (rows, t, captions, the learning rate) is written into the tensors that the recording reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zoo.acceleration.graphs import aside, captured
from zoo.diffusion import philox
from zoo.training.engine.objective import Batch, Objective, put

# Runs a function once while it is recorded; returns its result, and what runs it again into that result.
Recorder = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]
WARM_UP = 2  # steps taken as they are, on another stream, before one is recorded: compilation, moments, workspaces


class RecordedStep:
    """`step(shares, rates)`, recorded after `WARM_UP` calls and replayed from then on; every call is a real step."""

    def __init__(
        self, objective: Objective, step: Callable[[Sequence[Batch], Sequence[Any]], Tensor], *,
        optimizers: Sequence[torch.optim.Optimizer], record: Recorder | None = None,
    ) -> None:  # fmt: skip
        self.objective, self.step, self.optimizers = objective, step, optimizers
        self.record: Recorder = record_cuda_graph if record is None else record
        self.forget()

    def forget(self) -> None:
        """Record anew: the tensors that were read or written have been replaced."""
        self.calls = 0
        self.again: Callable[[], None] | None = None
        self.read: list[dict[str, Any]] = []

    def __call__(self, shares: Sequence[Batch], rates: Sequence[float]) -> Tensor:
        """What the step returns; overwritten by the next call."""
        device = self.objective.device
        given: list[dict[str, Any]] = [{"rates": put(torch.tensor(rates), device)}]
        given += [self.objective.given(self.objective.network, share) for share in shares]  # type: ignore[attr-defined]
        if self.calls < WARM_UP:
            self.calls += 1
            with aside(device):
                return self._step(shares, given)
        if self.again is None:
            self.read = [{n: v.clone() if isinstance(v, Tensor) else v for n, v in one.items()} for one in given]
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["capturable"] = device.type == "cuda"
            with philox.held() as self.drawn_from:
                self.result, self.again = self.record(lambda: self._step(shares, self.read))
        for mine, new in zip(self.read, given, strict=True):
            _copy(mine, new)
        self.again()
        return self.result

    def _step(self, shares: Sequence[Batch], given: Sequence[Mapping[str, Any]]) -> Tensor:
        batches = [replace(share, given=one) for share, one in zip(shares, given[1:], strict=True)]
        return self.step(batches, given[0]["rates"].unbind())


def _copy(mine: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    if mine.keys() != new.keys():
        raise ValueError(f"a recorded step reads {sorted(mine)} and a batch has {sorted(new)}")
    for name, value in mine.items():
        if isinstance(value, Tensor):
            value.copy_(new[name])
        elif value != new[name]:
            raise ValueError(f"a recorded step has {name} {value} and a batch {new[name]}")


def record_cuda_graph(function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """A CUDA graph of the function, which has run before."""
    graph, result = captured(function)
    return result, graph.replay
