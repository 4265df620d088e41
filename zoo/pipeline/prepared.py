"""A request prepared for sampling: checked against the stages, laid out, its images and masks as tensors.

Samples of one plan (the same steps, sampler and kind of start) are one `Prepared`, which runs in batches; their
prompts, labels, seeds, images and guidance scales are their own. Samples of other plans are other runs, one after the
other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.diffusion.noise import AddressedNoise, SeededSamples
from zoo.diffusion.types import Conditioner, NoiseSource, source_of, sources
from zoo.guidance.interval import holds_classifier_free, scales_each
from zoo.images.inputs import hash_of
from zoo.pipeline.request import Request, SampleSpec, of_sample
from zoo.pipeline.stage import Pixels, Stage, lay_out, pixels, small_sizes
from zoo.pipeline.starts import Start, image_size, start_of
from zoo.schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Given:
    """What goes beside a request: tensors and noise.

    Args:
        tensors: images (3, H, W) in [-1, 1] and masks (1, H, W) of 0 and 1 by their SHA-256.
        image, mask, depth: the same of a call, whose samples are all of one plan: (B, 3, H, W), (1, 1, H, W) twice.
        source: noise that isn't the samples' addressed one. checked: the call's words and numbers were already
            checked against the pipeline.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    image: Tensor | None = None
    mask: Tensor | None = None
    depth: Tensor | None = None
    source: NoiseSource | None = None
    checked: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Samples of one plan, one entry a sample where it is a list; `sizes` and `smalls` have one a stage that runs."""

    rows: list[int]  # their places in the request
    specs: list[SampleSpec]
    samples: list[int]  # addresses of their noise in the source
    size: tuple[int, ...] | None  # as requested
    sizes: list[tuple[int, ...]]
    smalls: list[Pixels | None]
    source: NoiseSource
    start: Start
    image: Tensor | None = None  # (B, 3, H, W) in [-1, 1]
    mask: Tensor | None = None  # (1 or B, 1, H, W), 1 where it is drawn anew
    depth: Tensor | None = None  # (1 or B, 1, H, W) from -1 to 1

    @property
    def prompts(self) -> list[str]:
        """One a sample."""
        return [spec.prompt for spec in self.specs]

    @property
    def negative(self) -> list[str]:
        """One a sample; an empty one is none."""
        return [spec.negative for spec in self.specs]

    @property
    def labels(self) -> list[int | str | None]:
        """One a sample."""
        return [spec.label for spec in self.specs]

    @property
    def scales(self) -> list[float | None]:
        """Of guidance, one a sample; None is the stage's own."""
        return [spec.guidance for spec in self.specs]

    @property
    def steps(self) -> int | None:
        """In every stage; None is the samplers' own."""
        return self.specs[0].steps

    @property
    def sampler(self) -> str | Mapping[str, Any] | None:
        """In every stage; None is the stages' own."""
        return self.specs[0].sampler

    def mask_of(self, part: slice) -> Tensor | None:
        """The mask of some samples, (1 or B, 1, H, W)."""
        return _of(self.mask, part)

    def depth_of(self, part: slice) -> Tensor | None:
        """The depth map of some samples, (1 or B, 1, H, W)."""
        return _of(self.depth, part)


def _of(rows: Tensor | None, part: slice) -> Tensor | None:
    return rows if rows is None or len(rows) == 1 else rows[part]


def prepare(
    stages: Sequence[Stage], conditioners: Mapping[str, Conditioner], request: Request, given: Given
) -> list[Prepared]:
    """The request's samples, those of one plan together, in the order of their first; UsageError for invalid ones."""
    if not given.checked:
        _check(stages, conditioners, request)
    sizes = lay_out(stages, request.size)
    smalls = small_sizes(stages, sizes)
    source, samples = _noise(request, given)
    each = all(scales_each(g) for s in stages for g in s.guidance if holds_classifier_free(g))
    groups: dict[Any, list[int]] = {}
    for row, spec in enumerate(request.samples):
        # Guidance of 0 needs the null condition alone. One that takes no scale a sample has a run for each.
        scale = spec.guidance == 0.0 if each else spec.guidance
        groups.setdefault((spec.plan_key(), scale), []).append(row)
    made = []
    for rows in groups.values():
        specs = [request.samples[row] for row in rows]
        first = specs[0]
        image, mask, depth = given.image, given.mask, given.depth
        with contextlib.nullcontext() if given.checked else of_sample(rows[0]):
            start = start_of(
                stages, conditioners, image=first.image, mask=first.mask, strength=first.strength, depth=first.depth
            )
        if image is None and first.image is not None:
            of = image_size(stages, sizes, smalls)
            image = _tensor({row: request.samples[row].image for row in rows}, given.tensors, (3, *of), "image")
            image = image.expand(len(specs), -1, -1, -1)
            if first.mask is not None:
                mask = _tensor({row: request.samples[row].mask for row in rows}, given.tensors, (1, *of), "mask")
        if depth is None and first.depth is not None:
            names = {row: request.samples[row].depth for row in rows}
            depth = _tensor(names, given.tensors, (1, *pixels(sizes[0])), "depth")
        made.append(Prepared(
            rows=rows, specs=specs, samples=[samples[row] for row in rows],
            size=None if request.size is None else sizes[-1], sizes=sizes, smalls=smalls, source=source, start=start,
            image=image, mask=mask, depth=depth,
        ))  # fmt: skip
    return made


def _tensor(
    names: Mapping[int, str | None], tensors: Mapping[str, Tensor], shape: tuple[int, ...], what: str
) -> Tensor:
    """(1 or B, *shape) of the names of samples by their rows: one row where all samples name the same."""
    distinct: dict[str, Tensor] = {}
    for row, name in names.items():
        if name is None or name in distinct:
            continue
        found = tensors.get(name)
        if found is None:
            raise UsageError(
                f"samples[{row}] names the {what} {name[:12]} and no such {what} is given; give it in inputs",
                code="input-missing",
            )
        if not isinstance(found, Tensor) or tuple(found.shape) != shape or hash_of(found) != name:
            raise UsageError(
                f"what is given as the {what} {name[:12]} of samples[{row}] has another hash or shape than {shape}; "
                "make it with pipe.inputs",
                code="input-hash-wrong",
            )
        distinct[name] = found
    return torch.stack([*distinct.values()] if len(distinct) == 1 else [distinct[str(name)] for name in names.values()])


def _noise(request: Request, given: Given) -> tuple[NoiseSource, list[int]]:
    """The source of a request's noise, and the number of each sample in it."""
    specs = request.samples
    if given.source is not None:
        return given.source, list(range(len(specs)))
    if len({spec.seed for spec in specs}) == 1:
        return AddressedNoise(specs[0].seed), [spec.index for spec in specs]
    seeds, numbers = tuple(spec.seed for spec in specs), tuple(spec.index for spec in specs)
    return SeededSamples(seeds=seeds, numbers=numbers), list(range(len(specs)))


def _check(stages: Sequence[Stage], conditioners: Mapping[str, Conditioner], request: Request) -> None:
    """UsageError for words that no conditioner takes, and for a scale that no guidance has."""
    taken = sources(conditioners)
    guided = any(holds_classifier_free(g) for s in stages for g in s.guidance)
    checkers: list[Any] = [c for c in conditioners.values() if hasattr(c, "check")]
    seen: set[Any] = set()  # words that were checked already
    for number, spec in enumerate(request.samples):
        with of_sample(number):
            if (spec.prompt or spec.negative) and "prompts" not in taken:
                raise UsageError(
                    "no conditioner of this pipeline takes prompts; leave prompt and negative out",
                    code="prompts-unread",
                )
            if spec.label is not None and "labels" not in taken:
                raise UsageError("no conditioner of this pipeline takes labels; leave label out", code="labels-unread")
            if spec.guidance is not None and not guided:
                raise UsageError(
                    "no stage of this pipeline has classifier-free guidance to set; leave guidance out",
                    code="guidance-missing",
                )
            words = {"prompts": [spec.prompt, spec.negative], "labels": [spec.label]}
            for conditioner in checkers:
                source = source_of(conditioner)
                new = [word for word in words.get(source, []) if (id(conditioner), word) not in seen]
                if new:
                    seen |= {(id(conditioner), word) for word in new}
                    conditioner.check([*dict.fromkeys(new)])
