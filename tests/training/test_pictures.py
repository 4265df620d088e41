"""Images that are kept and augmented as a batch are those that the dataset makes one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.data.test_image_folder import make
from zoo.data.image_folder import ImageFolder
from zoo.data.pixels import from_uint8
from zoo.training.engine.objective import Batch
from zoo.training.objectives.image_batches import Pictures

TEXTS = ("red apple", "left arrow", "sun", "cat", "a clock", "tree")


def folder(tmp_path, size_of=lambda i: (24, 24)):
    draw, pixels = np.random.default_rng(0), {}
    for i in range(len(TEXTS)):
        from io import BytesIO

        from PIL import Image

        file, (width, height) = BytesIO(), size_of(i)
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
        pixels[f"{i}.png"] = file.getvalue()
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(TEXTS)]
    return make(tmp_path / "d", pixels, rows, zipped=False)


def batch(rows=(0, 1, 2, 3, 4, 5, 1, 0) * 6):
    rows = np.array(rows, dtype=np.int64)
    return Batch(rows=rows, samples=np.arange(70, 70 + len(rows), dtype=np.int64), seed=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "augment",
    [
        {}, {"flip": 0.5}, {"resize": 20, "crop": "random"}, {"resize": 20, "crop": "random", "flip": 0.7},
        {"flip": 0.5, "flip_unless": ["clock"]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("wide", [False, True])
def test_a_batch_is_what_the_dataset_makes_of_each_row(tmp_path, augment, wide):
    path = folder(tmp_path, (lambda i: (30 + i % 2 * 9, 24)) if wide else (lambda i: (24, 24)))
    data = ImageFolder(path=path, size=16, **augment)
    kept = Pictures(data, ImageFolder(path=path, size=16))
    whole = batch()
    one_by_one = [
        data.augmented(int(r), g) if data.augments else data.image(int(r))
        for r, g in zip(whole.rows, whole.draw("augment"), strict=True)
    ]
    assert torch.equal(kept(whole), from_uint8(torch.from_numpy(np.stack(one_by_one))))
    assert (kept.kept is None) == (wide and "crop" in augment)  # images of several sizes can't be stacked


def test_what_does_not_fit_is_decoded_each_time(tmp_path):
    data = ImageFolder(path=folder(tmp_path), size=16, resize=20, crop="random")
    assert data.uncropped(largest=100) is None
    whole = data.uncropped()
    assert whole is not None
    assert whole.shape == (len(TEXTS), 3, 20, 20)


def test_every_image_is_given_without_augmenting(tmp_path):
    path = folder(tmp_path)
    for augment in ({}, {"flip": 0.5}, {"resize": 20, "crop": "random"}):
        data = ImageFolder(path=path, size=16, **augment)
        assert np.array_equal(Pictures(data, data).all().numpy(), data.images())
