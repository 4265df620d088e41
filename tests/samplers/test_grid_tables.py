"""Noise levels that are given as data, against those another library ships."""

import numpy as np
import pytest

from tests.refusals import refused
from zoo.diffusion.schedules import VESchedule
from zoo.samplers.grid_tables import TABLES, Table
from zoo.schema.errors import UsageError


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "theirs"), [("ays-sd1", "StableDiffusionSigmas"), ("ays-sdxl", "StableDiffusionXLSigmas")]
)
def test_align_your_steps_has_the_published_levels(name, theirs):
    # diffusers ends at 0 where the table ends at the paper's last level.
    from diffusers.schedulers import AysSchedules

    assert list(TABLES[name][:-1]) == AysSchedules[theirs][:-1]
    assert 0.0 < TABLES[name][-1] < TABLES[name][-2]


def test_a_table_has_one_level_more_than_steps_and_isnt_stretched_by_one():
    schedule, sigmas = VESchedule(), [40.0, 8.0, 1.0, 0.2]
    made = schedule(Table(sigmas=sigmas)(schedule, 3))[1]
    np.testing.assert_allclose(made, sigmas[:3])  # the last step leads to the last level, or to a clean end
    with refused("steps-unfit"):
        Table(sigmas=sigmas)(schedule, 4)
    # Twice as fine, say, is asked for on purpose.
    np.testing.assert_allclose(schedule(Table(sigmas=sigmas)(schedule, 6))[1][::2], sigmas[:3])


def test_levels_that_the_schedule_has_not_are_refused():
    with refused("sigmas-invalid", UsageError, naming="50"):
        Table(sigmas=[90.0, 70.0, 1.0])(VESchedule(), 2)
    with refused("sigmas-invalid", UsageError, naming="0.001"):
        Table(sigmas=[40.0, 0.001, 0.0001])(VESchedule(), 2)
