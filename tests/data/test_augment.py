"""Augmentation is addressed, and captions stay true."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.test_image_folder import make, png
from tests.refusals import refused
from zoo.data.augmentation import Augment, centre
from zoo.data.image_folder import ImageFolder
from zoo.diffusion.draws import stream
from zoo.schema.errors import ConfigError

PICTURE = np.arange(3 * 10 * 12, dtype=np.uint8).reshape(3, 10, 12)


def test_the_same_address_gives_the_same_picture_and_others_differ():
    augment = Augment(crop=6, flip=0.5)
    first = [augment(PICTURE, {"text": "x"}, stream(3, "augment", i)) for i in range(40)]
    again = [augment(PICTURE, {"text": "x"}, stream(3, "augment", i)) for i in reversed(range(40))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({a.tobytes() for a in first}) > 20


def test_every_window_is_part_of_the_picture_and_every_place_comes_up():
    windows = {PICTURE[:, y : y + 6, x : x + 6].tobytes() for y in range(5) for x in range(7)}
    seen = {Augment(crop=6)(PICTURE, {}, stream(0, "a", i)).tobytes() for i in range(1500)}
    assert seen == windows


def test_flips_are_as_frequent_as_asked():
    flipped = [
        np.array_equal(Augment(flip=0.3)(PICTURE, {"text": "cat"}, stream(0, "a", i)), PICTURE[:, :, ::-1])
        for i in range(1000)
    ]
    assert 0.26 < np.mean(flipped) < 0.34


@pytest.mark.parametrize(
    "row",
    [
        {"text": "left arrow"},
        {"text": "Right-facing fist, flat style"},
        {"text": "arrows", "keywords": ["clockwise", "reload"]},
        {"text": "arrows", "name": "person facing right"},
    ],
)
def test_a_picture_whose_words_name_a_direction_is_never_mirrored(row):
    augment = Augment(flip=1.0)
    assert not augment.may_flip(row)
    assert np.array_equal(augment(PICTURE, row, stream(0, "a")), PICTURE)


def test_words_and_columns_can_be_excluded_and_only_whole_words_count():
    augment = Augment(flip=1.0, flip_unless=["clock", "subgroup=keycap"])
    assert not augment.may_flip({"text": "alarm clock"})
    assert not augment.may_flip({"text": "seven", "subgroup": "keycap"})
    assert augment.may_flip({"text": "clockmaker", "subgroup": "person"})
    assert augment.may_flip({"text": "bright birthright"})


def test_an_excluded_picture_is_cropped_as_if_it_were_not_excluded():
    draws = [Augment(crop=4, flip=1.0)(PICTURE, {"text": t}, stream(0, "a", 7)) for t in ("left", "cat")]
    assert np.array_equal(draws[0], draws[1][:, :, ::-1])


def test_crops_larger_than_the_picture_and_wrong_settings_are_refused():
    with refused("image-too-small"):
        Augment(crop=11)(PICTURE, {}, stream(0, "a"))
    with refused("image-too-small"):
        centre(PICTURE, 11)
    for wrong in ({"flip": 1.5}, {"crop": 0}, {"flip_unless": "left"}, {"flip_unless": [""]}):
        with pytest.raises(ConfigError):
            Augment(**wrong)


def test_a_dataset_crops_at_random_only_where_it_is_asked_to(tmp_path):
    pixels = {"a.png": png((9, 8, 7), (40, 20))}
    path = make(tmp_path / "d", pixels, [{"file_name": "a.png", "text": "x"}], zipped=False)
    plain = ImageFolder(path=path, size=8)
    assert not plain.augments
    assert np.array_equal(plain.augmented(0, stream(0, "a")), plain.image(0))
    random = ImageFolder(path=path, size=8, resize=10, crop="random", flip=0.5)
    assert random.augments
    assert random.augmented(0, stream(0, "a")).shape == random.image(0).shape == (3, 8, 8)
    with refused("number-out-of-range", ConfigError, naming="resize"):
        ImageFolder(path=path, size=8, resize=4)
    with refused("choice-unknown", ConfigError, naming="'corner'"):
        ImageFolder(path=path, size=8, crop="corner")  # type: ignore[arg-type]
