"""Where a run starts, as a call's image, mask and strength decide.

| task | the run starts | and on the way |
|---|---|---|
| text to image | at t = 1, from noise | |
| image to image | at t = strength, from the noised image (SDEdit: Meng et al. 2022) | |
| inpainting | at t = strength (1 by default) | x0 is known outside the mask (`zoo.guidance.mask`) |
| inpainting by a network for it | at t = strength (1 by default) | the network is shown the rest of the image |
| a depth map for a network for it | as without one | the network is shown the depth |
| a measured image | at t = 1, from noise | samples are held to it (`zoo.guidance.posterior`) |
| an image for a conditioner | at t = 1, from noise | the network is conditioned on it |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from zoo.diffusion.types import Conditioner, source_of
from zoo.guidance.posterior import Posterior, posterior_of
from zoo.pipeline.stage import Pixels, Stage, pixels
from zoo.schema.advice import spoken
from zoo.schema.errors import UsageError

REFINE_STRENGTH = 0.6  # of image to image, where none is given


class Start(NamedTuple):
    """How a run starts; see the module."""

    strength: float = 1.0  # the t that it starts at, where there is an image to start from
    measured: bool = False  # the image is what posterior guidance holds samples to, not where the run starts
    shown: bool = False  # the image is a conditioner's input, not where the run starts


def start_of(
    stages: Sequence[Stage], conditioners: Mapping[str, Conditioner], *, image: Any, mask: Any, strength: float | None,
    depth: Any = None,
) -> Start:  # fmt: skip
    """The start of a run of these stages; UsageError where image, mask, strength and depth (None: none) don't fit."""
    stages[0].space.check_call(stages[0].name, image=image, mask=mask, strength=strength)
    shown = stages[0].denoiser.image_condition
    if (shown == "depth") != (depth is not None):
        raise UsageError(
            f"stage '{stages[0].name}' draws by a depth map; give depth" if depth is None else
            f"the network of stage '{stages[0].name}' takes no depth map; leave depth out", code="depth-unfit",
        )  # fmt: skip
    posterior = posterior_of(stages[0].guidance)
    viewer = next((n for s in stages for n in s.conditioners if source_of(conditioners[n]) == "image"), None)
    if viewer is not None:
        _check_shown(viewer, stages[0], image=image, mask=mask, strength=strength)
        return Start(shown=True)
    if posterior is not None:
        return Start(_read_measured(stages[0], posterior, image, mask, strength), measured=True)
    return Start(_read_strength(stages, image, mask, strength))


def image_size(stages: Sequence[Stage], sizes: Sequence[tuple[int, ...]], smalls: Sequence[Pixels | None]) -> Pixels:
    """(height, width) of a call's image: the start, what is enlarged, or what was measured."""
    given = smalls[0] or pixels(sizes[0])
    posterior = posterior_of(stages[0].guidance)
    if posterior is None:
        return given
    shrinks = posterior.measurement.shrinks
    if any(side % shrinks for side in given):
        raise UsageError(
            f"stage '{stages[0].name}' is measured with {shrinks} times fewer pixels a side, and "
            f"{given[0]}x{given[1]} can't be divided by that; use multiples of {shrinks}",
            code="size-indivisible",
        )
    return given[0] // shrinks, given[1] // shrinks


def _check_shown(viewer: str, stage: Stage, *, image: Any, mask: Any, strength: float | None) -> None:
    """UsageError for an image that is a conditioner's input and has another use, too."""
    if image is None:
        raise UsageError(
            f"conditioner '{viewer}' is given an image and there is none; give an image", code="image-missing"
        )
    if mask is not None or strength is not None:
        what = "mask" if mask is not None else "strength"
        raise UsageError(
            f"the image is what conditioner '{viewer}' is given, and no start; leave the {what} out",
            code="image-is-no-start",
        )
    if posterior_of(stage.guidance) is not None:
        raise UsageError(
            f"the image is what conditioner '{viewer}' is given; run stage '{stage.name}' without it",
            code="image-used-twice",
        )


def _read_measured(stage: Stage, posterior: Posterior, image: Any, mask: Any, strength: float | None) -> float:
    if image is None:
        raise UsageError(
            f"stage '{stage.name}' is held to a measured picture and none was given; give an image",
            code="image-missing",
        )
    if posterior.measurement.hears_mask != (mask is not None):
        needs = "is measured outside a mask; give one" if mask is None else "is measured as a whole; leave the mask out"
        raise UsageError(f"the image of stage '{stage.name}' {needs}", code="image-unfit")
    if strength is not None:
        raise UsageError(
            f"the image of stage '{stage.name}' is measured and no start; leave the strength out",
            code="image-is-no-start",
        )
    return 1.0


def _read_strength(stages: Sequence[Stage], image: Any, mask: Any, strength: float | None) -> float:
    first = stages[0]
    task = "mask" if mask is not None else "strength"
    if first.enlarges:
        if image is None:
            raise UsageError(
                f"stage '{first.name}' enlarges a picture and none was given; give an image", code="image-missing"
            )
        if mask is not None or strength is not None:
            raise UsageError(
                f"stage '{first.name}' enlarges the image and draws all of it; leave the {task} out",
                code="image-is-no-start",
            )
        return 1.0
    if first.denoiser.image_condition == "masked" and (image is None or mask is None):
        lacking = "image and mask" if image is None and mask is None else "image" if image is None else "mask"
        raise UsageError(
            f"stage '{first.name}' draws the masked part of an image anew; give {lacking}", code="image-missing"
        )
    if image is None and (mask is not None or strength is not None):
        raise UsageError(f"a {task} needs an image to start from; give one", code="image-missing")
    if mask is not None and any(s.enlarges or s.size != first.size for s in stages):
        raise UsageError(
            "a mask keeps pixels, and the stages of this pipeline have several sizes; "
            + spoken("run one stage, stages=1", "take a pipeline of one stage, like --model class2img"),
            code="mask-unfit",
        )
    strength = (REFINE_STRENGTH if mask is None else 1.0) if strength is None else strength
    if isinstance(strength, bool) or not isinstance(strength, Real) or not 0.0 < float(strength) <= 1.0:
        raise UsageError(
            f"strength is {strength!r}; give more than 0 (keep the image) and at most 1 (draw anew)",
            code="strength-out-of-range",
        )
    return float(strength) if image is not None else 1.0
