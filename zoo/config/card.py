"""What a weight card says, and where its tensors are if they are a part of a model's own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo.config.published import Published, read_published

if TYPE_CHECKING:
    from torch import Tensor, nn


class Part(Protocol):
    """One component's weights within a source."""

    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """The tensors for a module made of the part's card, by its names, for a strict load."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        ...

    @property
    def sha256(self) -> str:
        """The hash of its files, for the record."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files that hold it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card, checked for its form; `raw` is all of it."""

    name: str
    path: Path
    kind: str
    component: str
    summary: str
    config: Mapping[str, Any]  # arguments of the component
    denoiser: Mapping[str, Any] | None  # schedule, parameterization, time_input, time_rounding, ...
    contract: Mapping[str, Any]
    raw: Mapping[str, Any]
    source: Part | None = None  # where the weights are a part of a model's own file (zoo.config.sources)

    @property
    def block(self) -> dict[str, Any]:
        """The component as a block."""
        return {"name": self.component, **self.config}

    @property
    def file(self) -> Path:
        """The weight file."""
        return self.path.parent / self.raw["file"]["name"]

    @property
    def words(self) -> Path | None:
        """The file of the words that the weights' data used (zoo.conditioners.words), where there is one."""
        return self.path.parent / self.raw["words"] if "words" in self.raw else None

    @property
    def bytes(self) -> int:
        """The size that the weight file must have."""
        return self.raw["file"]["bytes"]

    @property
    def sha256(self) -> str:
        """The hash that the weight file must have; of a model's own file, the one it has."""
        return self.source.sha256 if self.source is not None else self.raw["file"]["sha256"]

    @property
    def published(self) -> tuple[Published, ...]:
        """Values that others reached with these weights."""
        return read_published(self.raw.get("published"), f"card '{self.path}'")

    @property
    def other(self) -> tuple[str, ...]:
        """Prefixes of tensors in the file that belong to other components."""
        return tuple(self.raw["file"].get("other") or ())
