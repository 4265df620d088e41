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
    "eps at alpha 0": (pixels(ZERO, "eps"), "gives eps.* 'zero-terminal-snr' ends and sampler 'ddim' starts; use"),
    "score at alpha 0": (pixels(ZERO, "score"), "gives score.*alpha = 0"),
    "eps on flow": (pixels(parameterization="eps", **FLOW), "gives eps.*schedule 'flow' ends"),
    "eps on a table's end": (pixels(TABLE, "eps", sampler=ddim(steps=2)), "gives eps.*'tabulated' ends"),
    "eps by linspace": (pixels(ZERO, "eps", sampler=grid("linspace", steps=2)), "gives eps"),
    "eps by all points": (pixels(ZERO, "eps", sampler=grid("leading", steps=1000)), "gives eps"),
    "eps by sections": (pixels(ZERO, "eps", sampler=grid("sections", sections="5,5")), "gives eps"),
    "eps inside repaint": (pixels(ZERO, "eps", sampler={"name": "repaint", "sampler": "euler"}), "'repaint' starts"),
    "rescaled eps": (
        pixels(ZERO, guidance=[FREE, {**TAME, "space": "eps"}]), "'rescale' in the space eps.*'zero-terminal-snr'"
    ),
    "learned variance set": (
        pixels(network=LEARNED, sampler={"name": "ddpm", "variance": "fixed_large"}, variance="learned"),
        "'ddpm' is set to variance 'fixed_large' and network 'unet'.* gives 6 channels for samples of 3.*take variance",
    ),
    "learned variance unsaid": (
        pixels(network=LEARNED, sampler="ddpm"), "half of them a learned variance, .* say variance: learned_range",
    ),
    "no variance, said": (pixels(variance="learned"), "so no variance, and its denoiser block says .* 'learned'; take"),
    "counted grid": (pixels(sampler=grid("leading"), **FLOW), "'ddim' with grid 'leading' on .*'flow'.* counts.*; use"),
    "linspace": (pixels("vp-sde", sampler=grid("linspace"), time="t999"), "'linspace' .*'vp-sde'"),
    "sections": (pixels("edm", sampler=grid("sections", sections="5,5"), time="sigma"), "'sections' .*'edm'"),
    "first of none": (pixels(sampler=ddim(final="first"), **FLOW), "'flow'.*final 'first'.*; use final 'clean'"),
    "no lowest noise": (pixels("ve", sampler=grid("karras"), time="sigma"), "'karras'.*'ve'.*give .* sigma_min"),
    "no highest noise": (pixels(ZERO, sampler=grid("log-snr")), "'log-snr'.*infinite.*give the grid a sigma_max"),
    "noise above": (
        pixels(sampler=grid("karras", sigma_max=500.0)), r"'ddim' with grid 'karras' on .*'linear'.* not 500; leave"
    ),
    "noise upside down": (pixels(sampler=grid("karras", sigma_min=5.0, sigma_max=1.0)), "0 < sigma_min < sigma_max"),
    "levels above": (
        pixels("ve", sampler=grid("table", sigmas=[90.0, 70.0, 60.0, 1.0], steps=3), time="sigma"), "'table'.*'ve'"
    ),
    "no points to tell": (pixels("flow"), "told t as 'index' and the schedule 'flow' is continuous.*set time_input"),
    "too many for zero terminal": (
        pixels({"name": "zero-terminal-snr", "schedule": {"name": "linear", "steps": 50}}, sampler=ddim(steps=51)),
        "'ddim' on the schedule 'zero-terminal-snr' of network 'unet'.* 51 nodes .* the 50 points .*; use at most 50",
    ),
    "too many for a table": (pixels(TABLE, sampler=ddim(steps=5)), "'tabulated'.* 5 nodes .* the 4 points"),
    "too many with one skipped": (
        pixels({"name": "linear", "steps": 20}, sampler=grid("leading", skip_cleanest=True, steps=20)),
        "'leading' on .* 20 points .*; use at most 19 steps",
    ),
    "other steps than sections": (pixels(sampler=grid("sections", sections="10,8,6", steps=20)), "are 24 steps"),
    "too large a section": (pixels(TABLE, sampler=grid("sections", sections="3,1", steps=4)), "can't give 3 steps"),
    "no stride": (pixels(sampler=grid("sections", sections="ddim999", steps=999)), "no whole stride gives 999"),
    "eta of euler": (pixels(sampler={"name": "euler", "eta": 0.5}), r"'euler' has no .* eta 0\.5; .*euler-ancestral"),
    "churn of 2m": (pixels(sampler={"name": "dpmpp-2m", "s_churn": 40.0}), r"'dpmpp-2m' .*s_churn 40\.0; .*\(edm\)"),
    "eta within": (
        pixels(sampler={"name": "repaint", "sampler": {"name": "euler", "eta": 1.0}}), r"'euler' .*eta 1\.0"
    ),
    "steps within": (
        pixels(sampler={"name": "repaint", "sampler": {"name": "ddim", "steps": 9}}), "'repaint' has steps .*'ddim'.* 9"
    ),
    "twice classifier-free": (pixels(guidance=[FREE, {**LIMITED, "guidance": FREE}]), "twice .entries 0 and 1.*take"),
    "twice rescaled": (pixels(guidance=[FREE, TAME, TAME]), "'rescale' twice"),
    "classifier-free later": (
        pixels(guidance=["static-threshold", {**LIMITED, "guidance": FREE}]),
        "'classifier-free' stands after guidance 'static-threshold', which it would drop.*; put it first",
    ),
    "nothing to rescale": (pixels(guidance=["static-threshold", TAME]), "'rescale' has nothing to rescale"),
    "rescaled before": (pixels(guidance=[TAME, AUTO]), "'rescale' has nothing to rescale.*put it after"),
    "two thresholds": (
        pixels(guidance=["static-threshold", "dynamic-threshold"]), "'static-threshold' and .*'dynamic-threshold'"
    ),
    "two pictures": (pixels(guidance=[HELD, HELD]), "'posterior' twice .*one measured picture"),
    "blur without noise": (pixels(guidance=[{**HELD, "measurement": "blurred"}]), "'posterior' .*'blurred'.*say the"),
    "a factor of another size": (
        pixels(guidance=[{**HELD, "measurement": {"name": "downsampled", "factor": 7}}]), "'posterior' .*7 times .*64"
    ),
    "weaker without weights": (pixels(guidance=[{**AUTO, "denoiser": "unet"}]), r"write denoiser: \{weights: NAME\}"),
    "weaker unknown": (pixels(guidance=[{**AUTO, "denoiser": {"weights": "emoji-latnet-64"}}]), "did you mean"),
    "weaker denoises nothing": (pixels(guidance=[{**AUTO, "denoiser": {"weights": "emoji-base-32-text"}}]), "denoises nothing"),
    "weaker of latents": (
        pixels(guidance=[{**AUTO, "denoiser": {"weights": "emoji-latent-64"}}]),
        "'emoji-latent-64' of guidance 'autoguidance' takes 4 channels and network 'unet'.* 3; take",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("config", "said"), BAD.values(), ids=BAD.keys())
def test_a_pair_that_cannot_work_is_refused_by_name(config, said):
    with pytest.raises(ConfigError, match=said) as error:
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
