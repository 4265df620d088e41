"""The denoiser: a network with what it was trained for, read as an estimate of x0 = E[x0 | x_t, condition].

Schedule and parameterization belong to the weights, so they live here and not in the sampler. `bind` fixes the
condition and the run; what it returns is what guidance wraps and a sampler calls.

How t reaches the network (`time_input`; i = t * T - 1 is the schedule's index):

| name | the network is handed | who uses it |
|---|---|---|
| `index` | i | DDPM, ADM, DiT, latent diffusion, Stable Diffusion |
| `index1000` | i * 1000 / T | improved DDPM with `rescale_timesteps` (T = 4000) |
| `t999` | 999 t | score SDE, variance preserving (Song et al. 2021b) |
| `sigma` | sigma / alpha | score SDE, variance exploding |
| `log-sigma-quarter` | ln(sigma / alpha) / 4 | EDM (Karras et al. 2022, table 1) |

`time_rounding` says what networks that learned whole indices see between the points (a Karras grid lands there):
the `nearest` index, or an `interpolate`d one.
"""

from __future__ import annotations

from math import isfinite, log
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, NumericError, UsageError
from zoo.types import Condition, LowRes, NoiseSchedule, Parameterization, Prediction, Step, StepTable

TIME_INPUTS = ("index", "index1000", "t999", "sigma", "log-sigma-quarter")
TIME_ROUNDINGS = ("nearest", "interpolate")


class Denoiser(nn.Module):
    """A network, the schedule it was trained under, how its output is read, and what it sees of a smaller picture."""

    def __init__(
        self,
        *,
        network: nn.Module,
        schedule: NoiseSchedule,
        parameterization: Parameterization,
        time_input: Literal["index", "index1000", "t999", "sigma", "log-sigma-quarter"] = "index",
        time_rounding: Literal["nearest", "interpolate"] = "nearest",
        low_res: LowRes | None = None,
    ) -> None:
        super().__init__()
        if time_input not in TIME_INPUTS:
            raise ConfigError(f"unknown time_input '{time_input}'; choose one of {', '.join(TIME_INPUTS)}")
        if time_rounding not in TIME_ROUNDINGS:
            raise ConfigError(f"unknown time_rounding '{time_rounding}'; choose one of {', '.join(TIME_ROUNDINGS)}")
        if schedule.T is None and time_input in ("index", "index1000"):
            raise ConfigError(f"time_input '{time_input}' needs a schedule with discrete points; use t999 or sigma")
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization
        self.time_input_name = time_input
        self.time_rounding = time_rounding
        self.low_res = low_res

    def time_input(self, t: float) -> float:
        """The number the network is handed for t (see the table above)."""
        if self.time_input_name == "t999":
            return 999.0 * t
        if self.time_input_name in ("sigma", "log-sigma-quarter"):
            alpha, sigma = self.schedule(t)
            ratio = float(sigma / alpha)
            return ratio if self.time_input_name == "sigma" else log(ratio) / 4.0
        points = self.schedule.T
        assert points is not None  # the constructor saw to it
        # The t of a point comes back as its exact index; (i + 1) / T * T is not always i + 1 in floating point.
        index = t * points - 1.0
        nearest = float(round(index))
        if self.time_rounding == "nearest" or abs(index - nearest) < 1e-9:
            index = nearest
        # Between the first point and t = 0 there is nothing the network was trained on.
        index = max(index, 0.0)
        return index if self.time_input_name == "index" else index * 1000.0 / points

    def bind(self, cond: Condition, table: StepTable) -> BoundDenoiser:
        """This denoiser under a condition, for the steps of a run. Nothing is computed before the first call."""
        return BoundDenoiser(denoiser=self, cond=cond, table=table)


class BoundDenoiser:
    """A `DenoiseFn`: (x_t, step) -> Prediction, with one network evaluation."""

    def __init__(self, *, denoiser: Denoiser, cond: Condition, table: StepTable) -> None:
        self.denoiser = denoiser
        self.cond = cond
        self.table = table
        self._inputs: tuple[torch.dtype, Tensor | None, dict[str, Any]] | None = None

    def _prepare(self, x: Tensor) -> tuple[torch.dtype, Tensor | None, dict[str, Any]]:
        # The network runs in its own precision; one without parameters takes what comes.
        weight = next(self.denoiser.network.parameters(), None)
        dtype = x.dtype if weight is None else weight.dtype
        # Inference mode's tensors would be in the way of guidance that goes back through the network.
        with torch.inference_mode(False):
            given = self.cond._map(lambda v: v.clone() if v.is_inference() else v)
        cond = given.to(device=x.device, dtype=dtype)
        named = {
            "context": cond.tokens,
            "mask": cond.mask,
            "vector": cond.vector,
            "label": cond.label,
            # As time does, a level stays float32: it is a t, and is embedded as one.
            "level": None if given.level is None else given.level.to(x.device, torch.float32),
        }
        # A conditioner may say more than a network listens to (CLIP's pooled vector, to SD 1's U-Net).
        reads = getattr(self.denoiser.network, "reads", named)
        return dtype, cond.concat, {k: v for k, v in named.items() if v is not None and k in reads}

    def __call__(self, x: Tensor, step: Step) -> Prediction:
        """x (B, C, *spatial) at step.t -> x0 in float32, or in float64 where x is."""
        denoiser = self.denoiser
        if self._inputs is None:
            self._inputs = self._prepare(x)
        dtype, concat, fields = self._inputs
        c_skip, c_out, c_in = denoiser.parameterization(step.alpha, step.sigma)

        # Time stays float32 or wider: bfloat16 would read index 999 as 1000.
        time_dtype = torch.promote_types(dtype, torch.float32)
        time = torch.full((x.shape[0],), denoiser.time_input(step.t), dtype=time_dtype, device=x.device)
        scaled = (x if c_in == 1.0 else x * c_in).to(dtype)
        scaled = scaled if concat is None else torch.cat([scaled, concat], dim=1)
        output = denoiser.network(scaled, time, **fields)
        output = output.to(torch.promote_types(x.dtype, torch.float32))
        # One bad number spoils the sum, which is quicker to ask; a sum may also overflow by itself.
        if not isfinite(output.sum().item()) and not bool(torch.isfinite(output).all()):
            raise NumericError(
                f"the network gave NaN or infinity at step {step.index + 1} of {len(self.table)} (t = {step.t:.4g}); "
                "run it in float32, or check the weights and the condition"
            )

        channels = x.shape[1]
        logit = None
        if output.shape[1] == 2 * channels:  # learned range (Nichol & Dhariwal 2021, eq. 15)
            output, logit = output.split(channels, dim=1)
        elif output.shape[1] != channels:
            raise UsageError(
                f"the network gave {output.shape[1]} channels for samples of {channels}; "
                "it must give as many, or twice as many with a learned variance"
            )
        x0 = torch.mul(output, c_out)
        return Prediction(x0=x0.add_(x, alpha=c_skip) if c_skip else x0, variance_logit=logit)
