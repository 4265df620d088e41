"""diffusers' scheduler_config.json as zoo's schedule, parameterization and sampler.

A configuration's missing fields have the defaults of its class. `StableDiffusionPipeline` sets `clip_sample` to false
and `steps_offset` to 1, whatever a folder of Stable Diffusion 1 or 2 says, and so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.schema.errors import ConfigError

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_FAST = 30  # steps of a solver of second order; the others' default is the pipelines' 50
# Class -> zoo's sampler, the class's own timestep_spacing, and whether it takes one node more and leaves the last out.
_SAMPLERS: Mapping[str, tuple[dict[str, Any], str, bool]] = {
    "DDIMScheduler": ({"name": "ddim", "steps": 50}, "leading", False),
    "PNDMScheduler": ({"name": "plms", "steps": 50}, "leading", False),
    "DDPMScheduler": ({"name": "ddpm", "steps": 1000}, "leading", False),
    "EulerDiscreteScheduler": ({"name": "euler", "steps": 50}, "linspace", False),
    "EulerAncestralDiscreteScheduler": ({"name": "euler-ancestral", "steps": 50}, "linspace", False),
    "HeunDiscreteScheduler": ({"name": "heun", "steps": _FAST}, "linspace", False),
    "LMSDiscreteScheduler": ({"name": "lms", "steps": 50}, "linspace", False),
    "DPMSolverMultistepScheduler": ({"name": "dpmpp-2m", "steps": _FAST}, "linspace", True),
    "LCMScheduler": ({"name": "lcm", "steps": 4}, "leading", False),
}
_ENDS_AT_FIRST = ("DDIMScheduler", "PNDMScheduler")  # unless set_alpha_to_one, which is PNDM's other default
_K_DIFFUSION = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
                "LMSDiscreteScheduler")  # fmt: skip
# Fields that change what is computed and that zoo's samplers have not, with the values that mean "off".
_OFF: Mapping[str, tuple[Any, ...]] = {
    "thresholding": (False, None), "use_exponential_sigmas": (False, None), "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None), "use_flow_sigmas": (False, None), "variance_type": (None, "fixed_small"),
    "timestep_type": (None, "discrete"), "sigma_min": (None,), "sigma_max": (None,), "euler_at_final": (False, None),
    "interpolation_type": (None, "linear"), "solver_type": (None, "midpoint"), "solver_order": (None, 2),
    "algorithm_type": (None, "dpmsolver++"), "lower_order_final": (None, True),
    "final_sigmas_type": (None, "zero"), "skip_prk_steps": (True,), "timestep_scaling": (None, 10, 10.0),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a configuration says, as blocks; `sampler` is None where zoo has none like it, and `why` says so."""

    schedule: dict[str, Any]
    prediction: str
    initial_scale: str
    sampler: dict[str, Any] | None
    why: str = ""


def read_scheduler(config: Mapping[str, Any], *, what: str, offset: int | None) -> Read:
    """A scheduler's configuration; `offset` is the steps_offset that the pipeline sets whatever the file says.

    Raises ConfigError for a schedule or a prediction that zoo doesn't know.
    """
    kind = str(config.get("_class_name"))
    prediction = PREDICTIONS.get(config.get("prediction_type", "epsilon"))
    if prediction is None:
        raise ConfigError(
            f"{what} says prediction_type {config['prediction_type']!r}; zoo knows {', '.join(PREDICTIONS)}",
            code="model-switch-unfit",
        )
    spacing = config.get("timestep_spacing") or _SAMPLERS.get(kind, ({}, "leading", False))[1]
    karras = bool(config.get("use_karras_sigmas"))
    # k-diffusion starts from the largest noise; where its steps lead down from below it, diffusers adds the sample's.
    unit = kind not in _K_DIFFUSION or (spacing == "leading" and not karras)
    sampler, why = _sampler(config, kind, spacing, karras=karras, offset=offset)
    return Read(
        schedule=_schedule(config, what), prediction=prediction, initial_scale="unit" if unit else "sigma_T",
        sampler=sampler, why=why,
    )  # fmt: skip


def _schedule(config: Mapping[str, Any], what: str) -> dict[str, Any]:
    steps, kind = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    ends = {"beta_start": config.get("beta_start", 1e-4), "beta_end": config.get("beta_end", 0.02)}
    made: dict[str, Any]
    if config.get("trained_betas") is not None:
        made = {"name": "tabulated", "table": list(config["trained_betas"])}
    elif kind in ("linear", "scaled_linear"):
        made = {"name": kind.replace("_", "-"), "steps": steps, **ends}
    elif kind == "squaredcos_cap_v2":
        made = {"name": "cosine", "steps": steps}
    else:
        raise ConfigError(
            f"{what} says beta_schedule {kind!r}; zoo knows linear, scaled_linear and squaredcos_cap_v2",
            code="model-switch-unfit",
        )
    return {"name": "zero-terminal-snr", "schedule": made} if config.get("rescale_betas_zero_snr") else made


def _sampler(
    config: Mapping[str, Any], kind: str, spacing: str, *, karras: bool, offset: int | None
) -> tuple[dict[str, Any] | None, str]:
    """zoo's sampler of a configuration, or None and why there is none."""
    if kind not in _SAMPLERS:
        return None, f"its scheduler is a {kind[:60]}, for which zoo has no equal"
    wrong = next((name for name, off in _OFF.items() if name in config and config[name] not in off), None)
    if wrong is not None and not (wrong == "algorithm_type" and config[wrong] == "sde-dpmsolver++"):
        return None, f"its {kind} has {wrong} {str(config[wrong])[:40]!r}, which zoo's sampler has not"
    made, _, skips = _SAMPLERS[kind]
    if config.get("algorithm_type") == "sde-dpmsolver++":
        made = {**made, "name": "dpmpp-2m-sde"}
    if kind == "PNDMScheduler" and not config.get("skip_prk_steps"):
        return None, "its PNDMScheduler starts by Runge-Kutta steps, which zoo's plms doesn't"
    if kind == "LCMScheduler":  # which spaces its steps by itself, and ends at the clean sample whatever it says
        return {**made, "grid": {"name": "lcm", "origin": config.get("original_inference_steps", 50)}}, ""
    left = {"skip_cleanest": True} if skips else {}
    grids: Mapping[str, dict[str, Any]] = {
        "leading": {"name": "leading", "offset": config.get("steps_offset", 0) if offset is None else offset, **left},
        "trailing": {"name": "trailing"}, "linspace": {"name": "linspace", **left},
    }  # fmt: skip
    if spacing not in grids:
        return None, f"its timestep_spacing is {str(spacing)[:40]!r}"
    to_one = config.get("set_alpha_to_one", kind == "DDIMScheduler")
    first = kind in _ENDS_AT_FIRST and not to_one
    return {
        **made,
        "grid": {"name": "karras"} if karras else grids[spacing],
        **({"final": "first"} if first else {}),
    }, ""
