"""The arrays of a batch, and the images that are refused where an objective learns from images alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.data.arrays import ArrayDataset
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import CPU, Batch, resident


class Arrays:
    """A dataset's arrays (N, C, *spatial) in [-1, 1], kept as float32; `values` become -1 and 1."""

    def __init__(self, train: ArrayDataset, validation: ArrayDataset, *, device: torch.device = CPU) -> None:
        self.train, self.validation = (resident(torch.from_numpy(d.arrays()), device) for d in (train, validation))
        self.shape, self.values = tuple(self.train.shape[1:]), train.values

    def __call__(self, batch: Batch) -> Tensor:
        """(B, C, *spatial) on the batch's device."""
        return batch.take(self.train if batch.training else self.validation)


def refuse_arrays(data: Any) -> None:
    """ConfigError where an objective of images is given arrays."""
    if isinstance(data, ArrayDataset):
        raise ConfigError(
            f"this objective learns from pictures and the data ({type(data).__name__}) is arrays; use objective "
            "denoising, or a dataset of pictures",
            code="array-part-unfit",
        )
