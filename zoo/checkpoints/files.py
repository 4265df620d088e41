"""Weight files: read only what their card describes, and put it in place strictly or not at all.

safetensors holds no code but also no checksum: flipped bits and zeroed pages of its data go unnoticed, and a flipped
header renames tensors. So every file is checked against the size and SHA-256 of its card before it is parsed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
from torch.utils._device import DeviceContext

from zoo.checkpoints.headers import BITS, TensorEntry, read_safetensors
from zoo.checkpoints.torch_files import check_torch
from zoo.schema.errors import WeightsError
from zoo.schema.files import sha256_of
from zoo.schema.names import check_utf8

_INERT = re.compile(r"(pytorch_lightning|lightning)(\.\w+)+")  # whose classes a checkpoint may name and nobody needs
_ASKED = re.compile(r"Unsupported global: GLOBAL (\S+)")  # by a file that isn't a zip
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
_NAMED = 3  # how many tensors a sentence names


_DRAWS = frozenset(value for name, value in vars(nn.init).items() if name.endswith("_") and callable(value))


class Unfilled(DeviceContext):
    """The meta device, on which `torch.nn.init` draws nothing: for a module whose values a file is about to give."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DRAWS:
            return args[0] if args else (kwargs or {})["tensor"]
        return super().__torch_function__(func, types, args, kwargs)


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
            read_safetensors(path)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256.lower():
            raise WeightsError(
                f"the weight file '{path}' is damaged or another one: it isn't the file its card describes "
                f"(SHA-256 {found[:12]}… where {sha256[:12]}… is meant); {mend}",
                code="weights-hash-wrong",
            )
        return _mapped(path)
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


def mapped(entries: Mapping[str, TensorEntry]) -> dict[str, Tensor]:
    """Tensors of safetensors files by their headers' entries, mapped from the files: read when they are used.

    Raises WeightsError for a file that can't be read, or that changed its size since its header was read.
    """
    files: dict[Path, torch.UntypedStorage] = {}
    found: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if entry.file not in files:
            files[entry.file] = _mapped_file(entry.file)
        whole = files[entry.file]
        if entry.end > whole.nbytes():
            raise WeightsError(f"'{entry.file}' became shorter while it was read; try again", code="weights-truncated")
        # A storage of its own: one that all share would be copied and saved whole with any of them.
        made = torch.empty(0, dtype=getattr(torch, _DTYPES[entry.dtype]))
        own = whole[entry.start : entry.end]
        aligned = entry.start % (BITS[entry.dtype] // 8) == 0
        found[name] = made.set_(own if aligned else own.clone()).view(entry.shape)
    return found


def _mapped_file(file: Path) -> torch.UntypedStorage:
    check_utf8(file, "weight file")
    try:
        whole: Any = torch.UntypedStorage.from_file(str(file), False, file.stat().st_size)
        return whole
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the weight file '{file}' can't be read ({error}); get it again", code="weights-unreadable"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that no card describes: safetensors, or torch's own, of which nothing is executed.

    Of a checkpoint they are those of its `state_dict`; plain values beside them are left out. WeightsError for a file
    that is no weights.
    """
    try:
        if path.suffix == ".safetensors":
            read_safetensors(path)  # refused by its header: parsing would allocate
            return _mapped(path)
        check_torch(path)
        read = _unpickled(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"the weight file '{path}' can't be read ({error}); get it again", code="weights-unreadable"
        ) from error
    held = read.get("state_dict", read) if isinstance(read, Mapping) else {}
    found = {n: t for n, t in held.items() if isinstance(n, str) and isinstance(t, Tensor)}
    if not found:
        raise WeightsError(
            f"the weight file '{path}' holds no state dict; give one that maps names to tensors",
            code="weights-no-state-dict",
        )
    return found


def _mapped(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def _unpickled(file: Path) -> Any:
    """A torch file's content, tensors and plain values alone.

    Lightning's checkpoints name the classes of their callbacks, which are no tensors; those become empty classes of the
    same name, and any other name refuses the file.
    """
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
        other = [name for name in named if not _INERT.fullmatch(name)] or _ASKED.findall(str(error))
        told = f"it asks for {other[0][:80]}" if other else str(error).splitlines()[0][:160]
        raise WeightsError(
            f"the weight file '{file}' isn't tensors alone and nothing of it was run ({told}); get a safetensors file",
            code="weights-not-tensors",
        ) from error


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
    places = list(module.named_modules())
    if _loads_plainly(module, places):
        _assign(places, cast)
    else:
        module.load_state_dict(cast, strict=True, assign=True)
    held = [(f"{n}.{leaf}", t) for n, p in places for leaf, t in (*p._parameters.items(), *p._buffers.items())]
    left = [n for n, t in held if t is not None and t.is_meta]
    assert not left, (
        f"a buffer is computed when {type(module).__name__} is built, and was lost on the meta device: {left}"
    )


def _loads_plainly(module: nn.Module, places: Iterable[tuple[str, nn.Module]]) -> bool:
    """Whether nothing in a module has a way of its own to take its tensors."""
    plain = type(module).load_state_dict is nn.Module.load_state_dict
    return plain and not any(
        type(place)._load_from_state_dict is not nn.Module._load_from_state_dict or place._load_state_dict_pre_hooks
        for _, place in places
    )


def _assign(places: Iterable[tuple[str, nn.Module]], tensors: Mapping[str, Tensor]) -> None:
    """What `load_state_dict(tensors, assign=True)` does for tensors that fit, in a third of its time."""
    for name, place in places:
        prefix = f"{name}." if name else ""
        for leaf, own in place._parameters.items():
            if own is not None:
                place._parameters[leaf] = nn.Parameter(tensors[prefix + leaf], requires_grad=own.requires_grad)
        for leaf, held in place._buffers.items():
            if held is not None and leaf not in place._non_persistent_buffers_set:
                place._buffers[leaf] = tensors[prefix + leaf]


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
