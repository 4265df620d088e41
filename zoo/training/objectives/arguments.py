"""Checks of the objectives' arguments, for their constructors and for a recipe's check without torch.

Each function raises ConfigError for arguments out of range.
"""

from __future__ import annotations

from typing import Literal, get_args

from zoo.schema.errors import ConfigError
from zoo.schema.ranges import one_of, ordered, within

Weighting = Literal["min-snr", "snr", "p2", "uniform", "edm", "simple"]
Times = Literal["uniform", "logit-normal", "log-normal", "importance"]
USUAL = {"logit-normal": (0.0, 1.0), "log-normal": (-1.2, 1.2)}  # mean and deviation
LARGEST_SIDE = 2**14  # pixels
LARGEST_GUIDANCE = 1000.0
MOST_STEPS = 10_000  # of a sheet, which is drawn many times in a run
LOSSES = ("simple", "hybrid", "vlb")


def weighting_of(*, weighting: str, min_snr: float | None, p2_k: float) -> None:
    """Check the weighting of the squared error: a known name, and parameters above 0."""
    one_of("objective.weighting", weighting, get_args(Weighting))
    within(0.0, 1e6, {"objective.min_snr": min_snr, "objective.p2_k": p2_k}, "(]")  # an error counts by it


def times_of(*, times: str, mean: float | None, deviation: float | None) -> None:
    """Check the density of t."""
    one_of("objective.times", times, get_args(Times))
    if times not in USUAL and (mean is not None or deviation is not None):
        raise ConfigError(
            f"objective.times '{times}' has no mean and deviation; take time_mean and time_deviation out",
            code="arguments-conflict",
        )
    within(-100.0, 100.0, {"objective.time_mean": mean})
    within(0.0, 100.0, {"objective.time_deviation": deviation}, "(]")


def denoising(
    *, loss: str, vlb_weight: float, weighting: str, min_snr: float | None, p2_k: float, times: str,
    time_mean: float | None, time_deviation: float | None, condition_dropout: float, p2_gamma: float,
    keep_caption: float, low_size: int | None, max_level: float, blur_probability: float,
    blur_sigma: tuple[float, float], guidance: float, sheet_steps: int,
) -> None:  # fmt: skip
    """Check the arguments of `zoo.training.objectives.denoising:Denoising`."""
    weighting_of(weighting=weighting, min_snr=min_snr, p2_k=p2_k)
    within(0.0, 1e6, {"objective.vlb_weight": vlb_weight})
    within(-100.0, 100.0, {"objective.p2_gamma": p2_gamma})
    shares = {
        "keep_caption": keep_caption, "max_level": max_level, "blur_probability": blur_probability,
        "condition_dropout": condition_dropout,
    }  # fmt: skip
    within(0.0, 1.0, {f"objective.{name}": share for name, share in shares.items()})
    within(1, LARGEST_SIDE, {"objective.low_size": low_size})
    within(0.0, 100.0, {"objective.blur_sigma": blur_sigma})
    ordered({"objective.blur_sigma.0": blur_sigma[0], "objective.blur_sigma.1": blur_sigma[1]})
    within(-LARGEST_GUIDANCE, LARGEST_GUIDANCE, {"objective.guidance": guidance})
    within(1, MOST_STEPS, {"objective.sheet_steps": sheet_steps})
    one_of("objective.loss", loss, LOSSES)
    times_of(times=times, mean=time_mean, deviation=time_deviation)


def reconstruction(
    *, pixel: str, gradient_weight: float, perceptual_weight: float, adversary_weight: float, adversary_start: int,
    adversary_width: int, adversary_layers: int, kl_weight: float = 0.0, commitment_weight: float = 0.0,
) -> None:  # fmt: skip
    """Check the arguments of both objectives of `zoo.training.objectives.autoencoder`."""
    weights = {
        "gradient_weight": gradient_weight, "perceptual_weight": perceptual_weight,
        "adversary_weight": adversary_weight, "kl_weight": kl_weight, "commitment_weight": commitment_weight,
    }  # fmt: skip
    within(0.0, 1e6, {f"objective.{name}": weight for name, weight in weights.items()})
    within(0, 10**9, {"objective.adversary_start": adversary_start})
    within(1, 2**14, {"objective.adversary_width": adversary_width})
    within(1, 16, {"objective.adversary_layers": adversary_layers})
    one_of("objective.pixel", pixel, ("l1", "l2"))


def contrastive(
    *, style_weight: float, against: str, word_dropout: float, jitter: float, concepts_at_once: int | None,
    keep_caption: float,
) -> None:  # fmt: skip
    """Check the arguments of `zoo.training.objectives.contrastive:ClipContrastive`."""
    shares = {"word_dropout": word_dropout, "jitter": jitter, "keep_caption": keep_caption}
    within(0.0, 1.0, {f"objective.{name}": share for name, share in shares.items()})
    within(1, 2**24, {"objective.concepts_at_once": concepts_at_once})
    within(0.0, 100.0, {"objective.style_weight": style_weight}, "[)")
    one_of("objective.against", against, ("batch", "concepts"))
