"""What an extractor is: images -> features, under a name and the hash of its weights.

Name and hash are in the key of every number made from its features, so they must say all that decides them: other
weights, another resizing or another precision is another extractor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from zoo.schema.errors import UsageError

MAIN = "pool"  # the layer that every extractor has


class Extractor(Protocol):
    """uint8 images (N, 3, H, W) -> features (N, D) float32."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor: ...


class TextTower(Extractor, Protocol):
    """An extractor that sees captions too: captions -> embeddings (N, D) in the same space."""

    def texts(self, captions: Sequence[str], *, batch: int = 512) -> Tensor: ...


@runtime_checkable
class Layered(Protocol):
    """An extractor with more than one layer: uint8 images -> each layer's features (N, D)."""

    def features(self, pictures: Tensor, layers: Collection[str], *, batch: int = 64) -> dict[str, Tensor]: ...


@runtime_checkable
class Comparing(Protocol):
    """An extractor that compares images with their references, and so takes their sample ids."""

    def compare(self, pictures: Sequence[Tensor], ids: Sequence[int], layers: Collection[str]) -> dict[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Named:
    """An extractor without its own name and hash (an evaluator CLIP, whose card has them), with them."""

    extractor: Any
    name: str
    sha256: str

    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        """As the extractor's own."""
        return self.extractor.images(pictures, batch=batch)

    def texts(self, captions: Sequence[str], *, batch: int = 512) -> Tensor:
        """As the extractor's own, where it has a text tower."""
        if not hasattr(self.extractor, "texts"):
            raise UsageError(f"extractor '{self.name}' has no text tower; use a CLIP", code="text-tower-missing")
        return self.extractor.texts(captions, batch=batch)


def look(
    extractor: Extractor, pictures: Tensor, layers: Collection[str] = (MAIN,), *, batch: int = 64
) -> dict[str, Tensor]:
    """The requested layers, each (N, D) float32 on the host."""
    check_pictures(pictures)
    if isinstance(extractor, Layered):
        found = extractor.features(pictures, layers, batch=batch)
    elif set(layers) == {MAIN}:
        found = {MAIN: extractor.images(pictures, batch=batch)}
    else:
        lacking = sorted(set(layers) - {MAIN})[0]
        raise UsageError(
            f"extractor '{extractor.name}' has no layer '{lacking}'; name one that has", code="layer-unknown"
        )
    return {name: value.detach().float().cpu() for name, value in found.items()}


def check_pictures(pictures: Tensor) -> None:
    """Refuse what isn't uint8 (N, 3, H, W): in another range, an extractor would silently see something else."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
        raise UsageError(
            f"an extractor is shown uint8 pictures (N, 3, H, W), not {str(pictures.dtype).replace('torch.', '')} "
            f"{tuple(pictures.shape)}; convert them with zoo.data.pixels.to_uint8",
            code="image-shape-wrong",
        )
