"""Weight files as their header shows them: names and shapes first, a tensor when it is wanted.

safetensors are listed without torch. A pickle (`.ckpt`, `.pt`, `.bin`) is read by torch as tensors alone: nothing in it
is executed. Lightning's checkpoints name the classes of their callbacks, which are no tensors; those of its package
become empty classes of the same name, and any other name in a pickle refuses the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo.checkpoints.folders import read_index
from zoo.checkpoints.headers import merged, read_safetensors
from zoo.schema.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
_INERT = re.compile(r"(pytorch_lightning|lightning)(\.\w+)+")  # whose classes a checkpoint may name and nobody needs


class Container(Protocol):
    """Tensors by name; `shapes` is known from the start."""

    files: tuple[Path, ...]
    shapes: Mapping[str, Shape]
    metadata: Mapping[str, str]

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Some of its tensors, mapped from the file where that can be."""
        ...


class Safetensors:
    """One safetensors file, or several that are shards of one."""

    def __init__(self, *files: Path) -> None:
        self.files = files
        headers = [read_safetensors(file) for file in files]
        header = headers[0] if len(headers) == 1 else merged(files[0].parent, headers)
        self.shapes: Mapping[str, Shape] = {name: entry.shape for name, entry in header.tensors.items()}
        self.metadata: Mapping[str, str] = header.metadata
        self._entries = header.tensors

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Mapped from the files."""
        from zoo.checkpoints.files import mapped

        return mapped({name: self._entries[name] for name in names})


class Pickle:
    """A torch file read as tensors alone; a Lightning checkpoint's are in its `state_dict`."""

    def __init__(self, *files: Path) -> None:
        from torch import Tensor

        self.files = files
        self.metadata: Mapping[str, str] = {}  # it has none
        self._held: dict[str, Tensor] = {}
        for file in files:
            read = _unpickled(file)
            state = read.get("state_dict", read) if isinstance(read, dict) else {}
            self._held |= {n: t for n, t in state.items() if isinstance(n, str) and isinstance(t, Tensor)}
        if not self._held:
            raise WeightsError(
                f"the weight file '{files[0]}' holds no tensors by name; give a checkpoint",
                code="weights-no-state-dict",
            )
        self.shapes: Mapping[str, Shape] = {name: tuple(tensor.shape) for name, tensor in self._held.items()}

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Mapped from the file."""
        return {name: self._held[name] for name in names}


def open_container(*files: Path) -> Container:
    """A weight file, or the shards of one; WeightsError for those that can't be read."""
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise WeightsError(
            f"the weight file '{missing}' is missing; put it there, or give another path", code="weights-missing"
        )
    return Safetensors(*files) if files[0].suffix == ".safetensors" else Pickle(*files)


def find_weights(folder: Path, stem: str) -> tuple[Path, ...]:
    """The file of a part in a diffusers folder, or its shards: whole before half precision, safetensors before pickles.

    Raises WeightsError where there is none, or where an index names a file outside the folder.
    """
    for variant in ("", ".fp16", ".bf16"):
        for kind in ("safetensors", "bin"):
            name = stem if kind == "safetensors" else stem.replace("model", "pytorch_model", stem == "model")
            whole = folder / f"{name}{variant}.{kind}"
            if whole.is_file():
                return (whole,)
            for index in (f"{name}.{kind}.index{variant}.json", f"{name}{variant}.{kind}.index.json"):
                if (folder / index).is_file():
                    return tuple(sorted({entry.file for entry in read_index(folder / index).tensors.values()}))
    raise WeightsError(
        f"the folder '{folder}' has no '{stem}.safetensors'; put it there, or give another folder",
        code="weights-missing",
    )


def _unpickled(file: Path) -> Any:
    """A torch file's content, tensors and plain values alone."""
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        named = get_unsafe_globals_in_checkpoint(file)
    except Exception:  # an old file that isn't a zip: it is read, or refused, below
        named = []
    inert: Any = [(type(name.rpartition(".")[2], (), {}), name) for name in named if _INERT.fullmatch(name)]
    try:
        with safe_globals(inert):
            try:
                return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # no zip, which can't be mapped
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or truncated file may raise anything
        other = [name for name in named if not _INERT.fullmatch(name)]
        told = f"it asks for {other[0][:80]}" if other else str(error).splitlines()[0][:160]
        raise WeightsError(
            f"the weight file '{file}' isn't tensors alone and nothing of it was run ({told}); get a safetensors file",
            code="weights-not-tensors",
        ) from error
