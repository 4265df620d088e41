"""The denoiser: a network with what it was trained for, read as an estimate of x0 = E[x0 | x_t, condition].

Schedule and parameterization belong to the weights, so they live here and not in the sampler. `forward` is one network
evaluation, the same for a loss and for a sampler. `bind` fixes the condition and the run; what it returns is what
guidance wraps and a sampler calls. Whatever evaluates the network in another way (zoo.acceleration, or a loss under
autocast) takes its place as forward's `evaluate`.

How t reaches the network (`time_input`; i = t * T - 1 is the schedule's index):

| name | the network's input | who uses it |
|---|---|---|
| `index` | i | DDPM, ADM, DiT, latent diffusion, Stable Diffusion |
| `index1000` | i * 1000 / T | improved DDPM with `rescale_timesteps` (T = 4000) |
| `t999` | 999 t | score SDE, variance preserving (Song et al. 2021b) |
| `sigma` | sigma / alpha | score SDE, variance exploding |
| `log-sigma-quarter` | ln(sigma / alpha) / 4 | EDM (Karras et al. 2022, table 1) |

`time_rounding` says what networks trained on whole indices get between the points (where a Karras grid lands):
the `nearest` index, or an `interpolate`d one.

`initial_scale` says how large x is where a run starts from noise alone, (alpha_0, sigma_0) being the schedule there:

| name | deviation of the start | who does so |
|---|---|---|
| `sigma_T` | sigma_0, the noise that x_t holds there | EDM, score SDE's VE, k-diffusion |
| `unit` | sqrt(alpha_0^2 + sigma_0^2), x_t of data of unit variance: 1 on most | DDPM, ADM, DiT, latent diffusion |

They differ where a schedule doesn't end at pure noise: by 0.2 % on Stable Diffusion's.

`variance` says what the second half is of a network that gives twice the samples' channels, which no tensor shows:

| name | the second half is | elsewhere |
|---|---|---|
| `learned_range` | from small variance to beta, -1 to 1 (Nichol & Dhariwal 2021, eq. 15) | improved DDPM, ADM, DiT |
| `learned` | the log-variance itself | OpenAI's `ModelVarType.LEARNED`, diffusers' `learned` |

`image_condition` says what a network is shown beside x_t, as further input channels:

| name | channels after x_t's | elsewhere |
|---|---|---|
| `masked` | the mask, 1 where drawn anew, and the latents of the image with that part grey | SD's inpainting models |
| `depth` | a depth map, from -1 to 1 | SD 2's depth model |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, isfinite, log
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from zoo.diffusion.types import (
    Acceleration,
    Condition,
    Evaluate,
    LowRes,
    NoiseSchedule,
    Parameterization,
    Prediction,
    Step,
    StepTable,
)
from zoo.schema.errors import ConfigError, NumericError, UsageError
from zoo.schema.ranges import one_of

TIME_INPUTS = ("index", "index1000", "t999", "sigma", "log-sigma-quarter")
TIME_ROUNDINGS = ("nearest", "interpolate")
INITIAL_SCALES = ("sigma_T", "unit")
VARIANCES = ("learned_range", "learned")
IMAGE_CONDITIONS = ("masked", "depth")


@dataclass(frozen=True, slots=True)
class At:
    """What a denoiser's evaluation needs of t: numbers for all samples, or tensors with one a sample.

    time: the network's input for t. Tensors are (B,) of time, and (B, 1, ...) of the others.
    """

    time: Any
    alpha: Any
    sigma: Any
    c_skip: Any
    c_out: Any
    c_in: Any

    def move(self, place: Callable[[Tensor], Tensor]) -> At:
        """The same with each tensor where `place` puts it."""
        return At(*(place(v) if isinstance(v, Tensor) else v for v in (getattr(self, name) for name in self.__slots__)))

    def read(self, x_t: Tensor, output: Tensor) -> Tensor:
        """x0 = c_skip * x_t + c_out * F (Karras et al. 2022, eq. 7)."""
        if isinstance(self.c_skip, Tensor) or isinstance(self.c_out, Tensor):
            return self.c_skip * x_t + self.c_out * output
        x0 = torch.mul(output, self.c_out)
        return x0.add_(x_t, alpha=self.c_skip) if self.c_skip else x0


class Denoiser(nn.Module):
    """A network, the schedule it was trained under, how its output is read, and how it sees a smaller image."""

    def __init__(
        self,
        *,
        network: nn.Module,
        schedule: NoiseSchedule,
        parameterization: Parameterization,
        time_input: Literal["index", "index1000", "t999", "sigma", "log-sigma-quarter"] = "index",
        time_rounding: Literal["nearest", "interpolate"] = "nearest",
        low_res: LowRes | None = None,
        initial_scale: Literal["sigma_T", "unit"] = "sigma_T",
        variance: Literal["learned_range", "learned"] | None = None,
        image_condition: Literal["masked", "depth"] | None = None,
    ) -> None:
        super().__init__()
        one_of("time_input", time_input, TIME_INPUTS)
        one_of("time_rounding", time_rounding, TIME_ROUNDINGS)
        one_of("initial_scale", initial_scale, INITIAL_SCALES)
        one_of("variance", variance, (None, *VARIANCES))
        one_of("image_condition", image_condition, (None, *IMAGE_CONDITIONS))
        if schedule.T is None and time_input in ("index", "index1000"):
            raise ConfigError(
                f"time_input '{time_input}' needs a schedule with discrete points; use t999 or sigma",
                code="time-input-unfit",
            )
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization
        self.time_input_name: Literal["index", "index1000", "t999", "sigma", "log-sigma-quarter"] = time_input
        self.time_rounding: Literal["nearest", "interpolate"] = time_rounding
        self.low_res = low_res
        self.initial_scale: Literal["sigma_T", "unit"] = initial_scale
        self.variance: Literal["learned_range", "learned"] | None = variance
        self.image_condition: Literal["masked", "depth"] | None = image_condition
        self.acceleration: Acceleration | None = None

    def forward(
        self, x_t: Tensor, t: float | Sequence[float] | np.ndarray | Step | At, cond: Condition, *,
        evaluate: Evaluate | None = None,
    ) -> Prediction:  # fmt: skip
        """E[x0 | x_t, cond] by one network evaluation. Pure: the result depends on the arguments and the weights.

        x_t (B, C, *spatial); t in [0, 1], one for all samples or one each, or a run's step; cond of B samples. x0 is
        float32, or float64 where x_t is. `evaluate` replaces the network. UsageError for a condition that
        lacks what the network reads, and for a network that gives a wrong number of channels.
        """
        at = t if isinstance(t, At) else self.at(t, dimensions=x_t.ndim)
        dtype = _precision(self.network, x_t)
        arguments = network_arguments(self.network, cond, device=x_t.device, dtype=dtype)
        x = (x_t if isinstance(at.c_in, float) and at.c_in == 1.0 else x_t * at.c_in).to(dtype)
        x = x if cond.concat is None else torch.cat([x, cond.concat.to(x_t.device, dtype)], dim=1)
        output = (self._evaluate if evaluate is None else evaluate)(x, at.time, arguments)
        output = output.to(torch.promote_types(x_t.dtype, torch.float32))
        output, spread = self._halves(output, x_t.shape[1])
        return Prediction(x0=at.read(x_t, output), output=output, **spread)

    def _halves(self, output: Tensor, channels: int) -> tuple[Tensor, dict[str, Tensor]]:
        """A network's output for samples of so many channels, and its learned variance by the field that holds it."""
        if output.shape[1] == channels:
            if self.variance is not None:
                raise ConfigError(
                    f"the network gave {channels} channels for samples of {channels}, so no variance, and its variance "
                    f"is said to be '{self.variance}'; take variance out of its card's denoiser block",
                    code="variance-unfit",
                )
            return output, {}
        if output.shape[1] != 2 * channels:
            raise UsageError(
                f"the network gave {output.shape[1]} channels for samples of {channels}; "
                "it must give as many, or twice as many with a learned variance",
                code="channels-unfit",
            )
        if self.variance is None:
            raise ConfigError(
                f"the network gave {output.shape[1]} channels for samples of {channels}, half of them a learned "
                "variance, and nothing says how it is to be read: say variance learned_range (improved DDPM, ADM, "
                "DiT) or learned (the log-variance itself) in its card's denoiser block",
                code="variance-unstated",
            )
        output, second = output.chunk(2, dim=1)
        return output, {"variance_logit" if self.variance == "learned_range" else "log_variance": second}

    def _evaluate(self, x: Tensor, time: float | Tensor, arguments: Mapping[str, Any]) -> Tensor:
        return self.network(x, times(time, x), **arguments)

    def at(self, t: float | Sequence[float] | np.ndarray | Step, *, dimensions: int) -> At:
        """What depends on t alone, on the host; t as in `forward`, `dimensions` those of x_t."""
        if isinstance(t, Step):
            return At(self.time_input(t.t), t.alpha, t.sigma, *self.parameterization(t.alpha, t.sigma))
        if isinstance(t, (int, float)):
            alpha, sigma = (float(a) for a in self.schedule(t))
            return At(self.time_input(t), alpha, sigma, *self.parameterization(alpha, sigma))
        ones = (1,) * (dimensions - 1)
        alpha, sigma = (torch.from_numpy(a).float().view(-1, *ones) for a in self.schedule(np.asarray(t)))
        time = torch.tensor([self.time_input(float(value)) for value in t])
        return At(time, alpha, sigma, *self.parameterization(alpha, sigma))

    def time_input(self, t: float) -> float:
        """The network's input for t (see the table above)."""
        if self.time_input_name == "t999":
            return 999.0 * t
        if self.time_input_name in ("sigma", "log-sigma-quarter"):
            alpha, sigma = self.schedule(t)
            ratio = float(sigma / alpha)
            return ratio if self.time_input_name == "sigma" else log(ratio) / 4.0
        points = self.schedule.T
        assert points is not None  # checked by the constructor
        # The t of a point comes back as its exact index; (i + 1) / T * T is not always i + 1 in floating point.
        index = t * points - 1.0
        nearest = float(round(index))
        if self.time_rounding == "nearest" or abs(index - nearest) < 1e-9:
            index = nearest
        # The network wasn't trained between the first point and t = 0.
        index = max(index, 0.0)
        return index if self.time_input_name == "index" else index * 1000.0 / points

    def start_scale(self, begin: Step) -> float:
        """The factor of standard noise with which a run from noise alone starts at `begin`."""
        return hypot(begin.alpha, begin.sigma) if self.initial_scale == "unit" else begin.sigma

    def bind(self, cond: Condition, table: StepTable) -> BoundDenoiser:
        """This denoiser under a condition, for the steps of a run. Nothing is computed before the first call."""
        return BoundDenoiser(denoiser=self, cond=cond, table=table)


class BoundDenoiser:
    """A `DenoiseFn`: (x_t, step) -> Prediction, with one network evaluation."""

    def __init__(self, *, denoiser: Denoiser, cond: Condition, table: StepTable) -> None:
        self.denoiser, self.cond, self.table = denoiser, cond, table
        self._prepared: Condition | None = None
        self._evaluate = None if denoiser.acceleration is None else denoiser.acceleration.begin(denoiser, table)

    def __call__(self, x: Tensor, step: Step) -> Prediction:
        """x (B, C, *spatial) at step.t -> x0 in float32, or in float64 where x is; NumericError for NaN on the CPU."""
        if self._prepared is None:
            # Tensors of inference mode would break guidance that backpropagates through the network.
            with torch.inference_mode(False):
                cond = self.cond._map(lambda v: v.clone() if v.is_inference() else v)
            self._prepared = cond.to(x.device, _precision(self.denoiser.network, x))
        prediction = self.denoiser(x, step, self._prepared, evaluate=self._evaluate)
        refuse_nan(prediction, step, len(self.table))
        return prediction


def network_arguments(
    network: nn.Module, cond: Condition, *, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:  # fmt: skip
    """The fields of a condition that a network reads, by argument name, on its device and in its dtype.

    Conditioners may say more than a network's `reads` names (CLIP's pooled vector, to Stable Diffusion's U-Net); one
    without `reads` gets every field there is. Raises UsageError where a field in `reads` isn't given.
    """
    named = {
        "context": cond.tokens, "mask": cond.mask, "vector": cond.vector, "label": cond.label, "image": cond.image,
        "level": cond.level,
    }  # fmt: skip
    reads = getattr(network, "reads", None)
    if reads is None:
        read = named
    else:
        scalars = cond.scalars or {}
        read = {name: named[name] if name in named else scalars.get(name) for name in reads}
        missing = next((name for name, value in read.items() if value is None and name != "mask"), None)
        if missing is not None and hasattr(network, "evaluate"):  # which doesn't check that all is given
            raise UsageError(
                f"the network reads '{missing}' and is given none; listen to what gives it", code="condition-missing"
            )
    return {
        # As time does, a level and other numbers stay float32: bfloat16 would read index 999 as 1000.
        name: value.to(device, torch.float32 if name not in named or name == "level" else
                       dtype if value.is_floating_point() else None)
        for name, value in read.items() if value is not None
    }  # fmt: skip


def times(time: float | Tensor, x: Tensor) -> Tensor:
    """(B,) the network's input for t, float32 or wider."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if isinstance(time, Tensor):
        return time.to(x.device, dtype)
    return torch.full((x.shape[0],), time, dtype=dtype, device=x.device)


def refuse_nan(prediction: Prediction, step: Step, steps: int) -> None:
    """NumericError where a network on the CPU gave NaN or infinity at a step; `steps` is how many there are."""
    output = prediction.output
    # One bad number spoils the sum, which is quicker to check; a sum may also overflow by itself. An accelerator
    # isn't synchronized at every step: its samples are checked at the end.
    if output is None or output.device.type != "cpu":
        return
    for part in (output, prediction.variance_logit, prediction.log_variance):
        if part is not None and not isfinite(part.sum().item()) and not bool(torch.isfinite(part).all()):
            raise NumericError(
                f"the network gave NaN or infinity at step {step.index + 1} of {steps} (t = {step.t:.4g}); "
                "run it in float32, or check the weights and the condition",
                code="network-not-finite",
            )


def _precision(network: nn.Module, x: Tensor) -> torch.dtype:
    """A network runs in its own precision; one without parameters takes the dtype of x."""
    weight = next(network.parameters(), None)
    return x.dtype if weight is None else weight.dtype
