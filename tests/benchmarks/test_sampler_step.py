"""The benchmark of sampler steps knows every registered sampler, and runs."""

import pytest
import torch

from benchmarks import sampler_step


def test_every_registered_sampler_is_measured():
    assert sampler_step.samplers().keys() == sampler_step.COUNTERPARTS.keys()


@pytest.mark.slow
@torch.inference_mode()
def test_a_run_gives_a_row_for_every_sampler_and_shape(monkeypatch):
    monkeypatch.setattr(sampler_step, "SHAPES", ((1, 1, 2, 2),))
    rows = sampler_step.measure(4, 1, warm=0)
    assert [row["sampler"] for row in rows] == list(sampler_step.samplers())
    for row in rows:
        assert row["zoo_us"] > 0.0
        assert (row["diffusers_us"] is None) == (row["counterpart"] is None)
        if row["diffusers_us"] is not None:
            assert row["times_faster"] == pytest.approx(row["diffusers_us"] / row["zoo_us"], abs=0.06)
