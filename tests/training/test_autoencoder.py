"""Autoencoder losses: the parts as the papers write them, the discriminator beside them, and their gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests.refusals import refused
from tests.training.toy import Pictures, batch
from zoo.autoencoders.kl import AutoencoderKL
from zoo.autoencoders.vq import AutoencoderVQ
from zoo.data.pixels import from_uint8
from zoo.schema.errors import ConfigError
from zoo.training.objectives.autoencoder import AutoencoderKLObjective, AutoencoderVQObjective
from zoo.training.objectives.patch_gan import PatchDiscriminator, adaptive_weight, hinge
from zoo.training.objectives.perceptual import Perceptual

SHAPE = {"channels": 3, "z_channels": 3, "width": 4, "mult": (1, 2), "blocks": 1, "groups": 2}
BACKBONE = "mobilenetv3_small_050"


def kl(**arguments):
    torch.manual_seed(0)
    return AutoencoderKLObjective(
        network=AutoencoderKL(**SHAPE), train=Pictures(size=16), validation=Pictures(count=6, size=16), **arguments
    )


def vq(**arguments):
    torch.manual_seed(0)
    network = AutoencoderVQ(**SHAPE, codes=8)
    torch.nn.init.normal_(network.quantize.embedding.weight)
    return AutoencoderVQObjective(
        network=network, train=Pictures(size=16), validation=Pictures(count=6, size=16), **arguments
    )


@torch.no_grad()
def test_kl_loss_is_its_parts():
    made, whole = kl(kl_weight=0.1, gradient_weight=0.5, pixel="l2"), batch()
    x = from_uint8(torch.from_numpy(made.pictures.train.arrays[whole.rows]))
    mean, log_variance = made.network.moments(x)
    z = mean + torch.exp(0.5 * log_variance) * whole.noise((3, 8, 8), "posterior")
    y = made.network.decode(z)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, torch.exp(0.5 * log_variance)), normal(0.0, 1.0)).mean()
    gradient = F.mse_loss(y.diff(dim=2), x.diff(dim=2)) + F.mse_loss(y.diff(dim=3), x.diff(dim=3))
    expected = F.mse_loss(y, x) + 0.5 * gradient + 0.1 * divergence
    assert float(made.loss(made.network, whole)["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_vq_hands_the_decoders_gradient_to_the_encoder_and_moves_the_codebook_to_it():
    made, whole = vq(commitment_weight=0.0, gradient_weight=0.0), batch()
    made.loss(made.network, whole)["loss"].backward()
    network = made.network
    x = from_uint8(torch.from_numpy(made.pictures.train.arrays[whole.rows]))
    z = network.vectors(x).detach()
    e = network.quantize(z).detach().requires_grad_()
    F.l1_loss(network.reconstruct(e), x).backward()
    straight = torch.autograd.grad(network.vectors(x), network.quant_conv.weight, grad_outputs=e.grad)[0]
    assert torch.allclose(network.quant_conv.weight.grad, straight, atol=1e-7)
    # The codebook hears |sg(z) - e|^2 alone: used entries go towards the mean of their vectors, others stay.
    indices = network.quantize.indices(z).flatten()
    rows = z.permute(0, 2, 3, 1).reshape(-1, 3)
    for code in range(8):
        mine = rows[indices == code]
        expected = 2 * (network.quantize.embedding.weight[code].detach() - mine).sum(dim=0) / rows.numel()
        assert torch.allclose(network.quantize.embedding.weight.grad[code], expected, atol=1e-6)


def test_vq_commitment_pulls_the_encoder():
    free, bound = vq(commitment_weight=0.0), vq(commitment_weight=1.0)
    with torch.no_grad():
        a, b = (m.loss(m.network, batch()) for m in (free, bound))
    assert float(b["loss"]) == pytest.approx(float(a["loss"] + b["commitment"]), rel=1e-5)
    assert 1.0 <= float(a["perplexity"]) <= 8.0


@pytest.mark.parametrize("make", [kl, vq])
def test_sheet_and_export_are_of_the_pictures(make):
    made = make()
    assert made.sheet(made.network).shape == (3, 2 * 16 + 2, 6 * 16 + 5 * 2)
    tensors, facts = made.export(copy.deepcopy(made.network))
    assert facts["contract"] == {"channels": 3, "factor": 2, "size": 16, "range": [-1, 1]}
    assert ("quantize.embedding.weight" in tensors) is (make is vq)


def test_hinge_is_as_written():
    assert float(hinge(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]))) == pytest.approx(0.5 * (0.25 + 0.5))


def test_the_adaptive_weight_makes_both_gradients_as_long():
    # Esser et al. 2021, eq. 7.
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    one, other = 3 * last.square().sum(), last.sum()
    weight = adaptive_weight(one, other, last)
    long, short = torch.autograd.grad(one, last)[0], torch.autograd.grad(weight * other, last)[0]
    assert float(short.norm()) == pytest.approx(float(long.norm()), rel=1e-5)


@pytest.mark.parametrize("make", [kl, vq])
def test_the_adversary_begins_at_its_step_and_each_side_trains_its_own(make):
    made = make(adversary_weight=0.5, adversary_start=3, adversary_width=4, adversary_layers=1)
    assert isinstance(made.adversary, PatchDiscriminator)
    early, late = batch(step=2), batch(step=3)
    assert "fooled" not in made.loss(made.network, early)
    assert float(made.adversary_loss(made.network, early)["loss"].detach()) == 0.0
    made.adversary.requires_grad_(False)
    scalars = made.loss(made.network, late)
    plain = make()
    added = 0.5 * float((scalars["adaptive_weight"] * scalars["fooled"]).detach())
    without = float(plain.loss(plain.network, late)["loss"].detach())
    assert float(scalars["loss"].detach()) == pytest.approx(without + added, rel=1e-4)
    scalars["loss"].backward()
    assert made.network.decoder.conv_out.weight.grad is not None
    assert all(p.grad is None for p in made.adversary.parameters())
    made.network.zero_grad()
    made.adversary.requires_grad_(True)
    made.adversary_loss(made.network, late)["loss"].backward()
    assert all(p.grad is not None for p in made.adversary.parameters())
    assert all(p.grad is None or not p.grad.any() for p in made.network.parameters())
    with torch.no_grad():
        assert "fooled" not in made.loss(made.network, batch(6, training=False))


def test_a_discriminator_treats_each_picture_alone():
    made, x = PatchDiscriminator(width=4, layers=1), torch.randn(3, 3, 16, 16)
    assert torch.allclose(made(x)[1:], made(x[1:]), atol=1e-6)


@pytest.mark.slow
def test_perceptual_distance_is_0_of_equal_pictures_and_reaches_the_decoder():
    seen = Perceptual(model=BACKBONE, pretrained=False)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    assert float(seen(x, x)) == 0.0
    assert float(seen(x, -x)) > float(seen(x, x + 0.01)) > 0.0
    y = (x + 0.1).requires_grad_()
    seen(x, y).backward()
    assert y.grad is not None
    assert float(y.grad.abs().max()) > 0.0
    made = kl(perceptual_weight=0.3, perceptual_model=BACKBONE, perceptual_pretrained=False)
    scalars = made.loss(made.network, batch())
    scalars["loss"].backward()
    assert all(p.grad is None for p in made.perceptual.parameters())
    assert all(id(p) not in {id(q) for q in made.network.parameters()} for p in made.perceptual.parameters())


@pytest.mark.slow
def test_perceptual_weights_are_the_users_and_nothing_is_downloaded(tmp_path):
    with refused("weights-missing", ConfigError, naming="perceptual_weights"):
        kl(perceptual_weight=0.3)
    with refused("backbone-unknown", ConfigError, naming="no-such"):
        Perceptual(model="no-such", pretrained=False)
    torch.manual_seed(5)
    theirs = Perceptual(model=BACKBONE, pretrained=False)
    path = tmp_path / "backbone.safetensors"
    save_file({**theirs.backbone.state_dict(), "classifier.weight": torch.zeros(2)}, path)
    torch.manual_seed(6)
    ours = Perceptual(model=BACKBONE, weights=str(path))
    x, y = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    assert torch.equal(ours(x, y), theirs(x, y))
    save_file({"classifier.weight": torch.zeros(2)}, path)
    with refused("layout-wrong", naming="lack"):
        Perceptual(model=BACKBONE, weights=str(path))
    with refused("weights-unreadable", naming="missing"):
        Perceptual(model=BACKBONE, weights=str(tmp_path / "missing.safetensors"))
