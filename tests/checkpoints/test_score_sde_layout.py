"""Score SDE's NCSNpp, read into zoo's `song-unet`, gives what it gave.

The config.json of each recording says how it was made.
"""

import gzip
import json
import math

import pytest
import torch
from safetensors.torch import load, load_file

from tests import golden_sets
from tests.networks.random_weights import relative
from tests.refusals import refused
from zoo.checkpoints.files import load_strict
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import Eps
from zoo.diffusion.schedules import VESchedule, VPSDESchedule
from zoo.diffusion.types import Condition, Step, StepTable
from zoo.families.score_sde.layout import averaged_tensors, song_tensors_from_score_sde
from zoo.networks.song_unet import SongUNet
from zoo.schema.errors import WeightsError

SKIP_VE, SKIP_VP = "score_sde/ncsnpp_skip_ve", "score_sde/ncsnpp_skip_vp"
VE, VP = "score_sde/ncsnpp_ve", "score_sde/ddpmpp_vp"  # in files as Song et al. publish them, with averages
ENCODERS = {"none": "standard", "residual": "residual", "input_skip": "skip"}
DECODERS = {"none": "standard", "output_skip": "skip"}


def recorded(name):
    """(the original's config, its weights, inputs and outputs)."""
    folder = golden_sets.folder(name)
    said = json.loads((folder / "config.json").read_text())["constructor"]["config"]
    if (folder / "checkpoint.pth").exists():
        weights = averaged_tensors(torch.load(folder / "checkpoint.pth", weights_only=True))
    else:
        weights = load(gzip.decompress((folder / "weights.safetensors.gz").read_bytes()))
    return said, weights, load_file(folder / "io.safetensors")


def song(name, *, dtype=torch.float64, taps=None, sde=None):
    said, weights, io = recorded(name)
    model, size = said["model"], said["data"]["image_size"]
    taps = taps or ([1, 3, 3, 1] if model["fir"] else [1, 1])
    tensors = song_tensors_from_score_sde(
        weights, resolution=size, resample_filter=taps, sde=sde or said["training"]["sde"].removesuffix("sde")
    )
    with torch.device("meta"):
        network = SongUNet(
            width=model["nf"], mult=model["ch_mult"], blocks=model["num_res_blocks"], resolution=size,
            attention_levels=[i for i in range(len(model["ch_mult"])) if size >> i in model["attn_resolutions"]],
            embedding=model["embedding_type"], noise_mult=2 if model["embedding_type"] == "fourier" else 1,
            encoder=ENCODERS[model["progressive_input"]], decoder=DECODERS[model["progressive"]], resample_filter=taps,
        )  # fmt: skip
    load_strict(network, tensors, what="the recorded weights", dtype=dtype)
    return network.eval().requires_grad_(False), {n: t.to(dtype) for n, t in io.items()}


def apart(name, **changes):
    """How far the network's eps is from the original's, whose score is -eps / sigma."""
    network, io = song(name, **changes)
    x, labels, out = io["x"], io["labels"], io["out"]
    if name.endswith("_vp"):  # divided by sigma outside of the network
        return relative(network(x, labels), out)
    # Data in [0, 1] and noise of sigma are, in [-1, 1], noise of twice that.
    return relative(network(2.0 * x - 1.0, (2.0 * labels).log() / 4.0), -out * labels.view(-1, 1, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_sets.cases(SKIP_VE, SKIP_VP, VE, VP))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_gives_what_song_et_als_code_gave(name, dtype):
    assert apart(name, dtype=dtype) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wrong"),
    golden_sets.cases(
        (SKIP_VE, {"taps": [1, 1]}),
        (SKIP_VE, {"taps": [1, 2, 2, 1]}),
        (SKIP_VE, {"sde": "vp"}),
        (SKIP_VP, {"taps": [1, 3, 3, 1]}),
        (VE, {"taps": [1, 1]}),
        (VE, {"sde": "vp"}),
        (VP, {"taps": [1, 3, 3, 1]}),
    ),
)
def test_what_tensors_dont_show_is_seen_in_the_output(name, wrong):
    assert apart(name, **wrong) > 1e-3


@pytest.mark.parametrize(
    ("name", "schedule", "time_input"),
    golden_sets.cases(
        (SKIP_VE, VESchedule(sigma_min=0.02, sigma_max=100.0), "log-sigma-quarter"),
        (SKIP_VP, VPSDESchedule(), "t999"),
        (VE, VESchedule(sigma_min=0.02, sigma_max=100.0), "log-sigma-quarter"),
        (VP, VPSDESchedule(), "t999"),
    ),
)
def test_a_denoiser_of_it_says_the_originals_score(name, schedule, time_input):
    network, io = song(name)
    denoiser = Denoiser(network=network, schedule=schedule, parameterization=Eps(), time_input=time_input)
    for row, told in enumerate(io["labels"].tolist()):
        ve = name.endswith("_ve")
        t = float(schedule.t_from_log_snr(-2.0 * math.log(2.0 * told))) if ve else told / 999.0
        alpha, sigma = (float(v) for v in schedule(t))
        step = Step(index=0, t=t, alpha=alpha, sigma=sigma, t_next=0.0, alpha_next=1.0, sigma_next=0.0)
        x, out = io["x"][row : row + 1], io["out"][row : row + 1]
        x_t, eps = (2.0 * x - 1.0, -told * out) if ve else (x, out)
        x0 = denoiser.bind(Condition(), StepTable((step,)))(x_t, step).x0
        assert relative(x0, (x_t - sigma * eps) / alpha) < 1e-5


def test_averaged_weights_are_named_as_the_raw_ones():
    weights = recorded(SKIP_VE)[1]
    raw = {f"module.{n}": torch.zeros_like(t) for n, t in weights.items()}
    raw = {"module.sigmas": torch.ones(5), **raw, "module.all_modules.0.W": weights["all_modules.0.W"]}
    averages = [t for n, t in weights.items() if n != "all_modules.0.W"]
    found = averaged_tensors({"model": raw, "ema": {"shadow_params": averages}})
    assert all(torch.equal(found[f"module.{n}"], t) for n, t in weights.items())
    said = {"resolution": 8, "resample_filter": (1, 3, 3, 1), "sde": "ve"}
    plain, wrapped = (song_tensors_from_score_sde(t, **said) for t in (weights, found))
    assert list(plain) == list(wrapped)
    assert all(torch.equal(plain[n], wrapped[n]) for n in plain)
    with refused("average-unfit"):
        averaged_tensors({"model": raw, "ema": {"shadow_params": averages[1:]}})
    for other in ({"model": raw}, {"model": raw, "ema": None}, {"ema": {"shadow_params": averages}}, dict(weights)):
        with refused("average-missing"):
            averaged_tensors(other)


def without(weights, *beginnings):
    return {n: t for n, t in weights.items() if not n.startswith(beginnings)}


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda w: {"enc.8x8_conv.weight": torch.zeros(1)}, "layout-wrong: 'enc.8x8_conv.weight'"),
        (
            lambda w: {**w, "all_modules.99.weight": torch.zeros(1), "all_modules.99.bias": torch.zeros(1)},
            "layout-wrong",
        ),
        (lambda w: {**w, "all_modules.99.other": torch.zeros(1)}, "layout-wrong"),
        (lambda w: without(w, "all_modules.3."), "layout-wrong"),
        (lambda w: without(w, "all_modules.21."), "layout-wrong"),
        (lambda w: {}, "layout-wrong"),
    ],
)
def test_tensors_of_another_layout_are_refused(change, refusal):
    with refused(refusal):
        song_tensors_from_score_sde(change(recorded(SKIP_VE)[1]), resolution=8, resample_filter=(1, 3, 3, 1), sde="ve")


def test_what_cant_be_is_refused():
    vp = recorded(SKIP_VP)[1]
    with refused("layout-wrong"):
        song_tensors_from_score_sde(vp, resolution=8, resample_filter=(1, 1), sde="ve")
    for other in ("vesde", "vpsde", "subvp", "VP", "", None):
        with refused("choice-unknown", WeightsError):
            song_tensors_from_score_sde(vp, resolution=8, resample_filter=(1, 1), sde=other)
    both = [song_tensors_from_score_sde(vp, resolution=8, resample_filter=(1, 1), sde=sde) for sde in ("vp", "sub-vp")]
    assert all(torch.equal(both[0][n], both[1][n]) for n in both[0])
    with refused("layout-wrong", naming="resolution"):
        song_tensors_from_score_sde(vp, resolution=9, resample_filter=(1, 1), sde="vp")
