"""A sample space: what a stage's decoded samples are, as one object.

A stage has one. It says how long a sample's axes are and in which units its values are, how samples are viewed,
written and read back, and what they exclude. `Images` are images, `Arrays` signals, fields and volumes; another kind of
sample is another class with what these two have in common.
The loop over stages, the request, `Generation` and `zoo replay` call the space, whichever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from zoo.images.space import Images
from zoo.pipeline.arrays import Arrays

SampleSpace: TypeAlias = Images | Arrays
SPACES = (Images, Arrays)


def space_of(stage: Mapping[str, Any]) -> SampleSpace:
    """The space of a stage's block, as `zoo.check` writes it out or as a record states it.

    Raises UsageError where a record's block has another form.
    """
    kind = next((space for space in SPACES if space.feeds == stage.get("feeds")), Images)
    return kind.of_block(stage)
