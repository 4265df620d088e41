"""Checks of the objectives' arguments, for their constructors and for a recipe's check without torch.

Each function raises ConfigError for arguments out of range.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from zoo.schema.errors import ConfigError

Weighting = Literal["min-snr", "snr", "p2", "uniform", "edm", "simple"]
Times = Literal["uniform", "logit-normal", "log-normal", "importance"]
USUAL = {"logit-normal": (0.0, 1.0), "log-normal": (-1.2, 1.2)}  # mean and deviation
LOSSES = ("simple", "hybrid", "vlb")


def weighting_of(*, weighting: str, min_snr: float | None, p2_k: float) -> None:
    """Check the weighting of the squared error: a known name, and parameters above 0."""
    if weighting not in get_args(Weighting):
        raise ConfigError(
            f"unknown weighting '{weighting}'; choose one of {', '.join(get_args(Weighting))}", code="choice-unknown"
        )
    for name, value in (("min_snr", min_snr), ("p2_k", p2_k)):
        if value is not None and not value > 0.0:
            raise ConfigError(
                f"objective.{name} is {value}; give a number above 0: an error counts by it", code="number-out-of-range"
            )


def times_of(*, times: str, mean: float | None, deviation: float | None) -> None:
    """Check the density of t."""
    if times not in get_args(Times):
        raise ConfigError(f"unknown times '{times}'; choose one of {', '.join(get_args(Times))}", code="choice-unknown")
    if times not in USUAL and (mean is not None or deviation is not None):
        raise ConfigError(
            f"objective.times '{times}' has no mean and deviation; take time_mean and time_deviation out",
            code="arguments-conflict",
        )
    if deviation is not None and not 0.0 < deviation < math.inf:
        raise ConfigError(f"objective.time_deviation is {deviation}; it must be above 0", code="number-out-of-range")


def denoising(
    *, loss: str, vlb_weight: float, weighting: str, min_snr: float | None, p2_k: float, times: str,
    time_mean: float | None, time_deviation: float | None, condition_dropout: float,
) -> None:  # fmt: skip
    """Check the arguments of `zoo.training.objectives.denoising:Denoising`."""
    weighting_of(weighting=weighting, min_snr=min_snr, p2_k=p2_k)
    if not vlb_weight >= 0.0:
        raise ConfigError(f"objective.vlb_weight is {vlb_weight}; give a number from 0 up", code="number-out-of-range")
    if loss not in LOSSES:
        raise ConfigError(f"unknown loss '{loss}'; choose one of {', '.join(LOSSES)}", code="choice-unknown")
    if not 0.0 <= condition_dropout <= 1.0:
        raise ConfigError(
            f"objective.condition_dropout is {condition_dropout}; give a share from 0 to 1", code="number-out-of-range"
        )
    times_of(times=times, mean=time_mean, deviation=time_deviation)


def reconstruction(*, pixel: str) -> None:
    """Check the arguments of both objectives of `zoo.training.objectives.autoencoder`."""
    if pixel not in ("l1", "l2"):
        raise ConfigError(f"unknown pixel loss '{pixel}'; choose l1 or l2", code="choice-unknown")


def contrastive(*, style_weight: float, against: str) -> None:
    """Check the arguments of `zoo.training.objectives.contrastive:ClipContrastive`."""
    if not 0.0 <= style_weight < 100.0:
        raise ConfigError(
            f"objective.style_weight is {style_weight}; give a number from 0 to below 100", code="number-out-of-range"
        )
    if against not in ("batch", "concepts"):
        raise ConfigError(f"objective.against is '{against}'; use 'batch' or 'concepts'", code="choice-unknown")
