"""DDPM++ and NCSN++ against recorded outputs of EDM's SongUNet; the config.json of each says how.

Each comparison must fail where one switch stands wrong, whether the tensors show it or not.
"""

import gzip
import json
import math

import pytest
import torch
from safetensors.torch import load, load_file
from torch import nn

import zoo
from tests import golden_sets
from tests.networks.random_weights import normal, randomise, relative
from tests.refusals import refused
from zoo.checkpoints.files import load_strict
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import EDM
from zoo.diffusion.schedules import EDMSchedule
from zoo.diffusion.types import Condition, Step, StepTable
from zoo.networks.song_unet import FilteredConv, SongBlock, SongUNet, square
from zoo.schema.errors import ConfigError, UsageError, WeightsError

# Each switch of the original is on in one of them.
NAMES = ("edm/edm_ddpmpp_cond", "edm/skip_ncsnpp", "edm/ve_ncsnpp", "edm/vp_ddpmpp")
SMALL = {"width": 8, "mult": (1, 2), "blocks": 1, "resolution": 8}


def recorded(name):
    """(the original constructor's arguments, its weights, inputs and outputs)."""
    folder = golden_sets.folder(name)
    said = json.loads((folder / "config.json").read_text())
    if (folder / "model.pt").exists():
        tensors = torch.load(folder / "model.pt", weights_only=True)
        tensors = {n.removeprefix("model."): t for n, t in tensors.items()}
    else:
        tensors = load(gzip.decompress((folder / "weights.safetensors.gz").read_bytes()))
    return said["constructor"], tensors, load_file(folder / "io.safetensors")


def arguments(said):
    """The original constructor's arguments under zoo's names."""
    channels, size = said.get("img_channels", said.get("in_channels")), said["img_resolution"]
    return {
        "in_channels": channels, "out_channels": channels, "width": said["model_channels"],
        "mult": said["channel_mult"], "blocks": said["num_blocks"], "resolution": size,
        "attention_levels": [i for i in range(len(said["channel_mult"])) if size >> i in said["attn_resolutions"]],
        "embedding": said["embedding_type"], "noise_mult": said["channel_mult_noise"],
        "emb_mult": said["channel_mult_emb"], "encoder": said["encoder_type"], "decoder": said["decoder_type"],
        "resample_filter": said["resample_filter"], "classes": said.get("label_dim") or None,
        "augment_width": said.get("augment_dim") or None, "dropout": said["dropout"],
    }  # fmt: skip


def song(name, *, dtype=torch.float64, **changes):
    said, tensors, io = recorded(name)
    with torch.device("meta"):
        model = SongUNet(**{**arguments(said), **changes})
    load_strict(model, tensors, what="the recorded weights", dtype=dtype)
    return model.eval().requires_grad_(False), {n: t.to(dtype) for n, t in io.items()}


def apart(model, io):
    label = {"label": io["class_labels"].argmax(dim=1)} if "class_labels" in io else {}
    return relative(model(io["net_in"], io["c_noise"], **label), io["F_x"])


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_sets.cases(*NAMES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_gives_what_edms_code_gave(name, dtype):
    assert apart(*song(name, dtype=dtype)) < 1e-5


# Switches that the tensors don't show.


def embedding(model):
    model.map_noise = None


def cosines_first(model):
    model.map_layer0.weight.copy_(model.map_layer0.weight.roll(model.noise_channels // 2, dims=1))


def encoder(model):
    model.encoder = "standard"


def decoder(model):
    model.decoder = "standard"


def resample_filter(model):
    for module in model.modules():
        if hasattr(module, "resample_filter"):
            module.resample_filter = square([1, 1] if module.resample_filter.shape[-1] == 4 else [1, 3, 3, 1]).double()
        if isinstance(module, FilteredConv) and module.first:
            module.padding = (1, 1)


def convolution_last(model):
    for module in model.modules():
        if isinstance(module, FilteredConv) and module.first:
            module.first, module.padding = False, (1, 1)


def skip_scale(model):
    for block in model.modules():
        if isinstance(block, SongBlock):
            block.scale = 1.0


def norm_eps(model):
    for norm in model.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.eps = 1e-5


def groups(model):
    for norm in model.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.num_groups = 1 if norm.num_groups > 1 else norm.num_channels


def heads(model):
    for block in model.modules():
        if isinstance(block, SongBlock) and block.heads:
            block.heads = 2


def rows(model):
    for block in model.modules():
        if isinstance(block, SongBlock) and block.heads:
            for tensor in (block.qkv.weight, block.qkv.bias):
                tensor.copy_(tensor.unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1))


def unscaled_class(model):
    model.map_label.weight.mul_(model.classes**-0.5)


def another_class(model):
    model.map_label.weight.copy_(model.map_label.weight.roll(1, dims=1))


EVERYWHERE = (cosines_first, resample_filter, skip_scale, norm_eps, groups, heads, rows)
ALSO = {
    "edm/edm_ddpmpp_cond": (unscaled_class, another_class),
    "edm/ve_ncsnpp": (embedding, encoder, convolution_last),
    "edm/skip_ncsnpp": (embedding, encoder, decoder),
    "edm/vp_ddpmpp": (),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flip"), golden_sets.cases(*((n, f) for n in NAMES for f in (*EVERYWHERE, *ALSO[n]))))
def test_recorded_outputs_tell_another_switch(name, flip):
    model, io = song(name)
    flip(model)
    assert apart(model, io) > 1e-5


@pytest.mark.parametrize("wrong", [{"skip_scale": 1.0}, {"norm_eps": 1e-5}, {"heads": 2}])
def test_arguments_that_no_tensor_shows_are_heard(wrong):
    assert apart(*song("edm/edm_ddpmpp_cond", **wrong)) > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    golden_sets.cases(
        ("edm/edm_ddpmpp_cond", {"embedding": "fourier"}, "missing 'map_noise.freqs'"),
        ("edm/edm_ddpmpp_cond", {"resample_filter": (1, 3, 3, 1)}, "resample_filter"),
        ("edm/edm_ddpmpp_cond", {"encoder": "residual"}, "missing 'enc.8x8_aux_residual.weight'"),
        ("edm/edm_ddpmpp_cond", {"decoder": "skip"}, "missing 'dec.8x8_aux_norm.weight'"),
        ("edm/edm_ddpmpp_cond", {"classes": None}, "unexpected 'map_label.weight'"),
        ("edm/edm_ddpmpp_cond", {"augment_width": None}, "unexpected 'map_augment.weight'"),
        ("edm/edm_ddpmpp_cond", {"attention_levels": (0,)}, "missing 'enc.16x16_block0.norm2"),
        ("edm/edm_ddpmpp_cond", {"resolution": 32}, "missing 'enc.32x32_conv"),
        ("edm/ve_ncsnpp", {"embedding": "positional"}, "unexpected 'map_noise.freqs'"),
        ("edm/ve_ncsnpp", {"noise_mult": 1}, "map_layer0"),
        ("edm/ve_ncsnpp", {"encoder": "standard"}, "unexpected 'enc.8x8_aux_residual.weight'"),
        ("edm/ve_ncsnpp", {"encoder": "skip"}, "aux_skip"),
        ("edm/skip_ncsnpp", {"decoder": "standard"}, "unexpected"),
    ),
)
def test_switches_that_tensors_show_are_refused_by_name(name, wrong, said):
    with refused("tensors-unfit", WeightsError, naming=said):
        song(name, **wrong)


def denoiser(network):
    return Denoiser(
        network=network, schedule=EDMSchedule(), parameterization=EDM(sigma_data=0.5), time_input="log-sigma-quarter"
    )


@pytest.mark.parametrize(("output", "null"), [("D_x", False), ("D_x_nolabel", True)])
def test_a_denoiser_of_it_is_edms_preconditioned_network(output, null):
    """Input, time, class (or none: the number after the last) and output, from x and sigma alone."""
    network, io = song("edm/edm_ddpmpp_cond", null_class=null)
    whole = denoiser(network)
    label = torch.tensor([10, 10]) if null else io["class_labels"].argmax(dim=1)
    for row, sigma in enumerate(io["sigma"].tolist()):
        t = float(whole.schedule.t_from_log_snr(-2.0 * math.log(sigma)))
        assert whole.time_input(t) == pytest.approx(float(io["c_noise"][row]), abs=1e-6)
        step = Step(index=0, t=t, alpha=1.0, sigma=sigma, t_next=0.0, alpha_next=1.0, sigma_next=0.0)
        bound = whole.bind(Condition(label=label[row : row + 1]), StepTable((step,)))
        assert relative(bound(io["x"][row : row + 1], step).x0, io[output][row : row + 1]) < 1e-5


@pytest.mark.parametrize("guided", [False, True])
def test_a_pipeline_of_it_draws_classes(guided):
    network = {
        "name": "song-unet", **SMALL, "mult": [1, 2], "attention_levels": [1], "classes": 3, "null_class": guided,
        "embedding": "fourier", "noise_mult": 2, "encoder": "residual", "resample_filter": [1, 3, 3, 1],
    }  # fmt: skip
    pipe = zoo.build({
        "schema": "zoo.pipeline/1", "summary": "Tiny.",
        "conditioners": {"label": {"name": "class-label", "names": ["cat", "dog", "cow"], "null_class": guided}},
        "stages": [{
            "name": "base", "size": 8, "listens": ["label"], "autoencoder": "identity",
            "denoiser": {
                "network": network, "schedule": "edm", "parameterization": "edm", "time_input": "log-sigma-quarter",
            },
            "sampler": {"name": "edm", "steps": 3},
            "guidance": [{"name": "classifier-free", "scale": 2.0}] if guided else [],
        }],
    })  # fmt: skip
    randomise(pipe.stages[0].denoiser.network).float()
    drawn = pipe(labels=["cat", 2], seed=1)
    assert drawn.tensor.shape == (2, 3, 8, 8)
    other = pipe(labels=["dog", 2], seed=1).samples
    assert relative(other[0], drawn.samples[0]) > 1e-3
    assert relative(other[1], drawn.samples[1]) < 1e-4


def test_other_sizes_than_that_of_training_are_taken():
    model = randomise(SongUNet(**SMALL))
    assert model(normal(2, 3, 12, 6), torch.tensor([0.1, 0.2])).shape == (2, 3, 12, 6)


def test_recomputed_activations_give_the_same_gradients():
    model = randomise(SongUNet(**SMALL, encoder="residual", decoder="skip")).requires_grad_(True)
    gradients = []
    for model.checkpointing in (False, True):
        model(normal(1, 3, 8, 8), torch.tensor([0.3])).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_half_precision_leaves_frequencies_as_they_are():
    model = SongUNet(**SMALL, embedding="fourier")
    before = model.map_noise.freqs.clone()
    assert torch.equal(before.half().float(), before)  # and a half-precision file holds them
    model.bfloat16()
    assert torch.equal(model.map_noise.freqs, before)
    assert model.map_layer0.weight.dtype == torch.bfloat16
    assert model.double().map_noise.freqs.dtype == torch.float64


def test_it_starts_as_next_to_nothing_and_learns_all_but_what_it_is_never_told():
    model = SongUNet(**SMALL, augment_width=9)
    assert model(torch.randn(1, 3, 8, 8), torch.tensor([0.3])).abs().max() < 1e-2
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["map_augment.weight"]


@pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        ({"encoder": "residula"}, "choice-unknown: 'residula'"),
        ({"decoder": "residual"}, "choice-unknown: 'residual'"),
        ({"embedding": "sines"}, "choice-unknown: 'sines'"),
        ({"resample_filter": (1, 2, 1)}, "network-shape-invalid"),
        ({"resample_filter": (1, -1)}, "network-shape-invalid"),
        ({"resolution": 9}, "size-indivisible: resolution"),
        ({"width": 6, "mult": (1, 3)}, "width-indivisible"),
        ({"attention_levels": (2,)}, "network-levels-invalid"),
        ({"heads": 3}, "width-indivisible: heads"),
        ({"null_class": True}, "classes-missing"),
        ({"augment_width": 0}, "number-out-of-range: augment_width"),
    ],
)
def test_arguments_that_cant_be_built_are_refused_by_name(wrong, refusal):
    with refused(refusal, ConfigError):
        SongUNet(**{**SMALL, **wrong})


def test_what_it_reads_must_be_told():
    with refused("condition-missing", naming="'label'"):
        SongUNet(**SMALL, classes=3)(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    with refused("condition-unread", UsageError):
        SongUNet(**SMALL)(torch.zeros(1, 3, 8, 8), torch.zeros(1), label=torch.zeros(1, dtype=torch.int64))
