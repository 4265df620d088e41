"""Rounds are interleaved, numbers are what they are called, and memory that runs out halves the batch."""

from __future__ import annotations

import mmap
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.peers.agreement import agreement, pair
from zoo.acceleration.device import out_of_memory
from zoo.bench import machine, measure
from zoo.bench.measure import Operations, Power, Timed
from zoo.schema.errors import UsageError


def test_rows_take_turns_and_the_first_runs_once_more_a_round():
    order = []
    group = [Timed(id=n, call=lambda i, n=n: order.append((n, i)), device="cpu", batch=1) for n in "abc"]
    baseline = measure.rounds(group, 2)
    assert order == [(n, i) for i in range(2) for n in "aabc"]
    assert len(baseline) == 2
    assert [len(t.seconds) for t in group] == [2, 2, 2]


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 1.0])
def test_quantiles_are_numpys(q):
    runs = [0.5, 0.1, 0.9, 0.3, 0.35]
    assert measure.quantile(runs, q) == pytest.approx(np.quantile(runs, q))
    assert measure.quantile([2.0], q) == 2.0


def test_noise_is_half_the_quartiles_distance_over_the_median():
    runs = [1.0, 1.1, 1.2, 1.3, 9.0]
    found = measure.noise("row", runs)
    low, middle, high = np.quantile(runs, [0.25, 0.5, 0.75])
    assert found["relative_spread"] == pytest.approx((high - low) / 2 / middle, abs=1e-4)
    assert measure.noise("row", [1.0])["relative_spread"] is None


def test_rates_are_of_the_median_call():
    timed = Timed(id="a", call=lambda _: None, device="cpu", batch=4, warm_up=[3.0], seconds=[0.5, 2.0, 0.4])
    found = measure.speed(timed, 20)
    assert found["images_per_second"] == 8.0
    assert found["evaluations_per_second"] == 40.0
    assert found["latency_seconds"]["runs"] == [0.5, 2.0, 0.4]


def test_the_peak_of_a_call_is_seen_and_forgotten():
    def large(_):
        with mmap.mmap(-1, 100_000_000) as fresh:  # an allocator may have 100 MB from other tests
            for page in range(0, len(fresh), mmap.PAGESIZE):
                fresh[page] = 1

    timed = Timed(id="a", call=large, device="cpu", batch=1)
    measure.warm_up(timed, 1)
    if timed.memory["reason"] is None:
        assert timed.memory["host_peak_bytes"] - timed.memory["host_before_bytes"] > 80e6
        timed.call = lambda _: None
        measure.warm_up(timed, 1)
        assert timed.memory["host_peak_bytes"] - timed.memory["host_before_bytes"] < 80e6
    assert timed.memory["device_peak_bytes"] is None


def test_energy_is_power_times_seconds_of_an_image(monkeypatch):
    monkeypatch.setattr(measure, "watts", lambda _: 200.0)
    with Power("cuda", pause=0.0) as power:
        while not power.drawn:
            pass
    assert set(power.drawn) == {200.0}
    timed = Timed(id="a", call=lambda _: None, device="cuda", batch=4, joules=[100.0, 80.0, 90.0], watts=[200.0] * 3)
    assert measure.energy(timed) == {"joules_per_image": 22.5, "watts": 200.0, "reason": None}
    assert "no power of cpu" in measure.energy(Timed(id="a", call=len, device="cpu", batch=1))["reason"]


def test_operations_are_two_a_multiply_add_and_attention_counts():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    linear, attention = nn.Linear(8, 16), Attention()
    with torch.inference_mode(), Operations([linear, attention]) as counted:
        for _ in range(2):
            linear(torch.ones(3, 8))
        attention(torch.ones(1, 2, 5, 4))
        nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3), padding=1)
    assert counted.calls == {0: [2 * 3 * 8 * 16] * 2, 1: [2 * 2 * (2 * 5 * 5 * 4)]}
    assert counted.total == 2 * (2 * 3 * 8 * 16) + 800 + 2 * 64 * 4 * 27


def test_what_says_that_memory_ran_out_is_told_from_what_does_not():
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert not out_of_memory(UsageError("no room", code="memory-exceeded"))


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    found = pair("x", "a", "b", "peer 1", [1.0, 2.0, 1.0], [2.0, 2.0, 5.0], {})
    assert found["ratios"] == [2.0, 1.0, 5.0]
    assert found["ratio"] == statistics.median(found["ratios"])


def test_agreement_is_judged_in_float32_alone():
    ours, theirs = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5])
    assert agreement(ours, theirs, "output", 0.4) | {"of": ""} == {
        "largest_difference": 0.5, "of": "", "tolerance": 0.4, "agrees": False,
    }  # fmt: skip
    assert agreement(ours, theirs, "output", None)["agrees"] is None


def test_the_machines_peak_is_a_positive_rate():
    found = machine.peak("cpu", "float32", seconds=0.01)
    assert found["tflops"] == max(found["matmul_tflops"], found["convolution_tflops"]) > 0
    assert found["copy_gigabytes_per_second"] > 0
