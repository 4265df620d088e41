"""Weight files as their header shows them: names and shapes first, a tensor when it is wanted.

safetensors are listed without torch. A pickle (`.ckpt`, `.pt`, `.bin`) is read by torch as tensors alone: nothing in it
is executed. Lightning's checkpoints name the classes of their callbacks, which are no tensors; those of its package
become empty classes of the same name, and any other name in a pickle refuses the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo.schema.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
HEADER_LIMIT = 8 * 2**20
MOST_TENSORS = 65_536
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
_INERT = re.compile(r"(pytorch_lightning|lightning)(\.\w+)+")  # whose classes a checkpoint may name and nobody needs
_BARE = re.compile(r"[^/\\\0]+\.(safetensors|bin)")


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
        shapes: dict[str, Shape] = {}
        metadata: dict[str, str] = {}
        self.shapes: Mapping[str, Shape] = shapes
        self.metadata: Mapping[str, str] = metadata
        self._where: dict[str, Path] = {}
        for file in files:
            for name, about in _header(file).items():
                if name == "__metadata__":
                    metadata |= {str(k): str(v) for k, v in about.items()} if isinstance(about, dict) else {}
                    continue
                if name in self._where:
                    raise WeightsError(
                        f"'{file}' and '{self._where[name]}' both hold '{name[:80]}'; get them again",
                        code="tensors-unfit",
                    )
                shapes[name], self._where[name] = _shape(name, about, file), file

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Mapped from the files."""
        from safetensors import SafetensorError, safe_open

        found: dict[str, Tensor] = {}
        for file in self.files:
            here = [name for name in names if self._where[name] == file]
            try:
                with safe_open(file, framework="pt") as opened:
                    found |= {name: opened.get_tensor(name) for name in here}
            except (OSError, SafetensorError) as error:
                raise WeightsError(
                    f"the weight file '{file}' can't be read ({error}); get it again", code="weights-unreadable"
                ) from error
        return found


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
                    return _shards(folder / index)
    raise WeightsError(
        f"the folder '{folder}' has no '{stem}.safetensors'; put it there, or give another folder",
        code="weights-missing",
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a diffusers folder; WeightsError for anything else."""
    try:
        with path.open("rb") as file:
            text = file.read(HEADER_LIMIT)
        read = json.loads(text)
    except OSError as error:
        raise WeightsError(
            f"'{path}' can't be read ({error.strerror}); a diffusers folder has one", code="model-config-unreadable"
        ) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"'{path}' is damaged ({str(error)[:80]}); get it again", code="model-config-unreadable"
        ) from error
    if not isinstance(read, dict):
        raise WeightsError(f"'{path}' is no configuration; get it again", code="model-config-unreadable")
    return read


def _shards(index: Path) -> tuple[Path, ...]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise WeightsError(f"'{index}' lists no shards; get it again", code="model-config-unreadable")
    distinct = sorted(set(names.values()), key=str)
    wrong = next((name for name in distinct if not (isinstance(name, str) and _BARE.fullmatch(name))), None)
    if wrong is not None:
        raise WeightsError(
            f"'{index}' names the shard {str(wrong)[:80]!r}, no plain file name of its folder; refused",
            code="file-outside-folder",
        )
    return tuple(index.parent / name for name in distinct)


def _header(file: Path) -> dict[str, Any]:
    again = "get it from its publisher again"
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            text = opened.read(min(length, HEADER_LIMIT))
            size = opened.seek(0, 2)
    except OSError as error:
        raise WeightsError(
            f"the weight file '{file}' can't be read ({error.strerror}); {again}", code="weights-unreadable"
        ) from error
    if not 2 <= length <= min(HEADER_LIMIT, size - 8):
        raise WeightsError(
            f"'{file}' is no whole safetensors file: its header says {length} bytes; {again}",
            code="weights-header-damaged",
        )
    if text.count(b'"data_offsets"') > MOST_TENSORS:
        raise WeightsError(
            f"'{file}' lists more than the {MOST_TENSORS} tensors that are read; {again}", code="weights-header-damaged"
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"the weight file '{file}' has no readable header; {again}", code="weights-header-damaged"
        ) from error
    if not isinstance(header, dict):
        raise WeightsError(f"the weight file '{file}' has no readable header; {again}", code="weights-header-damaged")
    ends = [about["data_offsets"][1] for _, about in _entries(header, file)]
    if max(ends, default=0) + 8 + length != size:
        raise WeightsError(
            f"the weight file '{file}' is cut off, or longer than its header says; {again}", code="weights-truncated"
        )
    return header


def _entries(header: Mapping[str, Any], file: Path) -> Iterator[tuple[str, Any]]:
    for name, about in header.items():
        if name == "__metadata__":
            continue
        offsets = about.get("data_offsets") if isinstance(about, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(n, int) for n in offsets)):
            raise WeightsError(
                f"'{file}' doesn't say where its tensor '{name[:80]}' is; get it again", code="weights-header-damaged"
            )
        yield name, about


def _shape(name: str, about: Any, file: Path) -> Shape:
    shape = about.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise WeightsError(
            f"'{file}' gives no shape of its tensor '{name[:80]}'; get it again", code="weights-header-damaged"
        )
    return tuple(shape)


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
