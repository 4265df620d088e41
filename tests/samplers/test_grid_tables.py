"""Noise levels that are given as data, against those another library ships."""

import pytest
from diffusers.schedulers import AysSchedules

from zoo.samplers.grid_tables import TABLES


@pytest.mark.parametrize(
    ("name", "theirs"), [("ays-sd1", "StableDiffusionSigmas"), ("ays-sdxl", "StableDiffusionXLSigmas")]
)
def test_align_your_steps_has_the_published_levels(name, theirs):
    # diffusers ends at 0 where the table ends at the paper's last level.
    assert list(TABLES[name][:-1]) == AysSchedules[theirs][:-1]
    assert 0.0 < TABLES[name][-1] < TABLES[name][-2]
