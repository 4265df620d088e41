"""The reference image of each generated one, for PSNR and SSIM.

| what was generated | its reference |
|---|---|
| files | the other side's file of the same name, endings apart; of a dataset, the row's `file_name` |
| images without names (arrays) | the one at the same place |
| what a pipeline enlarged | the image whose small version it read |
"""

from __future__ import annotations

from collections.abc import Sequence

from zoo.data.image_sets import Pictures, SomePictures
from zoo.evaluation.inputs.sources import Source
from zoo.schema.errors import UsageError


def truth_of(generated: Source, reference: Source | None) -> tuple[Pictures, str]:
    """The references of the generated images, one each, and by which rule; UsageError where there are none."""
    if generated.truth is not None:
        return generated.truth, "the pictures that were shown small"
    if generated.pictures is None:
        raise UsageError(
            f"it needs pictures, and '{generated.name}' holds statistics; give the pictures", code="statistics-only"
        )
    if generated.names is None:
        raise UsageError(
            f"what '{generated.name}' draws stands for no picture, since it doesn't enlarge one; give two folders",
            code="pairs-missing",
        )
    if reference is None:
        raise UsageError(
            "it compares pictures with those they stand for; give these as a second side", code="pairs-missing"
        )
    if reference.pictures is None or reference.names is None:
        raise UsageError(
            f"'{reference.name}' are no pictures with names; give the folder of those that are stood for",
            code="pairs-missing",
        )
    places = _places(generated, generated.names, reference, reference.names)
    return SomePictures(reference.pictures, places), "pictures of the same name or place"


def _places(generated: Source, asked: Sequence[str], reference: Source, there: Sequence[str]) -> list[int]:
    """Which of the reference's images belongs to each generated one."""
    exact = {name: i for i, name in enumerate(there)}
    by_stem: dict[str, list[int]] = {}
    for i, name in enumerate(there):
        by_stem.setdefault(_stem(name), []).append(i)
    found: dict[int, str] = {}
    for name in asked:
        fitting = [exact[name]] if name in exact else by_stem.get(_stem(name), [])
        if len(fitting) != 1:
            how = "no file" if not fitting else "several files"
            raise UsageError(
                f"'{name}' in '{generated.name}' stands for the file of its name in '{reference.name}', which has "
                f"{how} of that name; name both alike",
                code="pairs-unmatched",
            )
        if fitting[0] in found:
            raise UsageError(
                f"'{found[fitting[0]]}' and '{name}' in '{generated.name}' stand for one picture of "
                f"'{reference.name}'; take one out",
                code="pairs-unmatched",
            )
        found[fitting[0]] = name
    return list(found)


def _stem(name: str) -> str:
    """A file's name without its ending."""
    front, dot, _ = name.rpartition(".")
    return front if dot else name
