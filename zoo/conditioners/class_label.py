"""Class labels as a condition: numbers, or names for them (Dhariwal & Nichol 2021, section 3.1).

The network has an embedding a class. One more, numbered after the last class, is the null class where the
weights were trained for classifier-free guidance (Ho & Salimans 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from zoo.conditioners import arguments
from zoo.diffusion.types import Condition
from zoo.schema.errors import UsageError
from zoo.schema.unknown import unknown


class ClassLabel:
    """Labels by number or name -> Condition(label (B,)).

    Args:
        names: the classes' names, in the order of their numbers.
        null_class: whether the network has a row for no class, numbered after the last class.
    """

    papers = ("2105.05233 Diffusion Models Beat GANs on Image Synthesis",)
    fits = "zoo.conditioners.arguments:class_label"
    source = "labels"
    fills: ClassVar[Mapping[str, Sequence[str]]] = {"label": ()}
    weightless = True

    def __init__(self, *, names: Sequence[str], null_class: bool = True) -> None:
        self.names, self.null_class = tuple(names), null_class
        arguments.class_label(names=self.names)

    def number(self, label: int | str | None) -> int:
        """The number of a label; None is the null class. UsageError for an unknown one, with the nearest name."""
        count = len(self.names)
        if label is None:
            if not self.null_class:
                shown = ", ".join(self.names[:20])
                raise UsageError(
                    f"this pipeline draws one class at a time and none was given; give labels: {shown}",
                    code="label-missing",
                )
            return count
        if isinstance(label, str):
            if label in self.names:
                return self.names.index(label)
            if not (label.isascii() and label.isdecimal()):
                raise UsageError(unknown("label", label, self.names), code="label-unknown")
            label = int(label[:18])
        if isinstance(label, bool) or not isinstance(label, int):
            raise UsageError(f"a label is a number or a name, not {label!r}", code="label-invalid")
        if not 0 <= label < count:
            raise UsageError(f"there is no label {label}; give 0 to {count - 1}, or a name", code="label-unknown")
        return label

    def check(self, labels: Sequence[int | str | None]) -> None:
        """Raise UsageError for unknown labels, before anything is computed."""
        for label in labels:
            self.number(label)

    def __call__(self, labels: Sequence[int | str | None]) -> Condition:
        return Condition(label=torch.tensor([self.number(label) for label in labels], dtype=torch.int64))

    def null(self, batch: int) -> Condition:
        """The condition of the null class."""
        return self([None] * batch)
