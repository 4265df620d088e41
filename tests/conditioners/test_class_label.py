"""Class labels: numbers and names, the null class, and what is refused."""

import pytest
import torch

from zoo.conditioners.class_label import ClassLabel
from zoo.schema.errors import ConfigError, UsageError

NAMES = ["animals", "food", "flags", "7"]


def test_numbers_names_and_digits_name_the_same_class_and_a_name_comes_first():
    label = ClassLabel(names=NAMES)
    assert label([1, "food", "1", 0, "7"]).label.tolist() == [1, 1, 1, 0, 3]
    assert label([1]).label.dtype == torch.int64


def test_the_null_class_is_numbered_after_the_last():
    label = ClassLabel(names=NAMES)
    assert label.null(2).label.tolist() == [4, 4]
    assert label([None, 2]).label.tolist() == [4, 2]
    with pytest.raises(UsageError, match="none was given; give labels: animals, food"):
        ClassLabel(names=NAMES, null_class=False)([None])


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("fod", "unknown label 'fod', did you mean 'food'"),
        (4, "no label 4; give 0 to 3"),
        (-1, "no label -1"),
        ("12", "no label 12"),
        (True, "not True"),
        (1.0, "not 1.0"),
    ],
)
def test_an_unknown_label_is_told_with_the_nearest(label, said):
    with pytest.raises(UsageError, match=said):
        ClassLabel(names=NAMES).check([0, label])


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_names_are_distinct(names):
    with pytest.raises(ConfigError, match="each once"):
        ClassLabel(names=names)
