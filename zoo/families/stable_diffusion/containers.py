"""Weight files as their header shows them: names and shapes first, a tensor when it is wanted.

safetensors are listed without torch. A pickle (`.ckpt`, `.pt`, `.bin`) is read by torch as tensors alone: nothing in it
is executed (`zoo.checkpoints.files`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from zoo.checkpoints.folders import read_index
from zoo.checkpoints.headers import merged, read_safetensors
from zoo.schema.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLES)


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
        from zoo.checkpoints.files import read_tensors

        self.files = files
        self.metadata: Mapping[str, str] = {}  # it has none
        self._held = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
        self.shapes: Mapping[str, Shape] = {name: tuple(tensor.shape) for name, tensor in self._held.items()}

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Mapped from the file."""
        return {name: self._held[name] for name in names}


class Several:
    """Containers as one: those without a name as they are, a named one's tensors behind its name."""

    def __init__(self, *plain: Container, **named: Container) -> None:
        held = [("", one) for one in plain] + [(f"{name}.", one) for name, one in named.items()]
        self.files = tuple(file for _, one in held for file in one.files)
        self._where = {prefix + name: (one, name) for prefix, one in held for name in one.shapes}
        self.shapes: Mapping[str, Shape] = {name: one.shapes[own] for name, (one, own) in self._where.items()}
        self.metadata: Mapping[str, str] = {}

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Each from the one that has it."""
        found: dict[str, Tensor] = {}
        for one in dict.fromkeys(self._where[name][0] for name in names):
            own = {self._where[name][1]: name for name in names if self._where[name][0] is one}
            found |= {own[name]: tensor for name, tensor in one.tensors(list(own)).items()}
        return found


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
