"""Class labels: numbers and names, the null class, and what is refused."""

import pytest
import torch

from tests.refusals import refused
from zoo.conditioners.class_label import ClassLabel
from zoo.schema.errors import UsageError

NAMES = ["animals", "food", "flags", "7"]


def test_numbers_names_and_digits_name_the_same_class_and_a_name_comes_first():
    label = ClassLabel(names=NAMES)
    assert label([1, "food", "1", 0, "7"]).label.tolist() == [1, 1, 1, 0, 3]
    assert label([1]).label.dtype == torch.int64


def test_the_null_class_is_numbered_after_the_last():
    label = ClassLabel(names=NAMES)
    assert label.null(2).label.tolist() == [4, 4]
    assert label([None, 2]).label.tolist() == [4, 2]
    with refused("label-missing"):
        ClassLabel(names=NAMES, null_class=False)([None])


@pytest.mark.parametrize(
    ("label", "refusal"),
    [
        ("fod", "label-unknown: 'food'"),
        (4, "label-unknown: no label 4; give 0 to 3"),
        (-1, "label-unknown: -1"),
        ("12", "label-unknown: 12"),
        (True, "label-invalid"),
        (1.0, "label-invalid: 1.0"),
    ],
)
def test_an_unknown_label_is_told_with_the_nearest(label, refusal):
    with refused(refusal, UsageError):
        ClassLabel(names=NAMES).check([0, label])


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_names_are_distinct(names):
    with refused("entries-repeated"):
        ClassLabel(names=names)
