"""Which of a latent diffusion checkpoint's two U-Nets is read is said, and the average unless another is asked for."""

import pytest
import torch

from tests.refusals import refused
from tests.tiny import randomise
from zoo.checkpoints.files import load_strict
from zoo.checkpoints.ldm_layout import unet_tensors_from_ldm
from zoo.networks.unet import UNet
from zoo.schema.errors import WeightsError

SMALL = {
    "in_channels": 4, "out_channels": 4, "width": 8, "mult": [1, 2], "blocks": 1, "attention_levels": [1],
    "context_width": 6, "heads": 2, "groups": 4,
}  # fmt: skip


def unet(seed):
    return randomise(UNet(**SMALL), seed)


def checkpoint(*, average=True):
    """A file as PyTorch Lightning and CompVis' LitEma write it: the average without dots in its names."""
    plain, averaged = unet(1).state_dict(), unet(2).state_dict()
    state = {f"model.diffusion_model.{n}": t for n, t in plain.items()}
    state |= {"betas": torch.zeros(3), "first_stage_model.encoder.conv_in.weight": torch.zeros(1)}
    if average:
        state |= {f"model_ema.diffusion_model{n.replace('.', '')}": t for n, t in averaged.items()}
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
    return {"state_dict": state, "global_step": 5}


@pytest.mark.parametrize(("weights", "seed"), [({}, 2), ({"weights": "ema"}, 2), ({"weights": "plain"}, 1)])
def test_the_average_is_read_unless_the_plain_weights_are_asked_for_and_it_is_said(weights, seed):
    found = unet_tensors_from_ldm(checkpoint(), **weights)
    assert found.weights == weights.get("weights", "ema")
    expected = unet(seed).state_dict()
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[n], t) for n, t in expected.items())
    load_strict(UNet(**SMALL), found.tensors, what="the checkpoint's weights")
    bare = unet_tensors_from_ldm(checkpoint()["state_dict"], **weights)
    assert all(torch.equal(bare.tensors[n], t) for n, t in expected.items())


def test_a_file_with_one_copy_is_refused_until_it_is_said_that_this_is_meant():
    with refused("average-missing"):
        unet_tensors_from_ldm(checkpoint(average=False))
    assert unet_tensors_from_ldm(checkpoint(average=False), weights="plain").weights == "plain"
    with refused("choice-unknown", WeightsError, naming="'raw'"):
        unet_tensors_from_ldm(checkpoint(), weights="raw")
    with refused("layout-wrong"):
        unet_tensors_from_ldm({"conv_in.weight": torch.zeros(1)})


def test_an_average_that_is_not_whole_is_refused():
    half = checkpoint()
    del half["state_dict"]["model_ema.diffusion_modelout2weight"]
    with refused("average-unfit", naming="'out.2.weight'"):
        unet_tensors_from_ldm(half)
    other = checkpoint()
    other["state_dict"]["model_ema.diffusion_modelout2weight"] = torch.zeros(1)
    with refused("average-unfit", naming="'out.2.weight'"):
        unet_tensors_from_ldm(other)
    same = checkpoint()
    same["state_dict"]["model.diffusion_model.out2.weight"] = torch.zeros(1)
    with refused("average-unfit"):
        unet_tensors_from_ldm(same)
