"""Each check of the suite sees the mistake that it is there for, says what it saw, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.refusals import refused
from tests.tiny import TinyNet
from zoo.autoencoders.identity import Identity
from zoo.conformance import CHECKS, examine
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import FlowSchedule
from zoo.diffusion.types import Condition, StepTable
from zoo.evaluation.metrics.keys import metric_key
from zoo.guidance.threshold import StaticThreshold
from zoo.pipeline.safety import Verdict
from zoo.samplers.euler import Euler
from zoo.samplers.grid import Trailing
from zoo.schema.errors import UsageError


class Loop(Euler):
    """Euler's method, with its call open to mistakes."""

    def __call__(self, denoise, table, x, *, noise, callback=None, after_step=None):
        return super().__call__(denoise, table, x, noise=noise, callback=callback, after_step=after_step)


@dataclass
class Thawed:
    steps: int = 5
    plan, __call__ = Euler.plan, Euler.__call__
    grid, final = Trailing(), "clean"


class AnyCount(Loop):
    def plan(self, schedule, steps=None, *, interval=(1.0, 0.0)):
        return super().plan(schedule, max(1, steps or 1), interval=interval)


class StopsShort(Loop):
    def plan(self, schedule, steps=None, *, interval=(1.0, 0.0)):
        table = super().plan(schedule, steps, interval=interval)
        return StepTable((*table.steps[:-1], replace(table.steps[-1], t_next=0.01, sigma_next=0.01)))


class AsksTwice(Loop):
    def __call__(self, denoise, table, x, **named):
        return super().__call__(lambda x, step: (denoise(x, step), denoise(x, step))[1], table, x, **named)


class Remembers(Loop):
    seen: ClassVar[list[float]] = []

    def __call__(self, denoise, table, x, **named):
        self.seen.append(1.0)
        return super().__call__(denoise, table, x + 1e-6 * len(self.seen), **named)


class WritesIntoItsStart(Loop):
    def __call__(self, denoise, table, x, **named):
        end = super().__call__(denoise, table, x.clone(), **named)
        x.mul_(0.5)
        return end


class Branches(Loop):
    def __call__(self, denoise, table, x, **named):
        factor = 0.99 if isinstance(denoise.denoiser.parameterization, V) else 1.0
        return super().__call__(denoise, table, x * factor, **named)


class MeansOfTheBatch(Loop):
    def __call__(self, denoise, table, x, **named):
        return super().__call__(denoise, table, x - x.mean(), **named)


class Narrow(Loop):
    def __call__(self, denoise, table, x, **named):
        return super().__call__(denoise, table, x.float(), **named)


class Silent(Loop):
    def __call__(self, denoise, table, x, *, callback=None, **named):
        return super().__call__(denoise, table, x, **named)


class KeepsItsOwn(Loop):
    def __call__(self, denoise, table, x, *, after_step=None, **named):
        def heard(x, step):
            if after_step is not None:
                after_step(x, step)
            return x

        return super().__call__(denoise, table, x, after_step=heard, **named)


class AllTheWay(Loop):
    def plan(self, schedule, steps=None, *, interval=(1.0, 0.0)):
        return super().plan(schedule, steps)


class Loud(Loop):
    def __call__(self, denoise, table, x, **named):
        def denoised(x, step):
            found = denoise(x, step)
            return found._replace(x0=10.0 * found.x0)

        return super().__call__(denoised, table, x, **named)


class SaysTwo(Loop):
    convergence_order = 2


class Leaky(TinyNet):
    def forward(self, x, time, **named):
        return super().forward(x - x.mean(), time, **named)


class Deaf(TinyNet):
    def forward(self, x, time, **named):
        return super().forward(x, torch.zeros_like(time), **named)


class Restless(TinyNet):
    def forward(self, x, time, **named):
        return super().forward(x + torch.rand_like(x), time, **named)


class OtherChannels(TinyNet):
    def __init__(self, **named):
        super().__init__(**named)
        self.out_channels = 5


class Half(TinyNet):
    def forward(self, x, time, **named):
        return super().forward(x @ torch.eye(x.shape[-1]), time, **named)


class Detached(TinyNet):
    def forward(self, x, time, **named):
        return super().forward(x.detach(), time, **named)


class Frequencies(TinyNet):
    """Keeps a constant that no weight file has."""

    def __init__(self, **named):
        super().__init__(**named)
        self.constant = torch.linspace(0.0, 1.0, 8)

    def forward(self, x, time, **named):
        return super().forward(x * self.constant[3], time, **named)


class SaysNothing(TinyNet):
    reads = ("context", "words")


class Latents(Identity):
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return images[..., ::2]


class Noisy(Identity):
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return images + (1.0 if noise is None else noise)


class OfTheBatch(Identity):
    def decode(self, latents: Tensor) -> Tensor:
        return latents - latents.mean()


class Words:
    context_width = 4

    def __call__(self, prompts):
        length = max(map(len, prompts))
        return Condition(tokens=torch.ones(len(prompts), length, 4))

    def null(self, batch):
        return Condition(tokens=torch.ones(batch, 1, 4))


class WideWords(Words):
    def __call__(self, prompts):
        return Condition(tokens=torch.ones(len(prompts), 1, 5))


class SaysMore(WideWords):
    fills: ClassVar = {"tokens": (), "vector": ()}


class OtherNothing(WideWords):
    null_prompt = ""

    def null(self, batch):
        return Condition(tokens=torch.zeros(batch, 1, 5))


class Clamped(FlowSchedule):
    def t_from_log_snr(self, log_snr):
        return np.clip(super().t_from_log_snr(log_snr), 0.1, 0.9)


class Steps(FlowSchedule):
    def __call__(self, t):
        return super().__call__(np.round(np.asarray(t) * 20.0) / 20.0)


class WrongReading(V):
    def target(self, x0, eps, alpha, sigma):
        return alpha * eps + sigma * x0


class Ascends:
    def __call__(self, schedule, steps):
        return np.arange(1, steps + 1) / steps


@dataclass(frozen=True, kw_only=True)
class Counting(StaticThreshold):
    calls: ClassVar[list[int]] = []

    def wrap(self, denoise, **named):
        inner = super().wrap(denoise, **named)

        def counted(x, step):
            self.calls.append(1)
            found = inner(x, step)
            return found._replace(x0=found.x0 + 0.01 * len(self.calls))

        return counted


@dataclass(frozen=True, kw_only=True)
class Doubles(StaticThreshold):
    neutral: ClassVar[dict[str, float]] = {"high": 2.0}

    def wrap(self, denoise, **named):
        return lambda x, step: denoise(x, step)._replace(x0=2.0 * denoise(x, step).x0)


class NoReason:
    def __call__(self, images):
        return [Verdict(allowed=False, reason="", score=0.0) for _ in images]


class NoName:
    def images(self, pictures, *, batch=64):
        return pictures.flatten(1).float()


class BareKey:
    layers, paired = ("pool",), True

    def __call__(self, generated, reference):
        return {"mean": float(generated.array().mean())}


class Draws(BareKey):
    def __call__(self, generated, reference):
        generated.array()[:] = 0.0
        return {metric_key("draws", generated.extractor, generated.sha256, generated.count): 1.0}


MISTAKES = [
    ("sampler", Thawed, "frozen"),
    ("sampler", AnyCount, "any-steps"),
    ("sampler", StopsShort, "walks"),
    ("sampler", AsksTwice, "evaluations"),
    ("sampler", Remembers, "pure"),
    ("sampler", WritesIntoItsStart, "pure"),
    ("sampler", Branches, "readings"),
    ("sampler", MeansOfTheBatch, "batch"),
    ("sampler", Narrow, "precision"),
    ("sampler", Silent, "callback"),
    ("sampler", KeepsItsOwn, "after-step"),
    ("sampler", AllTheWay, "interval"),
    ("sampler", Loud, "arrives"),
    ("sampler", SaysTwo, "order"),
    ("network", OtherChannels, "shapes"),
    ("network", SaysNothing, "shapes"),
    ("network", Restless, "repeatable"),
    ("network", Half, "dtypes"),
    ("network", Leaky, "own-sample"),
    ("network", Deaf, "listens"),
    ("network", Detached, "gradients"),
    ("network", Frequencies, "without-memory"),
    ("autoencoder", Latents, "sizes"),
    ("autoencoder", Noisy, "mode"),
    ("autoencoder", OfTheBatch, "own-picture"),
    ("conditioner", Words, "null"),
    ("conditioner", Words, "own-prompt"),
    ("conditioner", WideWords, "shapes"),
    ("conditioner", SaysMore, "fills"),
    ("conditioner", OtherNothing, "null-prompt"),
    ("schedule", Clamped, "inverse"),
    ("schedule", Steps, "monotone"),
    ("parameterization", WrongReading, "reads-back"),
    ("grid", Ascends, "descends"),
    ("guidance", Counting, "pure"),
    ("guidance", Doubles, "neutral"),
    ("safety", NoReason, "verdicts"),
    ("extractor", NoName, "features"),
    ("metric", BareKey, "needs"),
    ("metric", BareKey, "keys"),
    ("metric", Draws, "pure"),
]
ARGUMENTS = {"network": {"classes": 3}}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "target", "check"), MISTAKES, ids=[f"{t.__name__}-{c}" for _, t, c in MISTAKES])
def test_a_mistake_is_seen_by_its_check_and_told_with_its_mend(kind, target, check):
    wanted = next(c for c in CHECKS[kind] if c.name == check)
    failed = {o.check: o for o in _only(kind, target, wanted)}
    assert failed[check].state == "failed", failed[check]
    assert failed[check].said
    assert failed[check].mend


@pytest.mark.slow
def test_what_is_right_in_these_is_not_told_as_wrong():
    assert examine("sampler", Loop).ok
    assert examine("autoencoder", Identity).ok
    report = examine("network", TinyNet, classes=3, context_width=16)
    assert report.ok, report
    assert [o.check for o in examine("sampler", AsksTwice).failed] == ["evaluations"]


def _only(kind, target, check):
    from zoo.conformance.report import Subject, hold

    arguments = ARGUMENTS.get(kind, {})
    known = {"context_width": 16, **arguments}
    return hold([check], Subject(kind, target.__name__, lambda **more: target(**arguments, **more), known))


class Raises:
    def __init__(self, *, wrong: bool = False):
        if wrong:
            raise SystemExit(3)

    def __call__(self, schedule, steps):
        raise KeyError("lost")


class NeedsSize(nn.Module):
    def __init__(self, *, size):
        super().__init__()


def test_whatever_a_component_raises_is_a_broken_promise_that_says_where():
    report = examine("grid", Raises)
    (outcome,) = report.failed
    assert "KeyError: 'lost'" in outcome.said
    assert "test_checks_can_fail.py, line" in outcome.mend
    assert "1 promises kept, 1 broken" in str(report)
    (outcome,) = examine("grid", Raises, wrong=True).failed
    assert (outcome.check, outcome.said) == ("made", "SystemExit: 3")


def test_what_needs_arguments_says_how_to_give_them():
    (outcome,) = examine("network", NeedsSize, name="sized").failed
    assert "can't be made without size" in outcome.said
    assert "--set network.sized.KEY=VALUE" in outcome.mend


def test_a_kind_that_is_none_is_refused():
    with refused("kind-unknown", UsageError, naming="'sampler'"):
        examine("smapler", Euler)
