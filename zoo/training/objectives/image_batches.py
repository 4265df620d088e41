"""The images of a batch: a training batch's cropped and mirrored as the dataset says, a validation batch's not.

They are decoded once and kept as uint8, on a cuda device where they fit, and cropped and mirrored there: a batch is a
gather. Images that can't be stacked before the crop, being of several sizes, are decoded anew for each batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.dataset import Dataset, PictureDataset
from zoo.data.pixels import from_uint8, grid, to_uint8
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import CPU, Batch, put, resident
from zoo.training.objectives.array_batches import refuse_arrays


def check_size(size: int, autoencoder: Any) -> None:
    """ConfigError for image sizes that aren't multiples of the autoencoder's factor: it would crop the edges."""
    factor = getattr(autoencoder, "factor", 1)
    if size % factor:
        raise ConfigError(
            f"the autoencoder takes sizes that are multiples of {factor} and the data's is {size}; change data.size",
            code="size-indivisible",
        )


class Pictures:
    """A dataset's images, kept as uint8 (N, 3, size, size), or (N, 3, H, W) where a window is cropped at random."""

    pixels_by: str | None = None

    def __init__(self, train: Dataset, validation: Dataset, *, device: torch.device = CPU) -> None:
        refuse_arrays(train)
        self.train = train
        whole = train.images() if not train.augments else _before_augmenting(train)
        self.kept = None if whole is None else resident(torch.from_numpy(whole), device)
        self.mirrors = None
        if self.kept is not None and isinstance(train, PictureDataset) and train.augment.flip > 0.0:
            may = [train.augment.may_flip(row) for row in train.rows]
            self.mirrors = np.array(may)
        self.validation = resident(torch.from_numpy(validation.images()), device)
        self.shape = tuple(self.validation.shape[1:])

    def __call__(self, batch: Batch) -> Tensor:
        """(B, 3, size, size) in [-1, 1] on the batch's device."""
        if not batch.training:
            return from_uint8(batch.take(self.validation))
        if self.kept is not None:
            return from_uint8(self._augmented(batch))
        draws = batch.draw("augment")
        drawn = [self.train.augmented(int(row), g) for row, g in zip(batch.rows, draws, strict=True)]
        return from_uint8(torch.from_numpy(np.stack(drawn)).to(batch.device))

    def _augmented(self, batch: Batch) -> Tensor:
        """What `zoo.data.augmentation.Augment` makes of the batch's images, for all of them at once and on their
        device.
        """
        images = batch.take(self.kept)  # type: ignore[arg-type]
        given = self.given(batch) if batch.given is None else batch.given
        if "window_rows" in given:
            place = torch.arange(len(images), device=images.device)[:, None, None]
            window = given["window_rows"][:, :, None], given["window_columns"][:, None, :]
            images = images.permute(0, 2, 3, 1)[place, *window].permute(0, 3, 1, 2)
        if "mirrored" in given:
            images = torch.where(given["mirrored"][:, None, None, None], images.flip(3), images)
        return images.contiguous()

    def given(self, batch: Batch) -> dict[str, Tensor]:
        """Each image's window and whether it is mirrored, where images are cropped or mirrored at random."""
        if self.kept is None or not isinstance(self.train, PictureDataset) or not self.train.augments:
            return {}
        augment, found = self.train.augment, dict[str, np.ndarray]()
        down, across, mirror = batch.uniforms("augment", 3).T
        if augment.crop is not None:
            side, (height, width) = augment.crop, self.kept.shape[2:]
            window = np.arange(side)
            found["window_rows"] = (down * (height - side + 1)).astype(np.int64)[:, None] + window
            found["window_columns"] = (across * (width - side + 1)).astype(np.int64)[:, None] + window
        if self.mirrors is not None:
            found["mirrored"] = (mirror < augment.flip) & self.mirrors[batch.rows]
        return {name: put(value, self.kept.device) for name, value in found.items()}

    def sheet(self, drawn: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1], eight a row."""
        return grid(to_uint8(drawn), columns=8)

    def contract(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def all(self) -> Tensor:
        """Every training image as it is, uint8."""
        return self.kept if self.kept is not None and not self.train.augments else torch.from_numpy(self.train.images())


def _before_augmenting(train: Dataset) -> np.ndarray | None:
    """(N, 3, H, W) uint8 that windows and mirror images are taken of; None where they aren't of one size."""
    if not isinstance(train, PictureDataset):
        return None
    return train.images() if train.augment.crop is None else train.uncropped()
