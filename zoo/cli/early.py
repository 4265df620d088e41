"""What a call to draw can be refused for before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.schema.errors import UsageError

if TYPE_CHECKING:
    from zoo.config.check import Resolved

LARGEST_SEED = 2**64 - 1


def check_call(resolved: Resolved, call: Mapping[str, Any], size: int | tuple[int, ...] | None) -> None:
    """UsageError for a seed, a size or an image file that the pipeline can't draw with."""
    if not 0 <= call["seed"] <= LARGEST_SEED:
        raise UsageError(f"the seed {call['seed']} is out of range; give one from 0 to 2^64 - 1", code="seed-invalid")
    if size is not None:
        _check_size(resolved, size)
    _check_files(resolved, {key: call[key] for key in ("image", "mask", "depth") if isinstance(call.get(key), str)})


def _check_size(resolved: Resolved, size: int | tuple[int, ...]) -> None:
    """The last stage draws this size, and each before it its share."""
    from zoo.config.cards import Cards
    from zoo.config.contract import size_multiples
    from zoo.images.space import Images, share
    from zoo.pipeline.space import space_of
    from zoo.schema.registry import registry

    stages = resolved.config["stages"]
    spaces = [space_of(stage) for stage in stages]
    last = spaces[-1]
    if not isinstance(last, Images):  # of which a stage's network says how many axes they have
        return
    multiples = size_multiples(resolved.config, registry(), Cards(dict(resolved.cards)))
    whole = last.lengths(size, stage=stages[-1]["name"], multiple=multiples[-1], dims=2)
    for stage, space, multiple in list(zip(stages, spaces, multiples, strict=True))[:-1]:
        part = share(whole, space.side, last.side, stage["name"])
        space.lengths(part, stage=stage["name"], multiple=multiple, dims=2)


def _check_files(resolved: Resolved, files: Mapping[str, str]) -> None:
    """Each is there and is an image."""
    from zoo.images.decode import open_picture, read_file
    from zoo.images.space import Images
    from zoo.pipeline.space import space_of

    if isinstance(space_of(resolved.config["stages"][-1]), Images):
        for what, file in files.items():
            open_picture(read_file(Path(file), what=what), name=file)
