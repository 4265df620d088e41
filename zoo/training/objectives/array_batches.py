"""The arrays of a batch, and the images that are refused where an objective learns from images alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.arrays import ArrayDataset
from zoo.pipeline.arrays import view
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import CPU, Batch, resident


class Arrays:
    """A dataset's arrays (N, C, *spatial) in [-1, 1], kept as float32; `values` become -1 and 1."""

    pixels_by: str | None = "train on images"

    def __init__(self, train: ArrayDataset, validation: ArrayDataset, *, device: torch.device = CPU) -> None:
        self.kept, self.validation = (resident(torch.from_numpy(d.arrays()), device) for d in (train, validation))
        self.shape, self.values = tuple(self.kept.shape[1:]), train.values

    def __call__(self, batch: Batch) -> Tensor:
        """(B, C, *spatial) on the batch's device."""
        return batch.take(self.kept if batch.training else self.validation)

    def given(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def sheet(self, drawn: Tensor) -> Tensor:
        """Arrays in [-1, 1] as curves or slices."""
        picture = np.array(view(drawn, (-1.0, 1.0)), dtype=np.uint8)
        return torch.from_numpy(picture).permute(2, 0, 1).contiguous()

    def contract(self) -> dict[str, Any]:
        """The lengths of the axes, and the values that -1 and 1 stand for."""
        return {"size": list(self.shape[1:]), "values": list(self.values)}


def refuse_arrays(data: Any) -> None:
    """ConfigError where an objective of images is given arrays."""
    if isinstance(data, ArrayDataset):
        raise ConfigError(
            f"this objective learns from pictures and the data ({type(data).__name__}) is arrays; use objective "
            "denoising, or a dataset of pictures",
            code="array-part-unfit",
        )
