"""Pairs that can't work together are refused before any weight is read, by a sentence that names both and the mend."""

import itertools

import pytest

import zoo
from tests.config import toys
from tests.refusals import refused
from zoo.schema.errors import ConfigError, UsageError, ZooError

NET = {"name": "unet", "in_channels": 3, "out_channels": 3, "attention": "plain", "heads": 4, "context_width": None}
LEARNED = {**NET, "out_channels": 6}
ZERO = {"name": "zero-terminal-snr", "schedule": "linear"}
TABLE = {"name": "tabulated", "table": [0.1, 0.2, 0.5, 1.0]}
FREE = {"name": "classifier-free", "scale": 1.0}
AUTO = {"name": "autoguidance", "denoiser": {"weights": "x"}}
TAME = {"name": "rescale", "space": "v"}
HELD = {"name": "posterior", "measurement": "masked"}
LIMITED = {"name": "limited-interval", "low": 0.1}


def pixels(
    schedule="linear", parameterization="v", *, network=NET, sampler="ddim", guidance=(), time=None, variance=None,
    **changes,
):  # fmt: skip
    """A pipeline of one pixel stage without weights."""
    denoiser = {"network": network, "schedule": schedule, "parameterization": parameterization}
    if variance is not None:
        denoiser["variance"] = variance
    if time is not None:
        denoiser["time_input"] = time
    stage = {"name": "base", "size": 64, "denoiser": denoiser, "sampler": sampler, "guidance": list(guidance)}
    return {"schema": "zoo.pipeline/1", "stages": [{**stage, **changes}]}


def ddim(**arguments):
    return {"name": "ddim", **arguments}


def grid(name, **arguments):
    steps = arguments.pop("steps", 10)
    return ddim(steps=steps, grid={"name": name, **arguments})


FLOW = {"schedule": "flow", "time": "t999"}
BAD = {
    "eps at alpha 0": (pixels(ZERO, "eps"), "alpha-zero-undefined: zero-terminal-snr"),
    "score at alpha 0": (pixels(ZERO, "score"), "alpha-zero-undefined"),
    "eps on flow": (pixels(parameterization="eps", **FLOW), "alpha-zero-undefined: flow"),
    "eps on a table's end": (pixels(TABLE, "eps", sampler=ddim(steps=2)), "alpha-zero-undefined: tabulated"),
    "eps by linspace": (pixels(ZERO, "eps", sampler=grid("linspace", steps=2)), "alpha-zero-undefined"),
    "eps by all points": (pixels(ZERO, "eps", sampler=grid("leading", steps=1000)), "alpha-zero-undefined"),
    "eps by sections": (pixels(ZERO, "eps", sampler=grid("sections", sections="5,5")), "alpha-zero-undefined"),
    "eps inside repaint": (pixels(ZERO, "eps", sampler={"name": "repaint", "sampler": "euler"}),
     "alpha-zero-undefined: repaint"),
    "rescaled eps": (
        pixels(ZERO, guidance=[FREE, {**TAME, "space": "eps"}]), "alpha-zero-undefined: rescale"
    ),
    "learned variance set": (
        pixels(network=LEARNED, sampler={"name": "ddpm", "variance": "fixed_large"}, variance="learned"),
        "variance-unfit: ddpm",
    ),
    "learned variance unsaid": (
        pixels(network=LEARNED, sampler="ddpm"), "variance-unstated: learned_range",
    ),
    "no variance, said": (pixels(variance="learned"), "variance-unfit: learned"),
    "counted grid": (pixels(sampler=grid("leading"), **FLOW), "schedule-not-discrete: ddim"),
    "linspace": (pixels("vp-sde", sampler=grid("linspace"), time="t999"), "schedule-not-discrete: linspace"),
    "sections": (pixels("edm", sampler=grid("sections", sections="5,5"), time="sigma"),
     "schedule-not-discrete: sections"),
    "first of none": (pixels(sampler=ddim(final="first"), **FLOW), "schedule-not-discrete: flow"),
    "no lowest noise": (pixels("ve", sampler=grid("karras"), time="sigma"), "sigma-min-missing: karras"),
    "no highest noise": (pixels(ZERO, sampler=grid("log-snr")), "sigma-max-missing: log-snr"),
    "noise above": (
        pixels(sampler=grid("karras", sigma_max=500.0)), "sigmas-invalid: ddim"
    ),
    "noise upside down": (pixels(sampler=grid("karras", sigma_min=5.0, sigma_max=1.0)), "sigmas-invalid: sigma_min"),
    "levels above": (
        pixels("ve", sampler=grid("table", sigmas=[90.0, 70.0, 60.0, 1.0], steps=3), time="sigma"),
         "sigmas-invalid: table"
    ),
    "no points to tell": (pixels("flow"), "time-input-unfit: index"),
    "too many for zero terminal": (
        pixels({"name": "zero-terminal-snr", "schedule": {"name": "linear", "steps": 50}}, sampler=ddim(steps=51)),
        "steps-too-many: ddim",
    ),
    "too many for a table": (pixels(TABLE, sampler=ddim(steps=5)), "steps-too-many: tabulated"),
    "too many with one skipped": (
        pixels({"name": "linear", "steps": 20}, sampler=grid("leading", skip_cleanest=True, steps=20)),
        "steps-too-many: leading",
    ),
    "other steps than sections": (pixels(sampler=grid("sections", sections="10,8,6", steps=20)), "steps-unfit: 24"),
    "too large a section": (pixels(TABLE, sampler=grid("sections", sections="3,1", steps=4)), "sections-unfit"),
    "no stride": (pixels(sampler=grid("sections", sections="ddim999", steps=999)), "sections-unfit: 999"),
    "eta of euler": (pixels(sampler={"name": "euler", "eta": 0.5}), "plan-without-noise: euler"),
    "churn of 2m": (pixels(sampler={"name": "dpmpp-2m", "s_churn": 40.0}), "plan-without-noise: dpmpp-2m"),
    "eta within": (
        pixels(sampler={"name": "repaint", "sampler": {"name": "euler", "eta": 1.0}}), "plan-without-noise: euler"
    ),
    "steps within": (
        pixels(sampler={"name": "repaint", "sampler": {"name": "ddim", "steps": 9}}), "inner-steps-given: repaint"
    ),
    "twice classifier-free": (pixels(guidance=[FREE, {**LIMITED, "guidance": FREE}]), "guidance-repeated"),
    "twice rescaled": (pixels(guidance=[FREE, TAME, TAME]), "guidance-repeated: rescale"),
    "classifier-free later": (
        pixels(guidance=["static-threshold", {**LIMITED, "guidance": FREE}]),
        "guidance-order-wrong: classifier-free",
    ),
    "nothing to rescale": (pixels(guidance=["static-threshold", TAME]), "guidance-order-wrong: rescale"),
    "rescaled before": (pixels(guidance=[TAME, AUTO]), "guidance-order-wrong: rescale"),
    "two thresholds": (
        pixels(guidance=["static-threshold", "dynamic-threshold"]), "guidance-repeated: static-threshold"
    ),
    "two pictures": (pixels(guidance=[HELD, HELD]), "guidance-repeated: posterior"),
    "blur without noise": (pixels(guidance=[{**HELD, "measurement": "blurred"}]),
     "measurement-noise-missing: posterior"),
    "a factor of another size": (
        pixels(guidance=[{**HELD, "measurement": {"name": "downsampled", "factor": 7}}]), "size-indivisible: posterior"
    ),
    "weaker without weights": (pixels(guidance=[{**AUTO, "denoiser": "unet"}]), "guide-missing"),
    "weaker unknown": (pixels(guidance=[{**AUTO, "denoiser": {"weights": "emoji-latnet-64"}}]), "weights-unknown"),
    "weaker denoises nothing": (pixels(guidance=[{**AUTO, "denoiser": {"weights": "emoji-base-32-text"}}]),
     "weights-kind-wrong"),
    "weaker of latents": (
        pixels(guidance=[{**AUTO, "denoiser": {"weights": "emoji-latent-64"}}]),
        "guide-unfit: emoji-latent-64",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("config", "said"), BAD.values(), ids=BAD.keys())
def test_a_pair_that_cannot_work_is_refused_by_name(config, said):
    with refused(said, ConfigError) as error:
        zoo.check(config)
    assert "\n" not in str(error.value)


GOOD = {
    "v at alpha 0": pixels(ZERO),
    "eps below alpha 0": pixels(ZERO, "eps", sampler=grid("leading")),
    "eps on an interval below": pixels(ZERO, "eps", interval=[0.5, 0.0]),
    "a table's points": pixels(TABLE, sampler=ddim(steps=4)),
    "flow": pixels(parameterization="flow", sampler="euler", **FLOW),
    "Karras on VE": pixels("ve", "x0", sampler=grid("karras", sigma_min=0.02, sigma_max=40.0), time="sigma"),
    "Karras below pure noise": pixels(ZERO, sampler=grid("karras", sigma_max=80.0)),
    "sections": pixels(sampler=grid("sections", sections="10,8,6", steps=24)),
    "noise where there is a place": pixels(sampler={"name": "euler-ancestral", "eta": 0.5}),
    "learned range": pixels(network=LEARNED, sampler="ddpm", variance="learned_range"),
    "learned variance": pixels(network=LEARNED, sampler="ddpm", variance="learned"),
    "RePaint": pixels(sampler={"name": "repaint", "steps": 50, "sampler": ddim(eta=1.0), "jump": 5}),
    "limited, rescaled, thresholded": pixels(
        guidance=[{**LIMITED, "guidance": FREE}, {**TAME, "strength": 0.5}, "dynamic-threshold"]
    ),
    "held": pixels(guidance=["static-threshold", {**LIMITED, "guidance": HELD}]),
}


@pytest.mark.parametrize("config", GOOD.values(), ids=GOOD.keys())
def test_pairs_that_work_pass(config):
    zoo.check(config)


def test_posterior_guidance_measures_pixels_of_the_first_stage():
    with refused("latents-unfit", naming="'emoji-kl-f4'"):
        zoo.check("latent-text2img", {"stages.0.guidance": [HELD]})
    below = {**pixels(feeds="low_res")["stages"][0], "name": "below", "size": 32}
    low_res = {"network": {**NET, "in_channels": 6}, "schedule": "linear", "parameterization": "v", "low_res": "plain"}
    above = pixels(denoiser=low_res, guidance=[HELD])["stages"]
    with refused("guidance-stage-wrong"):
        zoo.check({"schema": "zoo.pipeline/1", "stages": [below, *above]})
    with refused("image-used-twice", ConfigError, naming="'posterior'"):
        zoo.check({"schema": "zoo.pipeline/1", "stages": above})


def card(folder, name, out_channels, schedule="linear", **contract):
    config = {k: v for k, v in {**NET, "out_channels": out_channels}.items() if k != "name"}
    denoiser = {"schedule": schedule, "parameterization": "v"}
    if out_channels == 6:
        denoiser["variance"] = "learned_range"
    return {"weights": toys.write_card(
        folder, name, "network", "unet", config=config, denoiser=denoiser, contract=contract
    )}  # fmt: skip


def test_what_a_card_says_of_its_variance_is_held_against_its_channels(tmp_path):
    for out, variance, refusal in (
        (6, "fixed", "variance-unfit: 'mine'"),
        (3, "learned", "variance-unfit: 'mine'"),
    ):
        block = card(tmp_path, "mine", out, variance=variance)
        (tmp_path / "mine.safetensors").unlink()  # and it isn't missed: no weight has been looked for
        with refused(refusal):
            zoo.check(pixels(denoiser=block))
    zoo.check(pixels(denoiser=card(tmp_path, "mine", 6, variance="learned")))


def test_autoguidance_takes_a_weaker_network_of_the_same_schedule(tmp_path):
    strong, weak = card(tmp_path, "strong", 3), card(tmp_path, "weak", 3)
    zoo.check(pixels(denoiser=strong, guidance=[{"name": "autoguidance", "denoiser": weak}, TAME]))
    other = card(tmp_path, "other", 3, schedule="cosine")
    for block, refusal in (
        (other, "schedule-unfit: 'strong'"),
        (strong, "guide-unfit: 'strong'"),
    ):
        with refused(refusal):
            zoo.check(pixels(denoiser=strong, guidance=[{"name": "autoguidance", "denoiser": block}]))


# The check against what it stands for: plans that are really made.

SCHEDULES = {
    "points": ({"name": "linear", "steps": 12}, "index"),
    "zero": ({"name": "zero-terminal-snr", "schedule": {"name": "cosine", "steps": 12}}, "index"),
    "table": (TABLE, "index"),
    "flow": ({"name": "flow"}, "t999"),
    "ve": ({"name": "ve"}, "sigma"),
    "ve-points": ({"name": "ve", "steps": 12}, "index"),
}
GRIDS = [
    {"name": "trailing"}, {"name": "leading"}, {"name": "leading", "offset": 4}, {"name": "linspace"},
    {"name": "linspace", "skip_cleanest": True}, {"name": "karras"}, {"name": "log-snr", "sigma_max": 20.0},
    {"name": "karras", "sigma_min": 0.05, "sigma_max": 3.0}, {"name": "karras", "sigma_max": 60.0},
    {"name": "sections", "sections": "3,2"}, {"name": "sections", "sections": "ddim6"},
    {"name": "table", "sigmas": [80.0, 4.0, 1.0, 0.1]}, {"name": "table", "sigmas": [80.0, 60.0, 1.0, 0.1]},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_refused_is_what_no_plan_can_do(schedule):
    from zoo.assemble import component

    written, told = SCHEDULES[schedule]
    seen = set()
    for block, steps, final in itertools.product(GRIDS, (1, 5, 6, 12), ("clean", "first")):
        sampler = ddim(steps=steps, grid=block, final=final)
        try:
            table = component("sampler", sampler).plan(component("schedule", written))
            component("parameterization", "eps")(table.start.alpha, table.start.sigma)
            works = True
        except (ConfigError, UsageError):
            works = False
        try:
            zoo.check(pixels(written, "eps", sampler=sampler, time=told))
            passes = True
        except ZooError:
            passes = False
        assert passes == works, (written, sampler)
        seen.add(works)
    assert seen == {True, False}
