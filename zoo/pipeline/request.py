"""One call of a pipeline, checked and laid out before any network runs.

| task | the run starts | and on the way |
|---|---|---|
| text to image | at t = 1, from noise | |
| image to image | at t = strength, from the noised image (SDEdit: Meng et al. 2022) | |
| inpainting | at t = strength (1 by default) | x0 is known outside the mask (`zoo.guidance.mask`) |
| a measured image | at t = 1, from noise | samples are held to it (`zoo.guidance.posterior`) |
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from zoo.diffusion.noise import AddressedNoise, FixedNoise, SeededSamples
from zoo.diffusion.types import Conditioner, NoiseSource
from zoo.guidance.interval import holds_classifier_free
from zoo.guidance.posterior import Posterior, posterior_of
from zoo.images.inputs import check_frames, opened, read_image, read_mask
from zoo.pipeline.conditioning import source_of, sources
from zoo.pipeline.stage import Pixels, Stage, lay_out, pixels, small_sizes
from zoo.schema.errors import RequestNote, UsageError

LARGEST_GUIDANCE = 1000.0  # beyond it float32 has no digits left for the sample
REFINE_STRENGTH = 0.6  # of image to image, where none is given


@dataclass(frozen=True)
class Request:
    """What was asked for, one entry a sample where it is a list; `sizes` and `smalls` have one a stage that runs."""

    prompts: list[str]
    negative: list[str]
    labels: list[int | str | None]
    samples: list[int]  # global sample numbers, addresses of the noise
    size: tuple[int, ...] | None
    sizes: list[tuple[int, ...]]
    smalls: list[Pixels | None]
    steps: int | None
    guidance: float | None
    source: NoiseSource
    image: Tensor | None = None
    mask: Tensor | None = None
    strength: float = 1.0
    measured: bool = False  # the image is what posterior guidance holds samples to, not where the run starts
    shown: bool = False  # the image is what a conditioner is given, not where the run starts


def read_request(
    stages: Sequence[Stage], conditioners: Mapping[str, Conditioner], *, prompts: Any, negative: Any, labels: Any,
    n: int, seed: Any, size: Any, steps: int | None, guidance: float | None, image: Any, mask: Any,
    strength: float | None, noise: Any,
) -> Request:  # fmt: skip
    """A call of the stages that run; UsageError, with the mend, for one they can't do."""
    asked, unwanted, classes = _read_words(conditioners, prompts, negative, labels)
    n = whole_number("n", n, "the number of images a prompt, 1 or more")
    steps = None if steps is None else whole_number("steps", steps, "1 or more")
    guidance = _read_guidance(guidance)
    if guidance is not None and not any(holds_classifier_free(g) for s in stages for g in s.guidance):
        raise UsageError("no stage of this pipeline has classifier-free guidance to set; leave guidance out")
    stages[0].space.check_call(stages[0].name, image=image, mask=mask, strength=strength)
    posterior = posterior_of(stages[0].guidance)
    viewer = next((n for s in stages for n in s.conditioners if source_of(conditioners[n]) == "image"), None)
    if viewer is not None:
        _check_shown(viewer, stages[0], image=image, mask=mask, strength=strength)
        strength = 1.0
    elif posterior is None:
        strength = _read_strength(stages, image, mask, strength)
    else:
        strength = _read_measured(stages[0], posterior, image, mask, strength)
    if isinstance(noise, (Tensor, Mapping)):
        source: NoiseSource = FixedNoise(noise)
    else:
        source = _seeded(seed, prompts=len(asked), n=n) if noise is None else noise
    count = len(asked) * n
    sizes = lay_out(stages, size)
    smalls = small_sizes(stages, sizes)
    note = stages[-1].space.size_note(sizes[-1], "this pipeline")
    if note is not None:
        warnings.warn(note, RequestNote, stacklevel=2)
    given = smalls[0] or sizes[0]
    if posterior is not None:
        shrinks = posterior.measurement.shrinks
        if any(side % shrinks for side in given):
            raise UsageError(
                f"stage '{stages[0].name}' is measured with {shrinks} times fewer pixels a side, and "
                f"{given[0]}x{given[1]} can't be divided by that; use multiples of {shrinks}"
            )
        given = tuple(side // shrinks for side in given)
    if image is not None and mask is not None and not isinstance(image, (Tensor, list, tuple)):
        image = opened(image, "image")
        if not isinstance(mask, (Tensor, list, tuple)):
            mask = opened(mask, "mask")
            check_frames(image, mask)
    return Request(
        prompts=[p for p in asked for _ in range(n)], negative=[p for p in unwanted for _ in range(n)],
        labels=[c for c in classes for _ in range(n)], samples=list(range(count)),
        size=None if size is None else sizes[-1], sizes=sizes, smalls=smalls, steps=steps, guidance=guidance,
        source=source, strength=strength, measured=posterior is not None, shown=viewer is not None,
        image=None if image is None else read_image(image, size=pixels(given), count=count, each=n),
        mask=None if mask is None else read_mask(mask, size=pixels(given)),
    )  # fmt: skip


def whole_number(name: str, value: Any, wanted: str) -> int:
    """A whole number from 1 up, numpy's too; UsageError says what is wanted."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UsageError(f"{name} is {value!r}; give {wanted}")
    return int(value)


def _read_guidance(guidance: Any) -> float | None:
    if guidance is None:
        return None
    if isinstance(guidance, bool) or not isinstance(guidance, Real) or not abs(float(guidance)) <= LARGEST_GUIDANCE:
        raise UsageError(f"guidance is {guidance!r}; give a number from -{LARGEST_GUIDANCE:g} to {LARGEST_GUIDANCE:g}")
    return float(guidance)


def _seeded(seed: Any, *, prompts: int, n: int) -> AddressedNoise | SeededSamples:
    """The noise of one seed for a call, or of one a prompt, or one a sample."""
    if not isinstance(seed, (list, tuple)):
        return AddressedNoise(_plain(seed))
    seeds = [_plain(one) for one in seed]
    if len(seeds) == prompts * n:
        return SeededSamples(seeds=tuple(seeds), numbers=(0,) * len(seeds))
    if len(seeds) != prompts:
        raise UsageError(f"{len(seeds)} seeds for {prompts} prompts with {n} images each; give one, or one a prompt")
    return SeededSamples(seeds=tuple(s for s in seeds for _ in range(n)), numbers=tuple(range(n)) * prompts)


def _plain(seed: Any) -> Any:
    """numpy's whole numbers as Python's, which a record can hold."""
    return int(seed) if isinstance(seed, Integral) and not isinstance(seed, bool) else seed


def _read_words(
    conditioners: Mapping[str, Conditioner], prompts: Any, negative: Any, labels: Any
) -> tuple[list[str], list[str], list[int | str | None]]:
    """Prompts, negative prompts and labels, as many of each."""
    taken = sources(conditioners)
    if labels is not None and "labels" not in taken:
        raise UsageError("no conditioner of this pipeline takes labels; ask with prompts")
    if prompts is not None and not conditioners:
        raise UsageError("this pipeline has no conditioner and can't be asked with prompts; call it without any")
    if prompts is not None and "prompts" not in taken:
        raise UsageError("no conditioner of this pipeline takes prompts; ask with labels")
    asked = [""] if prompts is None else [prompts] if isinstance(prompts, str) else list(prompts)
    if not asked or not all(isinstance(p, str) for p in asked):
        raise UsageError("prompts must be a text or a list of at least one text")
    classes: list[Any] = [labels] if isinstance(labels, (str, int)) else [None] if labels is None else list(labels)
    if not classes:
        raise UsageError("labels must be a number or a name, or a list of at least one")
    if len(asked) != len(classes) and 1 not in (len(asked), len(classes)):
        raise UsageError(f"{len(classes)} labels for {len(asked)} prompts; give one, or one a prompt")
    count = max(len(asked), len(classes))
    asked = asked * count if len(asked) == 1 else asked
    classes = classes * count if len(classes) == 1 else classes
    unwanted = [""] if negative is None else [negative] if isinstance(negative, str) else list(negative)
    if len(unwanted) not in (1, count):
        raise UsageError(f"{len(unwanted)} negative prompts for {count} prompts; give one, or one a prompt")
    unwanted = unwanted * count if len(unwanted) == 1 else unwanted
    for conditioner in conditioners.values():
        if hasattr(conditioner, "check"):
            words = {"prompts": [*asked, *unwanted], "labels": classes}.get(source_of(conditioner), [])
            conditioner.check([*dict.fromkeys(words)])  # type: ignore[attr-defined]
    return asked, unwanted, classes


def _check_shown(viewer: str, stage: Stage, *, image: Any, mask: Any, strength: float | None) -> None:
    """UsageError for an image that a conditioner is given and that is something else, too."""
    if image is None:
        raise UsageError(f"conditioner '{viewer}' is given an image and there is none; give an image")
    if mask is not None or strength is not None:
        what = "mask" if mask is not None else "strength"
        raise UsageError(f"the image is what conditioner '{viewer}' is given, and no start; leave the {what} out")
    if posterior_of(stage.guidance) is not None:
        raise UsageError(f"the image is what conditioner '{viewer}' is given; run stage '{stage.name}' without it")


def _read_measured(stage: Stage, posterior: Posterior, image: Any, mask: Any, strength: float | None) -> float:
    if image is None:
        raise UsageError(f"stage '{stage.name}' is held to a measured picture and none was given; give an image")
    if posterior.measurement.hears_mask != (mask is not None):
        needs = "is measured outside a mask; give one" if mask is None else "is measured as a whole; leave the mask out"
        raise UsageError(f"the image of stage '{stage.name}' {needs}")
    if strength is not None:
        raise UsageError(f"the image of stage '{stage.name}' is measured and no start; leave the strength out")
    return 1.0


def _read_strength(stages: Sequence[Stage], image: Any, mask: Any, strength: float | None) -> float:
    first = stages[0]
    task = "mask" if mask is not None else "strength"
    if first.enlarges:
        if image is None:
            raise UsageError(f"stage '{first.name}' enlarges a picture and none was given; give an image")
        if mask is not None or strength is not None:
            raise UsageError(f"stage '{first.name}' enlarges the image and draws all of it; leave the {task} out")
        return 1.0
    if image is None and (mask is not None or strength is not None):
        raise UsageError(f"a {task} needs an image to start from; give one")
    if mask is not None and any(s.enlarges or s.size != first.size for s in stages):
        raise UsageError(
            "a mask keeps pixels, and the stages of this pipeline have several sizes; run one stage, stages=1"
        )
    strength = (REFINE_STRENGTH if mask is None else 1.0) if strength is None else strength
    if isinstance(strength, bool) or not isinstance(strength, Real) or not 0.0 < float(strength) <= 1.0:
        raise UsageError(f"strength is {strength!r}; give more than 0 (keep the image) and at most 1 (draw anew)")
    return float(strength) if image is not None else 1.0
