"""Differences in sampling terms: said right, in order, and for everything that can differ."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from tests.refusals import refused
from zoo.config.check import resolve
from zoo.diffusion.schedules import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, ScaledLinearSchedule
from zoo.inspection import compare
from zoo.inspection.cost import cost_of
from zoo.inspection.facts import schedule_facts, show
from zoo.schema.registry import Entry, Registry, read_registry_file, registry, registry_file

NETWORK = {
    "name": "unet", "in_channels": 3, "out_channels": 3, "width": 32, "mult": [1, 2], "blocks": 1,
    "attention": "plain", "heads": 4, "attention_levels": [], "context_width": None, "groups": 8,
}  # fmt: skip


def pixels(**stage: Any) -> dict[str, Any]:
    """A pixel pipeline without weights."""
    denoiser = {"network": NETWORK, "schedule": "scaled-linear", "parameterization": "eps"}
    first = {"name": "base", "size": 32, "denoiser": denoiser, "sampler": {"name": "ddim", "steps": 50}}
    return {"schema": "zoo.pipeline/1", "stages": [{**first, **stage}]}


def denoiser(**facts: Any) -> dict[str, Any]:
    return {**pixels()["stages"][0]["denoiser"], **facts}


def said(a: Any, b: Any, **options: Any) -> list[str]:
    return [d.text for d in compare(a, b, **options).differences]


def test_the_same_differs_in_nothing_however_it_is_written():
    named = {"name": "ddim", "steps": 50, "eta": 0.0, "grid": {"name": "trailing"}, "final": "clean"}
    found = compare(pixels(), pixels(sampler=named))
    assert not found
    assert str(found) == "no difference in what is sampled"
    assert not compare("latent-text2img", resolve("latent-text2img").config)


def test_a_run_with_fewer_steps_says_its_evaluations():
    found = compare(pixels(), pixels(), steps=20)
    assert [d.text for d in found.differences] == ["50 -> 20 steps", "network evaluations 50 -> 20"]
    assert found.lines()[0] == "same network"
    assert (found.differences[0].a, found.differences[0].b) == (50, 20)


def test_a_schedule_is_told_by_its_arguments_and_ends():
    told = said(pixels(), pixels(denoiser=denoiser(schedule={"name": "scaled-linear", "beta_end": 0.02})))
    betas = [np.linspace(0.00085**0.5, end**0.5, 1000) ** 2 for end in (0.012, 0.02)]
    left = [float(np.prod(1.0 - b)) for b in betas]  # alpha_bar
    first, last = np.log(1 / 0.00085 - 1), [np.log(a / (1 - a)) for a in left]
    assert told == [
        "schedule scaled-linear: beta_end 0.012 -> 0.02",
        f"alpha at t = 1 {left[0] ** 0.5:.5g} -> {left[1] ** 0.5:.5g}",
        f"log-SNR from t = 0.001 to 1: {first:.3g} to {last[0]:.3g} -> {first:.3g} to {last[1]:.3g}",
    ]
    told = said(pixels(), pixels(denoiser=denoiser(schedule="edm", parameterization="edm", time_input="sigma")))
    assert told[0] == "schedule scaled-linear -> edm"
    assert "parameterization eps -> edm (sigma_data 0.5)" in told
    assert "time input index -> sigma" in told


def test_what_a_schedule_ends_at_is_what_the_schedule_says():
    for name, made in {"linear": LinearSchedule(), "cosine": CosineSchedule(), "flow": FlowSchedule()}.items():
        found = schedule_facts(name, registry())
        assert found is not None
        assert found.final_alpha == float(made(1.0)[0])
    with_zero = {"name": "zero-terminal-snr", "schedule": "linear"}
    told = said(pixels(denoiser=denoiser(parameterization="v")), pixels(
        denoiser=denoiser(parameterization="v", schedule=with_zero)
    ))  # fmt: skip
    assert "alpha at t = 1 0.068265 -> 0" in told
    assert told[-1].endswith("9.21 to no signal")


def test_the_final_alpha_is_that_of_the_first_point():
    told = said(pixels(), pixels(sampler={"name": "ddim", "steps": 50, "final": "first"}))
    assert told == ["final alpha 1 -> 0.99957"]  # sqrt(1 - 0.00085), Stable Diffusion's


def test_samplers_are_told_with_what_has_no_meaning_in_the_other():
    told = said(pixels(sampler={"name": "ddim", "eta": 0.5}), pixels(sampler={"name": "dpmpp-2m", "steps": 30}))
    assert told == ["sampler ddim -> dpmpp-2m", "eta 0.5 of ddim has no meaning in dpmpp-2m"]
    told = said(pixels(), pixels(sampler={"name": "ddim", "steps": 50, "grid": {"name": "karras", "rho": 5.0}}))
    assert told == ["grid trailing -> karras (rho 5)"]
    karras = [pixels(sampler={"name": "ddim", "grid": {"name": "karras", "rho": r}}) for r in (7.0, 5.0)]
    assert said(*karras) == ["grid karras (rho 7) -> karras (rho 5)"]


def test_guidance_is_a_list_whose_members_come_go_change_and_move():
    static, dynamic = {"name": "static-threshold"}, {"name": "dynamic-threshold"}
    assert said(pixels(guidance=[static]), pixels(guidance=[])) == [
        "guidance static-threshold (low -1, high 1) removed"
    ]
    assert said(pixels(), pixels(guidance=[dynamic])) == ["guidance dynamic-threshold (percentile 0.995) added"]
    changed = {**static, "high": 2.0}
    assert said(pixels(guidance=[static]), pixels(guidance=[changed])) == ["guidance static-threshold: high 1 -> 2"]
    measured = {"name": "posterior", "measurement": {"name": "downsampled", "factor": 2}}
    told = said(pixels(guidance=[static, measured]), pixels(guidance=[measured, static]))
    assert told == ["guidance in the order [static-threshold, posterior] -> [posterior, static-threshold]"]
    assert said("latent-text2img", "latent-text2img", guidance=4.0) == ["guidance classifier-free: scale 2.5 -> 4"]


def test_stages_are_found_by_name_and_added_and_removed_ones_named():
    two = pixels(interval=[1.0, 0.3], feeds="latent")
    second = {**pixels()["stages"][0], "name": "refiner", "takes": "latent", "interval": [0.3, 0.0]}
    two["stages"].append(second)
    found = compare(pixels(), two)
    assert "refiner: stage refiner added (32 pixels, ddim, 50 steps)" in str(found).splitlines()
    assert "base: interval [1, 0] -> [1, 0.3]" in str(found).splitlines()
    back = compare(two, pixels())
    assert "stage refiner removed (32 pixels, ddim, 50 steps)" in [d.text for d in back.differences]
    assert said(pixels(), pixels(name="other")) == ["stage base is called other"]


def test_networks_are_the_same_by_the_hash_of_their_weights():
    found = compare("latent-text2img", "latent-text2img", steps=20)
    assert found.lines()[0] == "same network (emoji-latent-64); same autoencoder (emoji-kl-f4)"
    other = pixels(denoiser=denoiser(network={**NETWORK, "width": 64}))
    assert said(pixels(), other)[0].startswith("network unet (")


def record(**changes: Any) -> dict[str, Any]:
    """A record of the shipped pipeline, as `Pipeline` writes it."""
    config = resolve("latent-text2img").config
    hashes = {d["weights"]: "0" * 64 for d in (config["stages"][0]["denoiser"], config["stages"][0]["autoencoder"])}
    return {
        "schema": "zoo.generation/1", "config": config, "weights": hashes, "seed": 0, "noise": "AddressedNoise",
        "asked": {"size": None, "steps": None, "guidance": None, "strength": None, "batch_size": 1}, "inputs": {},
        "stages": [{"name": "base", "evaluations": 30}], "device": "cpu", "dtype": "float32",
        "versions": {"zoo": "0.1.0", "torch": "2.15.0", "python": "3.11.7"}, "seconds": 1.0,
        "images": [{"prompt": "sun", "negative": "", "sample": 0}], **changes,
    }  # fmt: skip


def test_two_records_say_what_their_runs_had_else():
    images = [{"prompt": "moon", "negative": "", "sample": 3}]
    asked = {**record()["asked"], "steps": 8, "guidance": 4.0, "size": [64, 96]}
    b = record(seed=5, images=images, asked=asked, stages=[{"name": "base", "evaluations": 8}], device="cuda:0")
    told = said(record(), b)
    assert told == [
        "guidance classifier-free: scale 2.5 -> 4", "30 -> 8 steps", "network evaluations 30 -> 8", "size 64 -> 64x96",
        "seed 0 -> 5", "device cpu -> cuda:0", "prompt 'sun' -> 'moon'", "sample 0 -> 3",
    ]  # fmt: skip
    assert not compare(record(), record(seconds=9.0))


def test_one_noise_is_one_however_a_record_writes_its_address():
    each = {"seed": None, "noise": "SeededSamples", "images": [{**record()["images"][0], "seed": 0}]}
    assert not compare(record(), record(**each))
    each["images"][0]["seed"] = 5
    assert "noise AddressedNoise -> SeededSamples" in said(record(), record(**each))


def test_weights_of_another_hash_are_other_weights():
    found = compare(record(), "latent-text2img")
    network = next(d for d in found.differences if d.what == "network")
    assert network.text.startswith("other weights in network emoji-latent-64: 00000000 -> ")
    # What the card here says needn't be true of the file that was used.
    assert any("unknown" in words for _, words in found.same)


def test_a_changed_record_is_refused_by_name(tmp_path):
    path = tmp_path / "odd.json"
    for change in ({"guidance": [5]}, {"sampler": 5}, {"name": None}, {"denoiser": "x"}):
        odd = copy.deepcopy(record())
        odd["config"]["stages"][0].update(change)
        path.write_text(json.dumps({"files": [], "record": odd}))
        with refused("record-changed", naming="odd.json"):
            compare(path, "latent-text2img")


def test_a_comparison_is_plain_data():
    found = compare(record(), "latent-text2img", steps=4).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["schema"] == "zoo.diff/1"
    assert {"stage", "what", "a", "b", "text"} == set(found["differences"][0])


SAMPLERS = {e.name: e for e in read_registry_file(registry_file()) if e.kind == "sampler"}
SCHEDULES = {
    "linear": LinearSchedule(), "scaled-linear": ScaledLinearSchedule(), "cosine": CosineSchedule(),
    "flow": FlowSchedule(), "edm": EDMSchedule(),
}  # fmt: skip


def counted(sampler: dict[str, Any], schedule: str = "scaled-linear", **stage: Any) -> tuple[int | None, bool]:
    """What a pipeline with this sampler is said to take."""
    of = denoiser(schedule=schedule, parameterization="v", time_input="t999")
    if stage.get("interval", (1.0, 0.0))[1] > 0.0:
        stage["feeds"] = "latent"  # an image is drawn to its end
    (cost,) = cost_of(resolve(pixels(denoiser=of, sampler=sampler, **stage)), registry()).stages
    return cost.evaluations, cost.exact


@pytest.mark.slow
@pytest.mark.parametrize("interval", [(1.0, 0.0), (1.0, 0.4), (0.6, 0.0)])
@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations_are_those_of_the_plan(name, interval):
    """Of every sampler that is registered, on any schedule and interval."""
    options = {"repeats": 3} if name == "annealed-langevin" else {}
    sampler = SAMPLERS[name].load()(**options)
    for key, schedule in SCHEDULES.items():
        for steps in (3, 7):
            planned = sampler.plan(schedule, steps, interval=interval).evaluations
            said = counted({"name": name, **options, "steps": steps}, key, interval=list(interval))
            assert said == (planned, True), (key, steps)


def test_a_solver_within_a_sampler_counts():
    """`edm` by Euler's method asks once a step."""
    assert counted({"name": "edm", "steps": 18, "solver": "euler"}) == (18, True)
    assert counted({"name": "edm", "steps": 18}) == (35, True)
    assert counted({"name": "dpmpp-2s", "steps": 12}) == (23, True)
    assert said(pixels(sampler={"name": "dpmpp-2s"}), pixels(sampler={"name": "dpmpp-2s", "steps": 6})) == [
        "12 -> 6 steps", "network evaluations 23 -> 11",
    ]  # fmt: skip


@pytest.mark.parametrize("inner", ["ddpm", "ddim", "heun", "dpm-solver", "predictor-corrector", "dpmpp-sde", "plms"])
@pytest.mark.parametrize(("steps", "jump", "resamples"), [(9, 2, 3), (4, 3, 2), (3, 5, 4), (1, 1, 2)])
def test_the_jumps_of_repaint_are_counted(inner, steps, jump, resamples):
    block = {"name": "repaint", "steps": steps, "sampler": inner, "jump": jump, "resamples": resamples}
    sampler = SAMPLERS["repaint"].load()(sampler=SAMPLERS[inner].load()(), jump=jump, resamples=resamples)
    assert counted(block) == (sampler.plan(ScaledLinearSchedule(), steps).evaluations, True)


def test_a_step_cache_differs_by_the_evaluations_of_the_whole_network():
    cached = pixels(step_cache={"name": "deep-features", "every": 3})
    assert said(pixels(), cached) == [
        "of the whole network 50 -> 17", "step cache none -> deep-features (every 3, blocks 2)",
    ]  # fmt: skip
    assert said(cached, cached, steps=20) == [
        "50 -> 20 steps", "network evaluations 50 -> 20", "of the whole network 17 -> 7",
    ]  # fmt: skip


def test_how_large_a_run_starts_is_told():
    told = said(pixels(), pixels(denoiser=denoiser(initial_scale="unit")))
    assert told == ["initial scale sigma_T -> unit"]


def test_a_plan_may_say_that_it_is_a_bound_and_what_has_no_plan_is_not_counted():
    class Adaptive:
        """Chooses its steps on the way."""

        def __init__(self, *, steps: int = 9):
            self.steps = steps

        def plan(self, schedule, steps=None, *, interval=(1.0, 0.0)):
            return dataclasses.replace(SAMPLERS["ddim"].load()().plan(schedule, self.steps), at_most=True)

    class Broken(Adaptive):
        def plan(self, schedule, steps=None, *, interval=(1.0, 0.0)):
            raise OSError("no table")

    known = Registry(
        [*registry(), Entry("sampler", "adaptive", Adaptive, "test"), Entry("sampler", "b", Broken, "test")]
    )
    found = compare(pixels(sampler="euler"), pixels(sampler="adaptive"), components=known)
    assert "network evaluations 50 -> up to 9" in [d.text for d in found.differences]
    with refused("component-not-made", naming="'scaled-linear'"):
        resolve(pixels(sampler="b"), components=known)


def test_long_lists_are_told_by_their_beginning():
    assert show(list(range(30))) == "[0, 1, 2, 3, 4, 5, 6, 7, and 22 more]"
