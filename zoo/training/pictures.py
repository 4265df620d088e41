"""The pictures of a batch: a training batch's cropped and mirrored as the dataset says, a validation batch's not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.data.dataset import Dataset
from zoo.data.pictures import from_uint8
from zoo.training.arrays import refuse_arrays
from zoo.training.objective import Batch


class Pictures:
    """A dataset's pictures, kept as uint8 (N, 3, size, size) until a batch is taken."""

    def __init__(self, train: Dataset, validation: Dataset) -> None:
        refuse_arrays(train)
        self.train = train
        # Cropped at random, pictures are read anew each time; kept ones would be another crop.
        self.images = None if train.augments else torch.from_numpy(train.images())
        self.validation = torch.from_numpy(validation.images())
        self.shape = tuple(self.validation.shape[1:])

    def __call__(self, batch: Batch) -> Tensor:
        """(B, 3, size, size) in [-1, 1] on the batch's device."""
        if not batch.training:
            return from_uint8(batch.take(self.validation))
        if self.images is not None:
            return from_uint8(batch.take(self.images))
        draws = batch.draw("augment")
        drawn = [self.train.augmented(int(row), g) for row, g in zip(batch.rows, draws, strict=True)]
        return from_uint8(torch.from_numpy(np.stack(drawn)).to(batch.device))

    def all(self) -> Tensor:
        """Every training picture as it is, uint8."""
        return torch.from_numpy(self.train.images()) if self.images is None else self.images
