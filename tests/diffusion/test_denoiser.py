"""The denoiser: what reaches the network, and how its output is read."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.samplers.oracle import AngleSchedule
from zoo.diffusion.denoiser import TIME_INPUTS, Denoiser
from zoo.diffusion.parameterization import EDM, X0, Eps, V
from zoo.diffusion.schedules import CosineSchedule, EDMSchedule, LinearSchedule, ScaledLinearSchedule
from zoo.diffusion.types import Coefficients, Condition
from zoo.samplers.ddim import DDIM
from zoo.samplers.grid import Karras, Trailing
from zoo.schema.errors import ConfigError, NumericError, UsageError


class Recorder(nn.Module):
    """Keeps what it is handed; answers with a channel count and a value."""

    def __init__(self, *, out_channels=2, value=0.5, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))
        self.out_channels, self.value = out_channels, value
        self.seen = []

    def forward(self, x, time, **fields):
        self.seen.append((x, time, fields))
        return torch.full((x.shape[0], self.out_channels, *x.shape[2:]), self.value, dtype=x.dtype)


def make(network=None, **changes):
    settings = {"schedule": LinearSchedule(), "parameterization": Eps(), **changes}
    return Denoiser(network=Recorder() if network is None else network, **settings)


def call(denoiser, cond=None, x=None, steps=4, row=0):
    table = DDIM().plan(denoiser.schedule, steps)
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) if x is None else x
    return denoiser.bind(Condition() if cond is None else cond, table)(x, table.steps[row]), x, table.steps[row]


@pytest.mark.parametrize("parameterization", [Eps(), X0(), V()])
def test_output_is_read_by_the_parameterization(parameterization):
    prediction, x, step = call(make(parameterization=parameterization), row=2)
    c_skip, c_out, _ = parameterization(step.alpha, step.sigma)
    assert torch.allclose(prediction.x0, c_skip * x + c_out * torch.full_like(x, 0.5), rtol=1e-6)
    assert prediction.variance_logit is None
    assert prediction.score is None


def test_input_is_scaled_as_the_parameterization_says():
    class Halved:
        def __call__(self, alpha, sigma):
            return Coefficients(c_skip=0.0, c_out=1.0, c_in=0.5)

    denoiser = make(parameterization=Halved())
    _, x, _ = call(denoiser)
    assert torch.equal(denoiser.network.seen[0][0], 0.5 * x)


@pytest.mark.parametrize(
    ("schedule", "time", "unit"),
    [(ScaledLinearSchedule(), "index", 1.0), (EDMSchedule(sigma_max=3.0), "sigma", math.sqrt(10.0))],
)
def test_a_run_from_noise_starts_as_large_as_the_noise_or_as_x_t_of_unit_data(schedule, time, unit):
    begin = DDIM().plan(schedule, 5).start
    sigma = float(schedule(1.0)[1])
    assert make(schedule=schedule, time_input=time).start_scale(begin) == sigma < unit - 1e-3
    made = make(schedule=schedule, time_input=time, initial_scale="unit")
    assert made.start_scale(begin) == pytest.approx(unit, rel=1e-12)
    with refused("choice-unknown", ConfigError, naming="'one'"):
        make(initial_scale="one")


def test_only_present_fields_reach_the_network():
    denoiser = make()
    call(denoiser)
    assert denoiser.network.seen[0][2] == {}
    cond = Condition(
        tokens=torch.zeros(3, 5, 7), mask=torch.ones(3, 5, dtype=torch.bool), label=torch.tensor([1, 2, 3])
    )
    call(denoiser, cond)
    assert set(denoiser.network.seen[1][2]) == {"context", "mask", "label"}
    call(denoiser, Condition(vector=torch.zeros(3, 7), level=torch.zeros(3)))
    assert set(denoiser.network.seen[2][2]) == {"vector", "level"}


def test_concat_is_joined_to_the_channels():
    denoiser = make()
    low = torch.ones(3, 5, 4, 4)
    prediction, x, _ = call(denoiser, Condition(concat=low))
    assert torch.equal(denoiser.network.seen[0][0], torch.cat([x, low], 1))
    assert prediction.x0.shape == x.shape


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_network_runs_in_its_own_precision_and_x0_is_wide(name):
    dtype = getattr(torch, name)
    denoiser = make(Recorder(dtype=dtype))
    cond = Condition(
        tokens=torch.zeros(3, 5, 7), mask=torch.ones(3, 5, dtype=torch.bool), label=torch.tensor([1, 2, 3])
    )
    prediction, x, _ = call(denoiser, cond)
    seen, time, fields = denoiser.network.seen[0]
    assert seen.dtype == fields["context"].dtype == dtype
    assert fields["mask"].dtype == torch.bool
    assert fields["label"].dtype == torch.int64
    # bfloat16 would read index 999 as 1000.
    assert time.dtype == (torch.float64 if name == "float64" else torch.float32)
    assert time.tolist() == [999.0] * 3
    assert prediction.x0.dtype == torch.float32
    assert call(denoiser, x=x.double())[0].x0.dtype == torch.float64


def test_learned_range_is_split_off():
    class Halves(Recorder):
        def forward(self, x, time, **fields):
            return torch.cat([torch.zeros_like(x), torch.full_like(x, 0.25)], 1)

    prediction, x, step = call(make(Halves(), variance="learned_range"))
    assert torch.allclose(prediction.x0, x / step.alpha)
    assert torch.equal(prediction.variance_logit, torch.full_like(x, 0.25))
    assert prediction.log_variance is None
    # Another convention with the same tensors: the second half is the log-variance.
    prediction, x, _ = call(make(Halves(), variance="learned"))
    assert torch.equal(prediction.log_variance, torch.full_like(x, 0.25))
    assert prediction.variance_logit is None


def test_how_a_learned_variance_is_read_is_never_guessed():
    with refused("variance-unstated"):
        call(make(Recorder(out_channels=4)))
    with refused("variance-unfit"):
        call(make(variance="learned"))
    with refused("choice-unknown", ConfigError, naming="'range'"):
        make(variance="range")


def test_a_wrong_number_of_channels_is_named():
    with refused("channels-unfit", UsageError, naming="3 channels for samples of 2"):
        call(make(Recorder(out_channels=3)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_from_the_network_names_the_step(value):
    class Spoilt(Recorder):
        def forward(self, x, time, **fields):
            output = torch.zeros_like(x)
            output[-1, -1, -1, -1] = value
            return output

    with refused("network-not-finite", NumericError, naming="0.5"):
        call(make(Spoilt()), row=2)


def test_eps_at_alpha_zero_is_refused_by_name():
    denoiser = make(schedule=AngleSchedule(), time_input="t999")
    table = DDIM().plan(CosineSchedule(), 1)
    step = table.steps[0]
    with refused("alpha-zero-undefined", naming="'eps'"):
        denoiser.bind(Condition(), table)(torch.zeros(1, 2, 4, 4), type(step)(0, 1.0, 0.0, 1.0, 0.5, 0.7, 0.7))


def test_bind_computes_nothing():
    class Silent(nn.Module):
        def forward(self, *args, **fields):
            raise AssertionError("called")

    denoiser = make(Silent())
    denoiser.bind(Condition(tokens=torch.zeros(1, 2, 3)), DDIM().plan(denoiser.schedule, 4))


def test_guidance_may_go_back_through_it_whatever_the_condition_was_made_in():
    class Shifted(nn.Module):
        reads = ("vector",)

        def forward(self, x, time, vector):
            return x * vector[:, :, None, None]  # the product keeps the vector for its gradient

    with torch.inference_mode():
        cond = Condition(vector=torch.full((3, 2), 2.0))
        denoiser = make(Shifted(), parameterization=X0())
        denoise = denoiser.bind(cond, DDIM().plan(denoiser.schedule, 4))
        step = denoise.table.steps[1]
        denoise(torch.ones(3, 2, 4, 4), step)  # a call without a gradient comes first
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.ones(3, 2, 4, 4, requires_grad=True)
            (gradient,) = torch.autograd.grad(denoise(x, step).x0.sum(), x)
    assert torch.equal(gradient, torch.full_like(gradient, 2.0))


def test_state_is_not_changed():
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    call(make(), x=x)
    assert torch.equal(x, before)


def test_every_point_is_handed_its_index():
    schedule = CosineSchedule(steps=4000)
    nodes = Trailing()(schedule, 4000)
    indices = list(range(3999, -1, -1))
    for rounding in ("nearest", "interpolate"):
        plain = make(schedule=schedule, time_rounding=rounding)
        assert [plain.time_input(float(t)) for t in nodes] == indices
        rescaled = make(schedule=schedule, time_input="index1000", time_rounding=rounding)
        assert [rescaled.time_input(float(t)) for t in nodes] == [i * 1000.0 / 4000.0 for i in indices]


def test_rounding_between_points_is_as_told():
    schedule = LinearSchedule()
    nodes = Karras()(schedule, 9)
    nearest = make(time_rounding="nearest")
    between = make(time_rounding="interpolate")
    exact = [max(0.0, float(schedule.index_from_t(t))) for t in nodes]
    assert [between.time_input(float(t)) for t in nodes] == pytest.approx(exact)
    assert [nearest.time_input(float(t)) for t in nodes] == [float(np.rint(i)) for i in exact]
    assert any(i != round(i) for i in exact)
    # The network knows nothing below its first point.
    assert nearest.time_input(1e-5) == between.time_input(1e-5) == 0.0


def test_continuous_time_inputs():
    schedule = LinearSchedule()
    alpha, sigma = schedule(0.5)
    ratio = float(sigma / alpha)
    assert make(time_input="t999").time_input(0.5) == 499.5
    assert make(time_input="sigma").time_input(0.5) == pytest.approx(ratio)
    assert make(time_input="log-sigma-quarter").time_input(0.5) == pytest.approx(math.log(ratio) / 4)
    assert len({make(time_input=name).time_input(0.7301) for name in TIME_INPUTS}) == len(TIME_INPUTS) - 1


class Shifts(nn.Module):
    """Answers with its input, its time and a scalar that it reads."""

    reads = ("vector", "strength")

    def forward(self, x, time, *, vector, strength):
        ones = (1,) * (x.ndim - 1)
        return x * 0.5 + 1e-3 * time.view(-1, *ones) + (strength * vector[:, 0]).view(-1, *ones)


@pytest.mark.parametrize("parameterization", [Eps(), X0(), V(), EDM()])
def test_forward_is_what_a_sampler_is_told_and_a_sample_alone_what_it_is_among_others(parameterization):
    denoiser = make(Shifts(), parameterization=parameterization, schedule=CosineSchedule())
    cond = Condition(vector=torch.randn(3, 2), scalars={"strength": torch.tensor([0.1, 0.2, 0.3])})
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    table = DDIM().plan(denoiser.schedule, 4)
    for step in table.steps:
        bound, pure = denoiser.bind(cond, table)(x, step), denoiser(x, step, cond)
        assert torch.equal(bound.x0, pure.x0)
        assert torch.allclose(denoiser(x, step.t, cond).x0, pure.x0, rtol=1e-5, atol=1e-6)
    each = [step.t for step in table.steps[1:]]
    together = denoiser(x, each, cond)
    for i, t in enumerate(each):
        alone = denoiser(x[i : i + 1], t, cond.rows(slice(i, i + 1)))
        assert torch.allclose(together.x0[i], alone.x0[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(denoiser(x, each, cond).x0, together.x0)


def test_what_stands_in_the_networks_place_is_handed_what_the_network_would_be():
    seen = []

    def evaluate(x, time, arguments):
        seen.append((time, dict(arguments)))
        return torch.zeros_like(x)

    denoiser = make(Shifts(), parameterization=X0())
    cond = Condition(vector=torch.ones(3, 2), scalars={"strength": torch.ones(3), "unread": torch.ones(3)})
    made = denoiser(torch.ones(3, 2, 4, 4), 0.5, cond, evaluate=evaluate)
    assert torch.equal(made.x0, torch.zeros(3, 2, 4, 4))
    assert seen[0][0] == denoiser.time_input(0.5)
    assert set(seen[0][1]) == {"vector", "strength"}


def test_numbers_stay_wide_where_the_network_is_narrow():
    cond = Condition(
        vector=torch.ones(3, 2), level=torch.full((3,), 0.999), scalars={"size": torch.full((3,), 1023.0)}
    )  # fmt: skip

    class Reads(Recorder):
        reads = ("vector", "level", "size")

    denoiser = make(Reads(dtype=torch.bfloat16))
    call(denoiser, cond)
    fields = denoiser.network.seen[0][2]
    assert fields["vector"].dtype == torch.bfloat16
    assert fields["level"].dtype == fields["size"].dtype == torch.float32
    assert fields["size"].tolist() == [1023.0] * 3


def test_conditions_hold_scalars_by_name():
    one = Condition(scalars={"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])})
    assert one.rows(slice(1, 2)).scalars["b"].tolist() == [4.0]
    assert set(one.merge(Condition(scalars={"c": torch.zeros(2)})).scalars) == {"a", "b", "c"}
    assert Condition.stack([one, one]).scalars["a"].tolist() == [1.0, 2.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="different scalars"):
        Condition.stack([one, Condition(scalars={"a": torch.zeros(2)})])


def test_unknown_names_are_refused():
    with refused("choice-unknown", ConfigError, naming="'steps'"):
        make(time_input="steps")
    with refused("choice-unknown", ConfigError, naming="'floor'"):
        make(time_rounding="floor")
    with refused("time-input-unfit"):
        make(schedule=AngleSchedule())
