"""What a sampler promises, checked on data whose denoiser is known (zoo.conformance.mixture).

Any sampler with any weights is right if it sees x0 only: then the trajectory is the same whatever the network predicts.
The order of convergence is measured over an interval of a smooth schedule, against a Runge-Kutta solution of the
probability-flow ODE dy/ds = eps, with y = x / alpha and s = sigma / alpha (Karras et al. 2022, eq. 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from math import exp, isfinite, log, log2
from typing import Any

import torch
from torch import Tensor

from zoo.conformance.mixture import AngleSchedule, Mixture, mixture, oracle, relative, start
from zoo.conformance.report import Check, Fault, NotAsked, Subject
from zoo.diffusion.noise import AddressedNoise, bound
from zoo.diffusion.parameterization import EDM, X0, Eps, Flow, Score, V
from zoo.diffusion.schedules import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, VESchedule
from zoo.diffusion.types import Condition, NoiseSchedule, Parameterization, Step, StepReport, StepTable
from zoo.schema.errors import ZooError

SHAPE = (2, 3, 3)
SCHEDULES: dict[str, NoiseSchedule] = {
    "linear": LinearSchedule(),
    "cosine": CosineSchedule(),
    "flow": FlowSchedule(),
    "ve": VESchedule(),
    "edm": EDMSchedule(),
}
READINGS: dict[str, Parameterization] = {"eps": Eps(), "v": V(), "flow": Flow(), "score": Score(), "edm": EDM()}
FAR = 5.0  # data lies within about 2 of 0
COUNTS = (80, 160)  # steps between which the order is measured
SLACK = 0.35  # of a measured order
_LOOP = "let __call__ be a pure loop over the table's rows, as zoo.samplers.linear is"


@dataclass(frozen=True, eq=False)
class Drawn:
    """One run on the oracle."""

    end: Tensor
    table: StepTable
    states: tuple[Tensor, ...]
    reports: tuple[StepReport, ...]
    evaluations: int
    noises: int
    kept: bool  # whether the start is still what it was


@lru_cache(maxsize=1)
def _data() -> Mixture:
    return mixture(SHAPE)


def draw(
    sampler: Any, table: StepTable, schedule: NoiseSchedule, *, reading: Parameterization | None = None,
    rows: Sequence[int] = (0, 1, 2), dtype: torch.dtype = torch.float64, shift: float = 0.0,
) -> Drawn:  # fmt: skip
    """Run a sampler over its table; `shift` is added to the state after the last step."""
    denoiser = oracle(_data(), schedule, X0() if reading is None else reading)
    x = start(table, (3, *SHAPE), dtype=dtype)[list(rows)]
    before = x.clone()
    source = bound(AddressedNoise(7), shape=SHAPE, samples=rows)
    asked, states, reports = [], [], []

    def noise(step: int, draw: int = 0) -> Tensor:
        asked.append((step, draw))
        return source(step, draw)

    def after_step(x: Tensor, step: Step) -> Tensor:
        states.append(x.clone())
        return x + shift if step.index == len(table) - 1 else x

    denoise = denoiser.bind(Condition(), table)
    end = sampler(denoise, table, x, noise=noise, callback=reports.append, after_step=after_step)
    return Drawn(
        end=end, table=table, states=tuple(states), reports=tuple(reports),
        evaluations=len(denoiser.network.calls),  # type: ignore[arg-type]
        noises=len(asked), kept=torch.equal(x, before),
    )  # fmt: skip


def _linear(subject: Subject, steps: int = 6) -> tuple[Any, StepTable, NoiseSchedule]:
    """A sampler with its table on the first schedule it takes."""
    sampler = subject.make()
    name, schedule = next(_taken(sampler))
    return sampler, sampler.plan(SCHEDULES[name], steps), schedule


def _taken(sampler: Any) -> Iterator[tuple[str, NoiseSchedule]]:
    """The schedules it has a plan for; a refusal by a ZooError is allowed too."""
    refused, found = "", False
    for name, schedule in SCHEDULES.items():
        try:
            sampler.plan(schedule, 2)
        except ZooError as error:
            refused = str(error)
            continue
        found = True
        yield name, schedule
    if not found:
        raise Fault(f"its plan refuses every schedule ({refused})", f"let it take one of {', '.join(SCHEDULES)}")


def _frozen(subject: Subject) -> None:
    sampler = subject.make()
    if not is_dataclass(sampler) or not type(sampler).__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise Fault("it is no frozen dataclass", "write @dataclass(frozen=True, kw_only=True) above the class")
    if sampler != subject.make():
        raise Fault("two samplers made alike are unequal", "compare by fields: leave the dataclass's own __eq__")


def _any_steps(subject: Subject) -> None:
    sampler = subject.make()
    for number, (name, schedule) in enumerate(_taken(sampler)):
        for steps in (1, 2, 3, 7, 50, *((1000,) if number == 0 else ())):
            table = sampler.plan(schedule, steps)
            numbers = [v for s in table.steps for v in (s.t, s.alpha, s.sigma, *s.coefficients, *s.own.values())]
            if not len(table) or not all(isfinite(v) for v in numbers):
                raise Fault(
                    f"its plan of {steps} steps on '{name}' holds numbers that aren't finite",
                    "look at steps from alpha = 0 and to sigma = 0, where only first order is left",
                )
            if steps == 7 and table != sampler.plan(schedule, steps):
                raise Fault(f"its plan of {steps} steps on '{name}' is another one when asked again",
                            "let plan depend on its arguments alone")  # fmt: skip
        try:
            sampler.plan(schedule, 0)
        except ZooError:
            continue
        raise Fault("it plans 0 steps", "raise a UsageError, as zoo.samplers.grid.rows does")


def _walks(subject: Subject) -> None:
    sampler = subject.make()
    clean = getattr(sampler, "final", "clean") == "clean"
    for name, schedule in _taken(sampler):
        for steps in (1, 9):
            table = sampler.plan(schedule, steps)
            where = f"in {steps} steps on '{name}'"
            last = table.steps[-1]
            if clean and (last.t_next, last.sigma_next) != (0.0, 0.0):
                raise Fault(f"{where} it ends at t = {last.t_next:.4g} with noise of {last.sigma_next:.3g}",
                            "let the last row lead to t = 0, where sigma = 0")  # fmt: skip
            if [s.index for s in table.steps] != list(range(len(table))):
                raise Fault(f"{where} its rows aren't numbered 0, 1, 2, ...", "number them in order")
            if not bool(torch.isfinite(draw(sampler, table, schedule).end).all()):
                raise Fault(f"{where} it gives NaN or infinity", "look at its steps from alpha = 0 and to sigma = 0")


def _evaluations(subject: Subject) -> None:
    sampler = subject.make()
    for name, schedule in _taken(sampler):
        for steps in (1, 2):
            table = sampler.plan(schedule, steps)
            drawn = draw(sampler, table, schedule)
            if not drawn.evaluations == table.evaluations == len(table):
                raise Fault(
                    f"its plan of {steps} steps on '{name}' counts {table.evaluations} network evaluations and the run "
                    f"makes {drawn.evaluations}",
                    "let the table have one row an evaluation, and call denoise once a row",
                )


def _pure(subject: Subject) -> None:
    sampler, table, schedule = _linear(subject)
    known = [f.name for f in fields(type(sampler))] if is_dataclass(type(sampler)) else []
    before = [(name, getattr(sampler, name)) for name in known]
    first = draw(sampler, table, schedule)
    draw(sampler, sampler.plan(schedule, 3), schedule)
    second = draw(sampler, table, schedule)
    if not torch.equal(first.end, second.end):
        raise Fault("two calls with the same start and noise give different tensors",
                    "keep what the run remembers in the loop, not in the sampler")  # fmt: skip
    if not first.kept:
        raise Fault("it changes the tensor that it is given to start from", "don't write into x: make a new one")
    if before != [(name, getattr(sampler, name)) for name, _ in before]:
        raise Fault("a run changes the sampler", "keep what the run remembers in the loop, not in the sampler")


def _readings(subject: Subject) -> str:
    sampler = subject.make()
    tried = []
    for name, schedule in _taken(sampler):
        if name not in ("linear", "flow"):
            continue
        table = sampler.plan(schedule, 6)
        whole = draw(sampler, table, schedule)
        for reading, parameterization in READINGS.items():
            if reading in ("eps", "score") and any(s.alpha == 0.0 for s in table.steps):
                continue
            other = draw(sampler, table, schedule, reading=parameterization)
            same = zip((*whole.states, whole.end), (*other.states, other.end), strict=False)
            if not all(torch.allclose(a, b, rtol=1e-7, atol=1e-7) for a, b in same):
                raise Fault(
                    f"on '{name}' a network that says {reading} is led along another trajectory than one that says x0",
                    "use Prediction.x0 alone, and derive eps from it and x",
                )
            tried.append(reading)
    return f"x0, {', '.join(dict.fromkeys(tried))}" if tried else ""


def _batch(subject: Subject) -> None:
    sampler, table, schedule = _linear(subject)
    whole = draw(sampler, table, schedule).end
    for row in range(3):
        alone = draw(sampler, table, schedule, rows=(row,)).end
        if not torch.allclose(alone, whole[row : row + 1], rtol=1e-9, atol=1e-9):
            raise Fault("a sample alone is another one than in a batch of 3",
                        "take norms, means and quantiles over each sample, never over the batch")  # fmt: skip


def _precision(subject: Subject) -> None:
    sampler, table, schedule = _linear(subject)
    wide = draw(sampler, table, schedule).end
    if wide.dtype != torch.float64:
        raise Fault(
            f"from float64 it gives {wide.dtype}", "keep the state as wide as it comes: zoo.samplers.state.wide"
        )
    narrow = draw(sampler, table, schedule, dtype=torch.float32).end
    apart = relative(narrow, wide)
    if narrow.dtype != torch.float32 or not apart < 1e-3:
        raise Fault(f"in float32 ({narrow.dtype}) its result is {apart:.2g} away from that in float64",
                    "work the update's weights out in plan, in float64")  # fmt: skip
    half = draw(sampler, table, schedule, dtype=torch.bfloat16).end
    if half.dtype != torch.float32:
        raise Fault(f"from bfloat16 it gives {half.dtype}, which loses small steps",
                    "begin with zoo.samplers.state.wide(x)")  # fmt: skip


def _callback(subject: Subject) -> None:
    sampler, table, schedule = _linear(subject)
    drawn = draw(sampler, table, schedule)
    count = len(table)
    if [(r.index, r.total) for r in drawn.reports] != [(i, count) for i in range(count)]:
        raise Fault(f"callback hears {len(drawn.reports)} reports of {count} rows, or not in order",
                    "call it once a row, with StepReport(index=step.index, ...)")  # fmt: skip


def _after_step(subject: Subject) -> None:
    sampler, table, schedule = _linear(subject)
    drawn = draw(sampler, table, schedule)
    if len(drawn.states) != len(table):
        raise Fault(f"after_step is called {len(drawn.states)} times in {len(table)} rows",
                    "end each row with x = x_next if after_step is None else after_step(x_next, step)")  # fmt: skip
    if not torch.equal(draw(sampler, table, schedule, shift=10.0).end, drawn.end + 10.0):
        raise Fault("what after_step gives for the last row isn't what the run gives", "return the state it gave")


def _interval(subject: Subject) -> None:
    sampler, _, schedule = _linear(subject)
    upper, lower = (sampler.plan(schedule, 10, interval=i) for i in ((1.0, 0.5), (0.5, 0.0)))
    if not 0.0 < lower.start.t <= 0.5 + 1e-9:
        raise Fault(f"asked to start at t <= 0.5 it starts at {lower.start.t:.4g}", "hand interval on to grid.rows")
    left, met = upper.steps[-1], lower.start
    if abs(left.t_next - met.t) > 1e-9:
        raise Fault(
            f"of two stages that share the way at t = 0.5 one stops at t = {left.t_next:.4g} and the next starts at "
            f"{met.t:.4g}",
            "let an interval's last row lead to the grid's next node: grid.rows does",
        )


def _arrives(subject: Subject) -> str:
    sampler = subject.make()
    remark = ""
    for name, schedule in _taken(sampler):
        for steps in (9, 200):
            farthest = float(draw(sampler, sampler.plan(schedule, steps), schedule).end.abs().max())
            if farthest < FAR:
                break
            remark = f"on '{name}' in 200 steps and not in 9"
        else:
            raise Fault(f"on '{name}' a run of 200 steps ends {farthest:.3g} from 0, and the data within 2",
                        "look at its first step: from next to pure noise only Euler's is safe")  # fmt: skip
    return remark


def _order(subject: Subject) -> str:
    sampler, schedule = subject.make(), AngleSchedule()
    declared = getattr(sampler, "convergence_order", None)
    errors, tables = [], []
    for count in COUNTS:
        try:
            tables.append(sampler.plan(schedule, count, interval=(0.9, 0.2)))
        except ZooError as error:
            raise NotAsked(f"its plan refuses a continuous schedule ({error})") from error
        drawn = draw(sampler, tables[-1], schedule)
        if drawn.noises:
            raise NotAsked("it asks for noise, so it follows no single solution")
        errors.append(relative(drawn.end, _solution(tables[-1])))
    if errors[1] < 1e-8:
        return "closer to the solution than can be measured"
    order = log2(errors[0] / errors[1])
    told = f"the error falls from {errors[0]:.2g} to {errors[1]:.2g} where {COUNTS[0]} steps become {COUNTS[1]}"
    if declared is not None and order < declared - SLACK:
        raise Fault(f"its convergence_order is {declared} and {order:.2f} is measured: {told}",
                    "mend its weights, or say the order it has")  # fmt: skip
    if order < 1.0 - SLACK:
        raise Fault(f"it doesn't converge to the solution of the ODE: {told}", "hold its update against the equation")
    return f"order {order:.2f}"


def _solution(table: StepTable) -> Tensor:
    """The ODE's solution at the table's end, from the start that `draw` takes."""
    begin, last = table.start, table.steps[-1]
    return _runge_kutta(begin.alpha, begin.sigma, last.alpha_next, last.sigma_next)


@lru_cache(maxsize=8)
def _runge_kutta(alpha: float, sigma: float, alpha_end: float, sigma_end: float, steps: int = 240) -> Tensor:
    row = Step(0, 0.0, alpha, sigma, 0.0, alpha_end, sigma_end)
    y = start(StepTable((row,)), (3, *SHAPE)) / alpha
    low, high = log(sigma / alpha), log(sigma_end / alpha_end)
    h = (high - low) / steps

    def slope(y: Tensor, at: float) -> Tensor:
        return y - _data().x0(y, 1.0, exp(at))  # dy / dln(s) = s eps

    for k in range(steps):
        at = low + k * h
        a = slope(y, at)
        b = slope(y + 0.5 * h * a, at + 0.5 * h)
        c = slope(y + 0.5 * h * b, at + 0.5 * h)
        d = slope(y + h * c, at + h)
        y = y + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
    return alpha_end * y


CHECKS = (
    Check("frozen", "A sampler is a frozen dataclass, equal to one made alike.", _frozen),
    Check("any-steps", "Any number of steps from 1 up has a finite plan, always the same; 0 is refused.", _any_steps),
    Check("walks", "A run comes to its clean end on every schedule that it takes, and stays finite.", _walks),
    Check("evaluations", "A run asks the network as often as its plan says.", _evaluations),
    Check("pure", "Two calls with the same noise give the same tensor, and change nothing.", _pure),
    Check("readings", "The trajectory is the same whatever the network says: x0, eps, v, ...", _readings),
    Check("batch", "A sample is the same alone and in a batch.", _batch),
    Check("precision", "The state is float32 or wider, and float32 is enough.", _precision),
    Check("callback", "The callback hears of every row, in order.", _callback),
    Check("after-step", "What after_step makes of a state is what the run goes on with.", _after_step),
    Check("interval", "Stages on neighbouring intervals of t meet.", _interval),
    Check("arrives", "A run ends among the data.", _arrives),
    Check("order", "A deterministic solver converges, with the order it declares if it declares one.", _order),
)
