"""What an objective's batches are of: pixels, latents or arrays, by one set of words.

Each gives a batch's x0 and says what else differs between them, so that no objective asks which of them it has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.autoencoders.identity import Identity
from zoo.data.arrays import ArrayDataset
from zoo.data.dataset import Dataset
from zoo.data.latents import encode_all
from zoo.data.pixels import grid, to_uint8
from zoo.diffusion.types import Autoencoder
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import CPU, Batch, resident
from zoo.training.objectives.array_batches import Arrays
from zoo.training.objectives.image_batches import Pictures, check_size


class Samples(Protocol):
    """The samples of two splits, (C, *spatial) each.

    kept: those of the training split where all are held as one tensor. pixels_by: how the recipe comes to train on
    8-bit images; None where it does.
    """

    shape: tuple[int, ...]
    pixels_by: str | None

    @property
    def kept(self) -> Tensor | None: ...

    def __call__(self, batch: Batch) -> Tensor:
        """(B, C, *spatial) in [-1, 1], or latents, on the batch's device."""
        ...

    def given(self, batch: Batch) -> dict[str, Tensor]:
        """What the host decides about a batch."""
        ...

    def sheet(self, drawn: Tensor) -> Tensor:
        """An image, uint8 (3, H, W), of samples as the autoencoder gives them."""
        ...

    def contract(self) -> dict[str, Any]:
        """What the card of weights that were trained on them says further."""
        ...


class Latents:
    """The latents of a dataset's images, encoded once."""

    pixels_by: str | None = "leave the autoencoder out"

    def __init__(
        self, train: Dataset, validation: Dataset, autoencoder: Autoencoder, *, cache: Path, device: torch.device = CPU
    ) -> None:
        if train.augments:
            raise ConfigError(
                "latents are encoded once, and the data is to be cropped or mirrored at random; take crop and flip out "
                "of the block data, or train on pixels",
                code="crops-at-random",
            )
        check_size(train.size, autoencoder)
        self.kept = resident(encode_all(autoencoder, train, cache=cache), device)
        self.validation = resident(encode_all(autoencoder, validation, cache=cache), device)
        self.shape = tuple(self.kept.shape[1:])

    def __call__(self, batch: Batch) -> Tensor:
        """(B, C, h, w) on the batch's device."""
        return batch.take(self.kept if batch.training else self.validation)

    def given(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def sheet(self, drawn: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1], eight a row."""
        return grid(to_uint8(drawn), columns=8)

    def contract(self) -> dict[str, Any]:
        """Nothing."""
        return {}


def open_samples(
    train: Dataset | ArrayDataset, validation: Dataset | ArrayDataset, autoencoder: Autoencoder, *, cache: Path,
    device: torch.device,
) -> Samples:  # fmt: skip
    """What the data and the autoencoder make of each other; ConfigError for arrays with an autoencoder."""
    pixels = isinstance(autoencoder, Identity)
    if isinstance(train, ArrayDataset):
        assert isinstance(validation, ArrayDataset)
        if not pixels:
            raise ConfigError(
                "the data is arrays and the autoencoder one of pictures; leave the autoencoder out",
                code="array-part-unfit",
            )
        return Arrays(train, validation, device=device)
    assert not isinstance(validation, ArrayDataset)
    if pixels:
        return Pictures(train, validation, device=device)
    return Latents(train, validation, autoencoder, cache=cache, device=device)
