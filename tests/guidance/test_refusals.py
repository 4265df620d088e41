"""What `zoo check` refuses of a list of guidance, forced: it raises, or draws what nobody asked for.

The lists are those of tests/config/test_incompatible.py, built from their blocks as they stand.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import zoo
from tests import refusals
from tests.config import forced
from tests.config.test_incompatible import FREE, HELD, LIMITED, TAME, pixels
from tests.test_check_is_build import TINY
from zoo.config.blocks import make
from zoo.diffusion.types import Prediction, Step
from zoo.schema.errors import ConfigError, ZooError
from zoo.schema.registry import registry

STEP = Step(0, 0.5, 0.8, 0.6, 0.4, 0.9, 0.43)
LOUD = {"name": "classifier-free", "scale": 3.0}


def wrapped(*blocks: dict[str, Any], x0: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
    """x0 as guidance of a network's prediction leaves it."""
    denoise: Any = lambda x, step: Prediction(x0=x0, x0_cond=cond)  # noqa: E731
    for block in blocks:
        table: Any = type("Table", (), {"steps": (STEP,)})
        made = make("guidance", block, registry())
        denoise = made.wrap(denoise, denoiser=None, cond=None, null=None, table=table)
    return denoise(torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)), STEP).x0


def refused(guidance: list[Any]) -> None:
    with pytest.raises(ConfigError):
        zoo.check(pixels(network=TINY, guidance=guidance))


def x0s() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 3.0 * torch.randn(2, 3, 8, 8, generator=generator), torch.randn(2, 3, 8, 8, generator=generator)


@pytest.mark.parametrize("guidance", [
    [LOUD, {**LIMITED, "guidance": LOUD}], ["static-threshold", LOUD], [{"name": "rescale", "space": "eps"}],
    ["static-threshold", {**LIMITED, "guidance": LOUD}],
])  # fmt: skip
def test_what_would_drop_another_raises(guidance):
    config = pixels("flow", network=TINY, time="t999", guidance=guidance, size=8, sampler={"name": "ddim", "steps": 2})
    with pytest.raises(ConfigError):
        zoo.check(config)
    with pytest.raises(ZooError):
        forced.built(config)()


def test_a_comparison_without_a_condition_draws_what_is_drawn_without_it():
    """At twice the work: nobody gives the stage a condition, so both halves of a batch are one."""
    refused([LOUD])
    drawn = []
    for guidance in ([], [LOUD]):
        config = pixels(network=TINY, guidance=guidance, size=8, sampler={"name": "ddim", "steps": 2})
        torch.manual_seed(0)  # of the fresh weights
        drawn.append(forced.built(config)(seed=1).tensor)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-4, atol=1e-4)


def test_a_second_threshold_finds_nothing_to_do():
    refused(["static-threshold", "dynamic-threshold"])
    x0, _ = x0s()
    one = wrapped({"name": "static-threshold"}, x0=x0)
    assert torch.equal(wrapped({"name": "static-threshold"}, {"name": "dynamic-threshold"}, x0=x0), one)
    assert not torch.equal(one, x0)


def test_a_second_rescaling_changes_what_the_first_has_made():
    """Two of half strength are one of three quarters, and two of full strength are one."""
    refused([FREE, TAME, TAME])
    x0, cond = x0s()
    twice = wrapped(*[{**TAME, "strength": 0.5}] * 2, x0=x0, cond=cond)
    assert not torch.allclose(twice, wrapped({**TAME, "strength": 0.5}, x0=x0, cond=cond), atol=1e-3)
    full = {**TAME, "strength": 1.0}
    torch.testing.assert_close(wrapped(full, full, x0=x0, cond=cond), wrapped(full, x0=x0, cond=cond))


def test_rescaling_without_a_comparison_does_nothing():
    refused([TAME])
    x0, _ = x0s()
    assert torch.equal(wrapped({**TAME, "strength": 1.0}, x0=x0), x0)


def test_two_measured_pictures_raise():
    refused([HELD, HELD])
    x0, _ = x0s()
    measured = make("guidance", {"name": "posterior", "measurement": {"name": "downsampled", "factor": 2}}, registry())
    given = measured.given(torch.zeros(2, 3, 4, 4), shape=(3, 8, 8))

    def denoise(x: torch.Tensor, step: Step) -> Prediction:
        return Prediction(x0=0.5 * x)

    both: Any = given.wrap(
        given.wrap(denoise, denoiser=None, cond=None, null=None, table=None),
        denoiser=None, cond=None, null=None, table=None,
    )  # fmt: skip
    with refusals.refused("gradient-missing", ConfigError, naming="hides its gradient"):
        both(x0, STEP)


def test_a_picture_that_is_measured_without_noise_where_the_kernel_takes_all_raises():
    refused([{**HELD, "measurement": "blurred"}])
    with refusals.refused("measurement-noise-missing", ConfigError):
        make("guidance", {**HELD, "measurement": "blurred"}, registry())
