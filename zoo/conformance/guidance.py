"""What guidance promises: a wrapper that is still a denoiser, on data of three classes whose denoiser is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.conformance.mixture import OracleNetwork, mixture, start
from zoo.conformance.report import Check, Fault, NotAsked, Subject
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import X0
from zoo.diffusion.schedules import LinearSchedule
from zoo.diffusion.types import Condition, DenoiseFn, Prediction, StepTable
from zoo.samplers.ddim import DDIM

SHAPE = (2, 3, 3)
CLASSES = 3  # and one more for the null label


class ClassOracle(OracleNetwork):
    """The mixture's x0, moved by the class."""

    reads = ("label",)

    def forward(self, x: Tensor, time: Tensor, *, label: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """x (B, *SHAPE), label (B,) -> x0."""
        x0 = super().forward(x, time)
        return x0 if label is None else x0 + 0.2 * (label - CLASSES).to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def _scene(rows: slice = slice(None)) -> tuple[Denoiser, StepTable, Condition, Condition, Tensor]:
    schedule = LinearSchedule()
    denoiser = Denoiser(
        network=ClassOracle(mixture(SHAPE), schedule, X0()), schedule=schedule, parameterization=X0(),
        time_rounding="interpolate",
    )  # fmt: skip
    table = DDIM(steps=6).plan(schedule)
    cond = Condition(label=torch.arange(CLASSES)[rows])
    assert cond.label is not None
    null = Condition(label=torch.full_like(cond.label, CLASSES))
    return denoiser, table, cond, null, start(table, (CLASSES, *SHAPE), dtype=torch.float32)[rows]


def _wrapped(guidance: Any, rows: slice = slice(None)) -> tuple[DenoiseFn, DenoiseFn, StepTable, Tensor]:
    denoiser, table, cond, null, x = _scene(rows)
    plain = denoiser.bind(cond, table)
    return guidance.wrap(plain, denoiser=denoiser, cond=cond, null=null, table=table), plain, table, x


def _frozen(subject: Subject) -> None:
    guidance = subject.make()
    if not is_dataclass(guidance) or not type(guidance).__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise Fault("it is no frozen dataclass", "write @dataclass(frozen=True, kw_only=True) above the class")


def _keeps_shape(subject: Subject) -> None:
    guided, _, table, x = _wrapped(subject.make())
    for step in table.steps:
        prediction = guided(x, step)
        if not isinstance(prediction, Prediction):
            raise Fault(f"what it wraps gives a {type(prediction).__name__}", "return a zoo.diffusion.types.Prediction")
        x0 = prediction.x0
        if x0.shape != x.shape or x0.dtype != torch.float32 or not bool(torch.isfinite(x0).all()):
            raise Fault(f"at t = {step.t:.3g} its x0 is {tuple(x0.shape)} of {x0.dtype}, or not finite",
                        "keep the shape and dtype of the prediction it is given")  # fmt: skip


def _pure(subject: Subject) -> None:
    guidance = subject.make()
    guided, _, table, x = _wrapped(guidance)
    before = x.clone()
    step, other = table.steps[2], table.steps[4]
    first = guided(x, step).x0.clone()
    guided(x, other)
    if not torch.equal(guided(x, step).x0, first) or not torch.equal(_wrapped(guidance)[0](x, step).x0, first):
        raise Fault("asked twice for one step, it answers differently", "keep nothing between calls")
    if not torch.equal(x, before):
        raise Fault("it changes the state that it is given", "don't write into x or into the prediction's tensors")


def _own_sample(subject: Subject) -> None:
    guidance = subject.make()
    guided, _, table, x = _wrapped(guidance)
    alone, _, _, one = _wrapped(guidance, slice(1, 2))
    for step in (table.steps[0], table.steps[3]):
        if not torch.allclose(alone(one, step).x0, guided(x, step).x0[1:2], rtol=1e-4, atol=1e-4):
            raise Fault(
                "a sample is guided otherwise alone than in a batch", "take norms and quantiles over each sample"
            )


def _neutral(subject: Subject) -> str:
    arguments = getattr(subject.make(), "neutral", None)
    if not isinstance(arguments, Mapping):
        raise NotAsked(
            "it declares no strength at which it does nothing (a class attribute `neutral`: {argument: value})"
        )
    guided, plain, table, x = _wrapped(subject.make(**arguments))
    for step in table.steps:
        if not torch.allclose(guided(x, step).x0, plain(x, step).x0, rtol=1e-5, atol=1e-5):
            raise Fault(f"at {dict(arguments)} it still changes x0", "mend it, or the `neutral` it declares")
    return f"at {dict(arguments)}"


CHECKS = (
    Check("frozen", "A guidance is a frozen dataclass.", _frozen),
    Check("shape", "What it wraps still gives a finite x0 of the state's shape, at every step.", _keeps_shape),
    Check("pure", "It keeps nothing between calls, and changes nothing that it is given.", _pure),
    Check("own-sample", "A sample is guided the same alone and in a batch.", _own_sample),
    Check("neutral", "At the strength it declares neutral it does nothing.", _neutral),
)
