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

`initial_scale` says how large x is where a run starts from noise alone, (alpha_0, sigma_0) being the schedule there:

| name | deviation of the start | who does so |
|---|---|---|
| `sigma_T` | sigma_0, the noise that x_t holds there | EDM, score SDE's VE, k-diffusion |
| `unit` | sqrt(alpha_0^2 + sigma_0^2), x_t of data of unit variance: 1 on most | DDPM, ADM, DiT, latent diffusion |

They differ where a schedule doesn't end at pure noise: by 0.2 % on Stable Diffusion's.

`variance` says what a network that gives twice the samples' channels has in the second half, which no tensor shows:

| name | the second half is | elsewhere |
|---|---|---|
| `learned_range` | from small variance to beta, -1 to 1 (Nichol & Dhariwal 2021, eq. 15) | improved DDPM, ADM, DiT |
| `learned` | the log-variance itself | OpenAI's `ModelVarType.LEARNED`, diffusers' `learned` |
"""

from __future__ import annotations

from math import hypot, isfinite, log
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, NumericError, UsageError
from zoo.fast import Engine, Fast, lay_out_weights
from zoo.step_cache import DeepFeatures
from zoo.types import Condition, LowRes, NoiseSchedule, Parameterization, Prediction, Step, StepTable

TIME_INPUTS = ("index", "index1000", "t999", "sigma", "log-sigma-quarter")
TIME_ROUNDINGS = ("nearest", "interpolate")
INITIAL_SCALES = ("sigma_T", "unit")
VARIANCES = ("learned_range", "learned")


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
        initial_scale: Literal["sigma_T", "unit"] = "sigma_T",
        variance: Literal["learned_range", "learned"] | None = None,
    ) -> None:
        super().__init__()
        if time_input not in TIME_INPUTS:
            raise ConfigError(f"unknown time_input '{time_input}'; choose one of {', '.join(TIME_INPUTS)}")
        if time_rounding not in TIME_ROUNDINGS:
            raise ConfigError(f"unknown time_rounding '{time_rounding}'; choose one of {', '.join(TIME_ROUNDINGS)}")
        if initial_scale not in INITIAL_SCALES:
            raise ConfigError(f"unknown initial_scale '{initial_scale}'; choose one of {', '.join(INITIAL_SCALES)}")
        if variance is not None and variance not in VARIANCES:
            raise ConfigError(f"unknown variance '{variance}'; choose one of {', '.join(VARIANCES)}, or leave it out")
        if schedule.T is None and time_input in ("index", "index1000"):
            raise ConfigError(f"time_input '{time_input}' needs a schedule with discrete points; use t999 or sigma")
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization
        self.time_input_name: Literal["index", "index1000", "t999", "sigma", "log-sigma-quarter"] = time_input
        self.time_rounding: Literal["nearest", "interpolate"] = time_rounding
        self.low_res = low_res
        self.initial_scale: Literal["sigma_T", "unit"] = initial_scale
        self.variance: Literal["learned_range", "learned"] | None = variance
        self.step_cache: DeepFeatures | None = None
        self.engine: Engine | None = None  # of the fast path

    def cached(self, step_cache: DeepFeatures) -> Denoiser:
        """The same network in a denoiser with a step cache."""
        step_cache.check(self.network)
        made = Denoiser(
            network=self.network, schedule=self.schedule, parameterization=self.parameterization,
            time_input=self.time_input_name, time_rounding=self.time_rounding, low_res=self.low_res,
            initial_scale=self.initial_scale, variance=self.variance,
        )  # fmt: skip
        made.step_cache = step_cache
        made.train(self.training)
        return made

    def speed_up(self, fast: Fast) -> None:
        """Run the network as the fast path says (zoo.fast); also where its weights were moved since."""
        lay_out_weights(self.network, fast)
        self.engine = Engine(self.network, fast)

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

    def start_scale(self, begin: Step) -> float:
        """The factor of standard noise with which a run from noise alone starts at `begin`."""
        return hypot(begin.alpha, begin.sigma) if self.initial_scale == "unit" else begin.sigma

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
        # Of the fast path: embeddings by the number that stands for t, and what the network reads for text.
        self._embeddings: dict[float, Tensor] = {}
        self._context: Any = None
        # Of a step cache: deep features, and how many evaluations they have served.
        self._deep: Tensor | None = None
        self._age = 0

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
        told = {k: v for k, v in named.items() if v is not None and k in reads}
        if hasattr(self.denoiser.network, "evaluate"):  # which asks nobody whether all is there
            missing = next((name for name in reads if name not in told and name != "mask"), None)
            if missing is not None:
                raise UsageError(f"the network reads '{missing}' and is given none; listen to what gives it")
        return dtype, cond.concat, told

    def __call__(self, x: Tensor, step: Step) -> Prediction:
        """x (B, C, *spatial) at step.t -> x0 in float32, or in float64 where x is."""
        denoiser = self.denoiser
        if self._inputs is None:
            self._inputs = self._prepare(x)
        dtype, concat, fields = self._inputs
        c_skip, c_out, c_in = denoiser.parameterization(step.alpha, step.sigma)

        scaled = (x if c_in == 1.0 else x * c_in).to(dtype)
        scaled = scaled if concat is None else torch.cat([scaled, concat], dim=1)
        output = self._evaluate(scaled, step, fields)
        output = output.to(torch.promote_types(x.dtype, torch.float32))
        # One bad number spoils the sum, which is quicker to ask; a sum may also overflow by itself. An accelerator
        # isn't made to wait for the answer at every step: its samples are looked at in the end.
        asked = x.device.type == "cpu"
        if asked and not isfinite(output.sum().item()) and not bool(torch.isfinite(output).all()):
            raise NumericError(
                f"the network gave NaN or infinity at step {step.index + 1} of {len(self.table)} (t = {step.t:.4g}); "
                "run it in float32, or check the weights and the condition"
            )

        channels = x.shape[1]
        spread: dict[str, Tensor] = {}
        if output.shape[1] == 2 * channels:
            if denoiser.variance is None:
                raise ConfigError(
                    f"the network gave {output.shape[1]} channels for samples of {channels}, half of them a learned "
                    "variance, and nothing says how it is to be read: say variance learned_range (improved DDPM, ADM, "
                    "DiT) or learned (the log-variance itself) in its card's denoiser block"
                )
            output, second = output.split(channels, dim=1)
            spread = {"variance_logit" if denoiser.variance == "learned_range" else "log_variance": second}
        elif output.shape[1] != channels:
            raise UsageError(
                f"the network gave {output.shape[1]} channels for samples of {channels}; "
                "it must give as many, or twice as many with a learned variance"
            )
        elif denoiser.variance is not None:
            raise ConfigError(
                f"the network gave {channels} channels for samples of {channels}, so no variance, and its variance is "
                f"said to be '{denoiser.variance}'; take variance out of its card's denoiser block"
            )
        x0 = torch.mul(output, c_out)
        return Prediction(x0=x0.add_(x, alpha=c_skip) if c_skip else x0, **spread)

    def _evaluate(self, scaled: Tensor, step: Step, fields: dict[str, Any]) -> Tensor:
        """The network's output: as it is, or (fast, or with a step cache) from what was worked out before."""
        denoiser, engine, cache = self.denoiser, self.denoiser.engine, self.denoiser.step_cache
        network: Any = denoiser.network
        number = denoiser.time_input(step.t)
        # Time stays float32 or wider: bfloat16 would read index 999 as 1000.
        time_dtype = torch.promote_types(scaled.dtype, torch.float32)
        ahead = engine is not None and engine.fast.precompute and hasattr(network, "evaluate")
        if ahead:
            if number not in self._embeddings:
                self._embed_ahead(number, scaled, time_dtype, fields)
            if self._context is None and fields.get("context") is not None:
                self._context = network.keys_values(fields["context"])
            emb, context = self._embeddings[number], self._context
        else:
            time = torch.full((scaled.shape[0],), number, dtype=time_dtype, device=scaled.device)
            if cache is None:
                return network(scaled, time, **fields) if engine is None else engine.whole(scaled, time, fields)
            emb, context = network.embed(time, dtype=scaled.dtype, **_told(fields)), fields.get("context")
        evaluate = network.evaluate if engine is None else engine.parts
        mask = fields.get("mask")
        if cache is None:
            return evaluate(scaled, emb, context, mask)[0]
        if self._deep is None or self._age >= cache.every:
            output, self._deep = evaluate(scaled, emb, context, mask, blocks=cache.blocks)
            self._age = 0
        else:
            output, _ = evaluate(scaled, emb, context, mask, blocks=cache.blocks, deep=self._deep)
        self._age += 1
        return output

    def _embed_ahead(self, number: float, scaled: Tensor, dtype: torch.dtype, fields: dict[str, Any]) -> None:
        """The embeddings of every step of the table (and of a t that isn't in it) by one call."""
        denoiser, told = self.denoiser, _told(fields)
        numbers = list(dict.fromkeys([number, *(denoiser.time_input(s.t) for s in self.table.steps)]))
        # Time alone is the same for all samples; a class or a level is not.
        rows = scaled.shape[0] if told else 1
        time = torch.tensor(numbers, dtype=dtype, device=scaled.device).repeat_interleave(rows)
        repeated = {name: value.repeat(len(numbers), *[1] * (value.ndim - 1)) for name, value in told.items()}
        made = denoiser.network.embed(time, dtype=scaled.dtype, **repeated)  # type: ignore[operator]
        self._embeddings = dict(zip(numbers, made.unflatten(0, (len(numbers), rows)).unbind(0), strict=True))


def _told(fields: dict[str, Any]) -> dict[str, Any]:
    """What a network hears by its embedding, beside time: all but the text."""
    return {name: value for name, value in fields.items() if name not in ("context", "mask")}
