"""The arguments of `pipe(...)` as a request, and the tensors and noise that go beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import Tensor

from zoo.diffusion.noise import AddressedNoise, FixedNoise, SeededSamples
from zoo.diffusion.types import Conditioner, NoiseSource, source_of, sources
from zoo.guidance.interval import holds_classifier_free
from zoo.images.inputs import check_frames, hash_of, opened, read_depth, read_image, read_mask
from zoo.pipeline.prepared import Given
from zoo.pipeline.request import (
    Request,
    SampleSpec,
    check_count,
    plain,
    read_guidance,
    read_size,
    whole,
    whole_number,
)
from zoo.pipeline.stage import Stage, lay_out, pixels, small_sizes
from zoo.pipeline.starts import image_size, start_of
from zoo.schema.errors import UsageError
from zoo.schema.notes import note


def read_call(
    stages: Sequence[Stage], conditioners: Mapping[str, Conditioner], *, prompts: Any, negative: Any, labels: Any,
    n: int, seed: Any, size: Any, steps: int | None, guidance: float | None, image: Any, mask: Any,
    strength: float | None, noise: Any, batch_size: Any, first: Any = 0, depth: Any = None,
) -> tuple[Request, Given]:  # fmt: skip
    """A call of the stages that run; UsageError, with the fix, for one that they can't draw."""
    asked, unwanted, classes = _read_words(conditioners, prompts, negative, labels)
    n = whole_number("n", n, "the number of images a prompt, 1 or more")
    check_count(len(asked) * n)
    size = None if size is None else read_size(size)
    steps = None if steps is None else whole_number("steps", steps, "1 or more")
    guidance = read_guidance(guidance)
    if guidance is not None and not any(holds_classifier_free(g) for s in stages for g in s.guidance):
        raise UsageError(
            "no stage of this pipeline has classifier-free guidance to set; leave guidance out", code="guidance-missing"
        )
    first = 0 if whole(first) and first == 0 else whole_number("first", first, "a sample's number, 0 or more")
    if first and noise is not None:
        raise UsageError(
            "first counts the samples of a seed, and noise is given; leave one of them out", code="option-conflict"
        )
    start = start_of(stages, conditioners, image=image, mask=mask, strength=strength, depth=depth)
    if isinstance(noise, (Tensor, np.ndarray, Mapping)):
        source: NoiseSource = FixedNoise(noise)
    elif noise is None:
        source = _seeded(seed, prompts=len(asked), n=n, first=first)
    elif not callable(noise):
        raise UsageError(
            f"noise is {type(noise).__name__}; give a noise source, a tensor, or tensors by address", code="noise-unfit"
        )
    else:
        source = cast("NoiseSource", noise)
    count = len(asked) * n
    if isinstance(noise, (Tensor, np.ndarray)) and noise.ndim and len(noise) != count:
        raise UsageError(f"noise of {len(noise)} samples for {count}; give as many", code="counts-differ")
    sizes = lay_out(stages, size)
    smalls = small_sizes(stages, sizes)
    said = stages[-1].space.size_note(sizes[-1], "this pipeline")
    if said is not None:
        note(said, stacklevel=5)
    if image is not None and mask is not None and not isinstance(image, (Tensor, list, tuple)):
        image = opened(image, "image")
        if not isinstance(mask, (Tensor, list, tuple)):
            mask = opened(mask, "mask")
            check_frames(image, mask)
    pictures = white = None
    if image is not None:
        of = image_size(stages, sizes, smalls)
        pictures = read_image(image, size=of, count=count, each=n)
        white = None if mask is None else read_mask(mask, size=of)
    deep = None if depth is None else read_depth(depth, size=pixels(sizes[0]))
    names = [None] * count if pictures is None else _names(pictures)
    begins = start.strength if image is not None and not (start.measured or start.shown or stages[0].enlarges) else None
    specs = [
        SampleSpec(
            prompt=asked[i // n], negative=unwanted[i // n], label=classes[i // n], **_address(source, i), steps=steps,
            guidance=guidance, image=names[i], mask=None if white is None else hash_of(white), strength=begins,
            depth=None if deep is None else hash_of(deep),
        )
        for i in range(count)
    ]  # fmt: skip
    request = Request(
        samples=tuple(specs), size=None if size is None else sizes[-1],
        batch_size=None if batch_size is None else whole_number("batch_size", batch_size, "1 or more"),
    )  # fmt: skip
    return request, Given(image=pictures, mask=white, depth=deep, source=source, checked=True)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images, masks and depth maps by their SHA-256, as a `SampleSpec` names them, and the tensors for `pipe.run`."""

    image: str | None
    mask: str | None
    tensors: Mapping[str, Tensor]
    depth: str | None = None


def read_inputs(stages: Sequence[Stage], *, image: Any, mask: Any, size: Any, depth: Any = None) -> Inputs:
    """An image with or without a mask, and a depth map, read for a run of these stages; see `zoo.images.inputs`."""
    if image is None and (depth is None or mask is not None):
        raise UsageError("an input is an image, or an image and a mask; give an image", code="image-missing")
    sizes = lay_out(stages, None if size is None else read_size(size))
    of = image_size(stages, sizes, small_sizes(stages, sizes))
    read = {
        "image": None if image is None else read_image(image, size=of, count=1)[0],
        "mask": None if mask is None else read_mask(mask, size=of)[0],
        "depth": None if depth is None else read_depth(depth, size=pixels(sizes[0]))[0],
    }
    names = {what: None if tensor is None else hash_of(tensor) for what, tensor in read.items()}
    return Inputs(**names, tensors={str(names[what]): t for what, t in read.items() if t is not None})


def _names(images: Tensor) -> list[str]:
    """The SHA-256 of each row; of one shared by all, once."""
    if images.stride(0) == 0:
        return [hash_of(images[:1])] * len(images)
    return [hash_of(row) for row in images]


def _address(source: NoiseSource, row: int) -> dict[str, Any]:
    """Seed and number of a sample; of noise that was given, its row alone."""
    if isinstance(source, AddressedNoise):
        return {"seed": source.seed, "index": row}
    if isinstance(source, SeededSamples):
        return {"seed": source.seeds[row], "index": source.numbers[row]}
    return {"index": row}


def _seeded(seed: Any, *, prompts: int, n: int, first: int) -> AddressedNoise | SeededSamples:
    """The noise of one seed for a call, or of one a prompt, or one a sample; numbers begin at `first`."""
    given: Any = plain(seed)
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        one = AddressedNoise(cast("int", given))
        numbers = range(first, first + prompts * n)
        return SeededSamples(seeds=(one.seed,) * len(numbers), numbers=tuple(numbers)) if first else one
    seeds = [plain(one) for one in given]
    if len(seeds) == prompts * n:
        return SeededSamples(seeds=tuple(seeds), numbers=(first,) * len(seeds))
    if len(seeds) != prompts:
        raise UsageError(
            f"{len(seeds)} seeds for {prompts} prompts with {n} images each; give one, or one a prompt",
            code="counts-differ",
        )
    return SeededSamples(
        seeds=tuple(s for s in seeds for _ in range(n)), numbers=tuple(range(first, first + n)) * prompts
    )


def _listed(given: Any) -> list[Any]:
    """One value as a list of one, a list or the like as it is; an empty one of what is neither."""
    given = plain(given)
    if given is None or isinstance(given, str) or whole(given):
        return [given]
    ordered = isinstance(given, Iterable) and not isinstance(given, (Set, Mapping))
    return [plain(one) for one in given] if ordered else []


def _texts(what: str, given: Any) -> list[str]:
    """One text or several, of none an empty one; UsageError for anything else."""
    texts = [""] if given is None else _listed(given)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{what} must be a text or a list of at least one text", code="prompt-type-wrong")
    return texts


def _read_words(
    conditioners: Mapping[str, Conditioner], prompts: Any, negative: Any, labels: Any
) -> tuple[list[str], list[str], list[int | str | None]]:
    """Prompts, negative prompts and labels, as many of each."""
    taken = sources(conditioners)
    if labels is not None and "labels" not in taken:
        raise UsageError("no conditioner of this pipeline takes labels; ask with prompts", code="labels-unread")
    if prompts is not None and not conditioners:
        raise UsageError(
            "this pipeline has no conditioner and can't be asked with prompts; call it without any",
            code="prompts-unread",
        )
    if prompts is not None and "prompts" not in taken:
        raise UsageError("no conditioner of this pipeline takes prompts; ask with labels", code="prompts-unread")
    asked = _texts("prompts", prompts)
    classes = _listed(labels)
    if not classes or not all(one is None or isinstance(one, str) or whole(one) for one in classes):
        raise UsageError("labels must be a number or a name, or a list of at least one", code="label-invalid")
    if len(asked) != len(classes) and 1 not in (len(asked), len(classes)):
        raise UsageError(
            f"{len(classes)} labels for {len(asked)} prompts; give one, or one a prompt", code="counts-differ"
        )
    count = max(len(asked), len(classes))
    asked = asked * count if len(asked) == 1 else asked
    classes = classes * count if len(classes) == 1 else classes
    unwanted = _texts("negative prompts", negative)
    if len(unwanted) not in (1, count):
        raise UsageError(
            f"{len(unwanted)} negative prompts for {count} prompts; give one, or one a prompt", code="counts-differ"
        )
    unwanted = unwanted * count if len(unwanted) == 1 else unwanted
    for conditioner in conditioners.values():
        if hasattr(conditioner, "check"):
            words = {"prompts": [*asked, *unwanted], "labels": classes}.get(source_of(conditioner), [])
            conditioner.check([*dict.fromkeys(words)])  # type: ignore[attr-defined]
    return asked, unwanted, classes
