"""A packed layer gives what the plain one does, whatever it is given and whatever becomes of its weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.tiny import tiny_pipeline
from zoo.acceleration.eight_bit import EightBitLinear, in_eight_bits
from zoo.acceleration.fast import Fast, choose
from zoo.acceleration.packed import PackedConv2d, PackedLinear, able, pack, unpack

pytestmark = pytest.mark.skipif(not able(), reason="this PyTorch was built without oneDNN")
CPU = torch.device("cpu")
LAYERS = {
    "linear": lambda: nn.Linear(12, 7),
    "without a bias": lambda: nn.Linear(12, 7, bias=False),
    "3x3": lambda: nn.Conv2d(12, 8, 3, padding=1),
    "1x1": lambda: nn.Conv2d(12, 8, 1, bias=False),
    "stride": lambda: nn.Conv2d(12, 8, 3, stride=2, padding=1),
    "dilated, grouped": lambda: nn.Conv2d(12, 8, 3, dilation=2, groups=4),
    "reflected": lambda: nn.Conv2d(12, 8, 3, padding=1, padding_mode="reflect"),
    "same": lambda: nn.Conv2d(12, 8, 3, padding="same"),
}


def inputs(layer, dtype=torch.float32):
    """Shapes, memory formats and slices that a network may give."""
    if isinstance(layer, nn.Linear):
        x = torch.randn(2, 5, 12, dtype=dtype)
        return [x, x[0], x[0, 0], x.transpose(0, 1), torch.randn(3, 24, dtype=dtype)[:, ::2], x[:0]]
    x = torch.randn(2, 12, 9, 11, dtype=dtype)
    return [x, x.to(memory_format=torch.channels_last), x[:1, :, :6], x[..., ::2], x[0], x[:0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_packed_layer_is_the_plain_one_to_rounding(name, dtype):
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    given = inputs(layer, dtype)
    plain = [layer(x) for x in given]
    pack(layer)
    found = [layer(x) for x in given]
    tight = {torch.float32: 1e-5, torch.float64: 1e-12}.get(dtype, 2e-2)
    for one, other in zip(found, plain, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=tight, rtol=tight)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_changed_weights_are_seen(name, mode):
    layer = LAYERS[name]().bfloat16()
    x = inputs(layer, torch.bfloat16)[0]
    pack(layer)
    with mode():
        before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2.0)  # as a LoRA is swapped
    other = LAYERS[name]().bfloat16()
    with mode():
        assert not torch.equal(layer(x), before)
        layer.load_state_dict(other.state_dict())
        torch.testing.assert_close(layer(x), other(x), atol=2e-2, rtol=2e-2)
        layer.float()
        torch.testing.assert_close(layer(x.float()), other.float()(x.float()))


@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_changes_of_weights_that_were_made_in_inference_mode_are_seen(name):
    with torch.inference_mode():
        layer = LAYERS[name]().bfloat16()
        x = inputs(layer, torch.bfloat16)[0]
        pack(layer)
        before = layer(x)
        layer.weight.mul_(2.0)
        assert not torch.equal(layer(x), before)


def test_packing_again_forgets_what_was_laid_out():
    layer = LAYERS["3x3"]()
    x = inputs(layer)[0]
    pack(layer)
    with torch.no_grad():
        before = layer(x)
        layer.weight.data.mul_(2.0)  # as a precision that goes and comes back: the same place, and no other version
        pack(layer)
        assert not torch.equal(layer(x), before)


@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_gradients_go_through(name):
    layer = LAYERS[name]()
    x = inputs(layer)[0].requires_grad_()
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    pack(layer.requires_grad_(False))
    (found,) = torch.autograd.grad(layer(x).square().sum(), x)
    assert torch.equal(found, expected)


def test_packing_is_taken_back_and_changes_no_state():
    network = nn.Sequential(LAYERS["linear"](), LAYERS["3x3"](), LAYERS["same"](), nn.GroupNorm(1, 3))
    names = list(network.state_dict())
    pack(network)
    pack(network)
    assert [type(layer) for layer in network] == [PackedLinear, PackedConv2d, nn.Conv2d, nn.GroupNorm]
    assert list(network.state_dict()) == names
    unpack(network)
    assert [type(layer) for layer in network] == [nn.Linear, nn.Conv2d, nn.Conv2d, nn.GroupNorm]
    assert not any("_kept" in vars(layer) for layer in network)


def test_layers_of_eight_bits_stay():
    layer = nn.Sequential(nn.Linear(64, 64))
    in_eight_bits(layer, "int8")
    pack(layer)
    assert type(layer[0]) is EightBitLinear


def test_packing_is_the_fast_paths_on_a_cpu_and_refused_where_it_cannot_be():
    assert choose(CPU).packed
    assert not choose(CPU, compile=True).packed
    assert not choose(torch.device("meta")).packed
    with refused("device-unfit", naming="packed"):
        choose(torch.device("meta"), packed=True)
    with refused("option-conflict", naming="packed"):
        choose(CPU, packed=True, compile=True)
    with refused("option-conflict", naming="packed"):
        tiny_pipeline().compile().save_memory(offload=True)
    with refused("option-conflict", naming="packed"):
        tiny_pipeline().save_memory(offload=True).compile(packed=True)


def test_a_pipelines_text_encoder_network_and_decoder_are_packed_and_taken_back():
    pipe = tiny_pipeline()

    def packed():
        return {type(m) for part in pipe.modules() for m in part.modules()} & {PackedLinear, PackedConv2d}

    assert not packed()
    assert pipe.compile().fast == Fast(precompute=True, channels_last=True, packed=True)
    assert packed() == {PackedLinear, PackedConv2d}
    pipe.compile(packed=False)
    assert not packed()
