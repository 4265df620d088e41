"""A part of a file: what it is made of, and its tensors for the module that is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checkpoints.hashes import known_sha256
from zoo.config.cards import Card
from zoo.families.stable_diffusion.containers import Container
from zoo.families.stable_diffusion.names import Layout, gather, shapes_of

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """A component in a container under a prefix, by the names of a layout."""

    kind: str
    layout: Layout
    container: Container
    prefix: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files that hold it."""
        return self.container.files

    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """By the module's names; what belongs to the part and has no place in the module, by its own."""
        return gather(module, self.kind, self.layout, self.container, self.prefix)

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        shapes = shapes_of(self.container, self.prefix, self.kind, self.layout)
        return sum(prod(shape) for shape in shapes.values())

    @property
    def sha256(self) -> str:
        """Of the file, or of its shards' hashes in their order."""
        return hash_of_files(self.files)


_HASHES: dict[tuple[str, int, int, int], str] = {}  # a pipeline takes the hash of its file once for each part


def hash_of_files(files: tuple[Path, ...]) -> str:
    """SHA-256 of a file, or of the hashes of several; kept while size, time and place stay."""
    found = []
    for file in files:
        about = file.stat()
        key = (str(file.absolute()), about.st_size, about.st_mtime_ns, about.st_ino)
        if key not in _HASHES:
            _HASHES[key] = known_sha256(file)
        found.append(_HASHES[key])
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def card_of(
    part: FilePart, *, name: str, component: str, arguments: Mapping[str, Any], summary: str,
    denoiser: Mapping[str, Any] | None = None, kind: str | None = None, small: str | None = None,
) -> Card:  # fmt: skip
    """The card of a part: its component with its arguments, and the facts that a pipeline is checked by.

    kind: of the component, where its tensors are another kind of part. small: pixels a side of the image it enlarges.
    """
    contract: dict[str, Any] = {"low_res": int(small)} if small is not None else {}
    if part.kind in ("network", "autoencoder"):
        deep = 2 ** (len(arguments["mult"]) - 1)
        contract |= {"size_multiple": deep} if part.kind == "network" else {"factor": deep}
    kind = kind or part.kind
    file = part.files[0]
    raw = {
        "kind": kind, "component": component, "summary": summary, "config": dict(arguments),
        "denoiser": denoiser, "file": {"name": file.name, "bytes": file.stat().st_size},
    }  # fmt: skip
    return Card(
        name=name, path=file, kind=kind, component=component, summary=summary, config=dict(arguments),
        denoiser=denoiser, contract=contract, raw=raw, source=part,
    )  # fmt: skip
