"""Blur, shrinking and labels."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from tests.refusals import refused
from tests.training.toy import Pictures, batch
from zoo.conditioners.class_label import ClassLabel
from zoo.diffusion.low_res import Plain
from zoo.schema.errors import ConfigError
from zoo.training.objectives.conditions import Labels, SmallPictures, blur, class_names, label_numbers, shrink


def pictures(count=3, size=24):
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, 3, size, size))).float()


def test_blur_is_scipys_with_a_deviation_of_its_own_for_each_picture():
    x, sigmas = pictures(), torch.tensor([0.6, 0.0, 1.5])
    found = blur(x, sigmas)
    for i, sigma in enumerate(sigmas.tolist()):
        # mode `mirror` is torch's `reflect`.
        theirs = (
            gaussian_filter(x[i].numpy(), (0, sigma, sigma), mode="mirror", truncate=6.0) if sigma else x[i].numpy()
        )
        assert np.allclose(found[i].numpy(), theirs, atol=5e-3)
    assert torch.equal(found[1], x[1])
    assert not torch.allclose(found[0], x[0], atol=0.05)


def test_blur_keeps_what_is_even_and_fits_small_pictures():
    assert torch.allclose(blur(torch.full((1, 3, 4, 4), 0.3), torch.tensor([2.0])), torch.tensor(0.3))


def test_shrinking_is_an_area_average():
    x = pictures()
    assert torch.allclose(shrink(x, 8), x.view(3, 3, 8, 3, 8, 3).mean(dim=(3, 5)), atol=1e-6)


def test_the_share_of_blurred_pictures_is_as_asked_and_validation_has_none():
    made = SmallPictures(Plain(), size=12, max_level=1.0, blur_probability=0.5, blur_sigma=(0.4, 0.6))
    bare = SmallPictures(Plain(), size=12, max_level=1.0, blur_probability=0.0, blur_sigma=(0.4, 0.6))
    x = pictures(60)
    changed = (made(batch(60), x).concat != bare(batch(60), x).concat).flatten(1).any(dim=1)
    assert 15 < int(changed.sum()) < 45
    checked = batch(60, training=False)
    assert torch.equal(made(checked, x).concat, bare(checked, x).concat)


def test_labels_of_other_data_keep_the_training_classes():
    train, other = Pictures(), Pictures(count=2)
    names = class_names(train.rows, "group")
    assert names == ["animal", "food", "sun"]
    assert label_numbers(other.rows, "group", ClassLabel(names=names)).tolist() == [1, 0]
    other.rows[0]["group"] = "planet"
    with refused("label-unknown", ConfigError, naming="'planet'"):
        label_numbers(other.rows, "group", ClassLabel(names=names))
    other.rows[0]["group"] = None
    with refused("metadata-key-missing", ConfigError, naming="'0.png'"):
        class_names(other.rows, "group")


def test_dropping_labels_needs_a_null_class():
    rows = Pictures().rows
    bare = ClassLabel(names=["animal", "food", "sun"], null_class=False)
    with refused("null-class-unfit"):
        Labels("group", rows, rows, dropout=0.1, conditioner=bare)
    assert Labels("group", rows, rows, dropout=0.0).null(2) is None
