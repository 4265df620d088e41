"""A request's numbers against diffusers' embedding of SDXL's added time_ids."""

import pytest
import torch

from tests.refusals import refused
from zoo.conditioners.numbers import Numbers
from zoo.schema.errors import ConfigError

SIZES = {
    "original_height": 1024.0, "original_width": 768.0, "crop_top": 3.0, "crop_left": 0.0, "target_height": 512.0,
    "target_width": 640.0,
}  # fmt: skip


@pytest.mark.peer
@pytest.mark.parametrize("width", [256, 32])
def test_sizes_and_crops_are_embedded_as_sdxls_time_ids(width):
    from diffusers.models.embeddings import Timesteps

    time_ids = torch.tensor([list(SIZES.values()), [v + 7.0 for v in SIZES.values()]])
    theirs = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)(time_ids.flatten()).reshape(2, -1)
    ours = Numbers(width=width)([SIZES, {name: v + 7.0 for name, v in SIZES.items()}])
    torch.testing.assert_close(ours.vector, theirs, rtol=0, atol=1e-6)
    assert ours.scalars["crop_top"].tolist() == [3.0, 10.0]


def test_what_is_fixed_goes_before_what_is_requested():
    made = Numbers(names=["height", "aesthetic_score"], width=None, fixed={"aesthetic_score": 6.0, "height": 8.0})
    found = made([{"height": 64.0}, {"height": 32.0}])
    assert found.vector is None
    assert found.scalars["height"].tolist() == [8.0] * 2
    assert found.scalars["aesthetic_score"].tolist() == [6.0] * 2


def test_a_number_that_nobody_says_is_named():
    with refused("condition-missing", naming="'frames'"):
        Numbers(names=["frames"])([{"height": 1.0, "width": 2.0}])


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [({"width": 7}, "width-indivisible"), ({"names": []}, "entries-repeated"),
     ({"names": ["a", "a"]}, "entries-repeated"),
     ({"fixed": {"a": 1.0}}, "arguments-conflict: 'a'")],
)  # fmt: skip
def test_arguments_are_refused(arguments, refusal):
    with refused(refusal, ConfigError):
        Numbers(**arguments)
