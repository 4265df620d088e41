"""Weight files: read only what their card describes, and put it in place strictly or not at all.

safetensors holds no code but also no checksum: flipped bits and zeroed pages of its data go unnoticed, and a flipped
header renames tensors. So every file is checked against the size and SHA-256 of its card before it is parsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo.checkpoints.torch_files import check_torch
from zoo.schema.errors import WeightsError
from zoo.schema.files import sha256_of

HEADER_LIMIT = 8 * 2**20
TENSOR_LIMIT = 65_536
# A tensor's entry, `"a":{"dtype":"F16","shape":[1,1,1,1],"data_offsets":[0,2]},`, has 10 quotes and a few commas more
# than axes; a header with much more of either holds something else, and is not worth parsing to find out what.
_STRUCTURE_LIMIT = 16 * TENSOR_LIMIT
_NAMED = 3  # how many tensors a sentence names


@runtime_checkable
class Packed(Protocol):
    """A module whose weight file holds other tensors than it has itself (a compact token table, say)."""

    def unpack(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors -> this module's own; WeightsError where that can't be done. The module isn't changed."""
        ...


@runtime_checkable
class OwnFile(Protocol):
    """A component whose arguments name its weight file: made without reading it, and read when all else is made."""

    def read_weights(self) -> dict[str, str]:
        """Read the file, if one is named, verified; its path and SHA-256, for the record."""
        ...


def read_verified(path: Path, *, bytes: int, sha256: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file that has this size and hash, mapped from the file.

    Raises WeightsError for any other file, naming it and what to do; nothing is allocated for it.
    """
    mend = "restore it beside its card (installing zoo again does that for the weights it ships)"
    if not path.is_file():
        raise WeightsError(f"the weight file '{path}' is missing; {mend}", code="weights-missing")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size != bytes:
                kind = "cut off" if size < bytes else "too long"
                raise WeightsError(
                    f"the weight file '{path}' is {kind}: {size} bytes where its card says {bytes}; {mend}",
                    code="weights-size-wrong",
                )
            check_header(path)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.lower():
            raise WeightsError(
                f"the weight file '{path}' is damaged or another one: it isn't the file its card describes "
                f"(SHA-256 {found[:12]}… where {sha256[:12]}… is meant); {mend}",
                code="weights-hash-wrong",
            )
        with safe_open(path, framework="pt") as tensors:
            names = list(tensors.keys())
            if len(names) > TENSOR_LIMIT:
                raise WeightsError(_too_many(path), code="weights-header-damaged")
            return {name: tensors.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"the weight file '{path}' can't be read ({error}); {mend}", code="weights-unreadable"
        ) from error


def hash_of_file(path: Path, meant: str | None = None) -> str:
    """A weight file's SHA-256; WeightsError where it is another than `meant`, or can't be read."""
    try:
        found = sha256_of(path)
    except OSError as error:
        raise WeightsError(
            f"the weight file '{path}' can't be read: {error.strerror or error}; give the path of one",
            code="weights-unreadable",
        ) from error
    if meant is not None and found != meant.lower():
        raise WeightsError(
            f"the weight file '{path}' is another one (SHA-256 {found[:12]}… where {meant[:12]}… is meant); get the "
            "right one",
            code="weights-hash-wrong",
        )
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors or from a pickle of tensors alone; hash it first where a hash is known.

    Raises WeightsError for a file that holds another thing, would run code, or unfolds into more than its bytes.
    """
    plain = path.suffix == ".safetensors"
    (check_header if plain else check_torch)(path)
    try:
        tensors = load_file(path) if plain else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # whatever a hostile or cut file makes them raise
        raise WeightsError(
            f"the weight file '{path}' can't be read as tensors alone: {error}", code="weights-unreadable"
        ) from error
    if isinstance(tensors, Mapping) and isinstance(tensors.get("state_dict"), Mapping):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, Mapping) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise WeightsError(
            f"the weight file '{path}' holds no state dict; give one that maps names to tensors",
            code="weights-no-state-dict",
        )
    return {str(name): tensor for name, tensor in tensors.items()}


def check_header(path: Path) -> None:
    """Refuse a safetensors file (WeightsError) by its header's length and number of entries: parsing would allocate."""
    with path.open("rb") as file:
        length, header = file.read(8), file.read(HEADER_LIMIT + 1)
        size = file.seek(0, 2)
    if len(length) < 8:
        raise WeightsError(
            f"the weight file '{path}' is no safetensors file: it has no header; restore the right one",
            code="weights-header-damaged",
        )
    told = int.from_bytes(length, "little")
    if told > HEADER_LIMIT:
        raise WeightsError(
            f"the weight file '{path}' has a header of {told} bytes, over the limit of {HEADER_LIMIT}; "
            "it is no weight file, or not a sound one: get it from its publisher again",
            code="weights-header-damaged",
        )
    if told > size - 8:
        raise WeightsError(
            f"the weight file '{path}' ends within its header; get it from its publisher again",
            code="weights-truncated",
        )
    header = header[:told]
    marks = max(header.count(b'"'), header.count(b","))
    if marks > _STRUCTURE_LIMIT or header.count(b'"data_offsets"') > TENSOR_LIMIT:
        raise WeightsError(_too_many(path), code="weights-header-damaged")


def _too_many(path: Path) -> str:
    return (
        f"the weight file '{path}' lists more than the {TENSOR_LIMIT} tensors that are read; "
        "it is no weight file, or not a sound one: get it from its publisher again"
    )


def load_strict(
    module: nn.Module, tensors: Mapping[str, Tensor], *, what: str, other: Sequence[str] = (),
    dtype: torch.dtype | None = torch.float32,
) -> None:  # fmt: skip
    """Put tensors in a module, every one in its place; the module may have been built on the meta device.

    Args:
        tensors: by name; the module takes them over and does not copy those that have the right dtype already.
        what: their name in errors. other: prefixes of tensors that belong to other parts and are left out.
        dtype: of all floating-point tensors; None leaves each as it is.

    Raises WeightsError naming what is missing, left over or of another shape; the module is then unchanged.
    """
    own = module.state_dict()
    packed = {name: t for name, t in tensors.items() if not name.startswith(tuple(other))}
    unpack = module.unpack if isinstance(module, Packed) else dict
    _refuse_differences(unpack(packed), own, what=what)
    device = next((t.device for t in own.values() if not t.is_meta), None)
    cast = {n: t.to(device=device, dtype=dtype if t.is_floating_point() else None) for n, t in packed.items()}
    module.load_state_dict(cast, strict=True, assign=True)
    left = [n for n, t in [*module.named_parameters(), *module.named_buffers()] if t.is_meta]
    assert not left, (
        f"a buffer is computed when {type(module).__name__} is built, and was lost on the meta device: {left}"
    )


def _refuse_differences(given: Mapping[str, Tensor], own: Mapping[str, Tensor], *, what: str) -> None:
    missing = [n for n in own if n not in given]
    unexpected = [n for n in given if n not in own]
    both = [n for n in own if n in given]
    shapes = [
        f"'{n}' is {_shape(given[n])} where {_shape(own[n])} is needed" for n in both if given[n].shape != own[n].shape
    ]
    kinds = [
        f"'{n}' is {given[n].dtype}".replace("torch.", "")
        + f" where {own[n].dtype}".replace("torch.", "")
        + " is needed"
        for n in both
        if given[n].is_floating_point() != own[n].is_floating_point()
    ]
    told = [
        f"{label}{_few(found)}"
        for label, found in (
            ("missing ", [f"'{n}'" for n in missing]),
            ("unexpected ", [f"'{n}'" for n in unexpected]),
            ("", shapes),
            ("", kinds),
        )
        if found
    ]
    if told:
        raise WeightsError(
            f"{what} don't fit the module: {'; '.join(told)}; correct the card's config or the file",
            code="tensors-unfit",
        )


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _few(found: Sequence[str]) -> str:
    more = len(found) - _NAMED
    return ", ".join(found[:_NAMED]) + (f" and {more} more" if more > 0 else "")
