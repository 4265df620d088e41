"""The family's door: which of a user's files and folders it reads (registry.yaml, kind `family`)."""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path

from zoo.checkpoints.folders import read_json
from zoo.config.sources import INDEX, Source
from zoo.families.stable_diffusion.checkpoint import TINY, UNET, VAE, AutoencoderFile, Checkpoint
from zoo.families.stable_diffusion.containers import SUFFIXES, Container, Several, open_container
from zoo.families.stable_diffusion.folder import CLASSES, CLASSES_XL, TINY_CLASS, AutoencoderFolder, Folder
from zoo.schema.errors import WeightsError

_AUTOENCODERS = ("AutoencoderKL", TINY_CLASS)
_HALVES = ("encoder", "decoder")  # of a tiny autoencoder in its author's two files
_MOST = 1000  # files of a folder whose state is looked at


def stable_diffusion(path: Path) -> Source | None:
    """Stable Diffusion 1, 2 and XL, with its refiner: a diffusers folder, or a file in the original layout."""
    # A folder stays as it was where a file in it is written anew.
    files = [path, *itertools.islice(path.glob("*"), _MOST), *itertools.islice(path.glob("*/*"), _MOST)]
    about = [file.stat() for file in files if file.exists()]
    return _opened(path, tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in about))


@lru_cache(maxsize=4)  # a pipeline opens its file once for each of its parts
def _opened(path: Path, state: tuple[tuple[int, int, int], ...]) -> Source | None:
    if path.is_dir():
        if (path / INDEX).is_file():
            known = read_json(path / INDEX).get("_class_name") in (*CLASSES, *CLASSES_XL)
            return Folder(path) if known else None
        if (path / "config.json").is_file():
            known = read_json(path / "config.json").get("_class_name") in _AUTOENCODERS
            return AutoencoderFolder(path) if known else None
        raise WeightsError(
            f"the folder '{path}' has no {INDEX}; give the folder that holds one, or a file", code="model-unread"
        )
    if path.suffix.lower() not in SUFFIXES:
        return None
    container = open_container(path)
    if f"{UNET}time_embed.0.weight" in container.shapes:
        return Checkpoint(path, container)
    places = [("", "decoder.conv_in.weight"), (VAE, "decoder.conv_in.weight"), *(("", name) for name in TINY)]
    prefix = next((p for p, name in places if p + name in container.shapes), None)
    if prefix is not None:
        return AutoencoderFile(path, container, prefix)
    return _halves(path, container) if {"1.conv.0.weight", "3.conv.0.weight"} & container.shapes.keys() else None


def _halves(path: Path, container: Container) -> Source:
    """TAESD as its author published it, in two files whose names differ in one word."""
    decodes = "1.conv.0.weight" not in container.shapes
    mine, others = _HALVES[decodes], _HALVES[not decodes]
    other = path.with_name(path.name.replace(mine, others))
    if other == path or not other.is_file():
        raise WeightsError(
            f"'{path}' is the {mine} of a tiny autoencoder alone; put its {others} beside it, under the same name with "
            f"'{others}' for '{mine}'",
            code="model-part-missing",
        )
    both = {mine: container, others: open_container(other)}
    return AutoencoderFile(path, Several(**both), "")
