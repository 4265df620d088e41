"""Weights in eight bits: half of half precision's bytes, and little of the output lost."""

import pytest
import torch
from torch import nn

from tests.refusals import refused
from zoo.acceleration.eight_bit import in_eight_bits, wide_layers
from zoo.acceleration.offload import content
from zoo.schema.errors import UsageError


def network(dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(4, 64, 3, padding=1), nn.Conv2d(64, 128, 3, padding=1), nn.GroupNorm(8, 128), nn.SiLU(),
        nn.Conv2d(128, 64, 1, bias=False), nn.Flatten(2), nn.Linear(64, 96),
    )  # fmt: skip
    return layers.to(dtype).eval()


def lost(found, right):
    """The error's part of an output, root mean square."""
    return float((found.float() - right.float()).norm() / right.float().norm())


def stored(module):
    return sum(t.nbytes for t in content(module).values())


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.02), ("fp8", 0.06)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_outputs_stay_near_and_weights_take_a_byte(kind, most, dtype):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    module = network(dtype)
    before, bytes_before, wide = module(x), stored(module), sum(w.weight.numel() for w in wide_layers(module))
    assert in_eight_bits(module, kind) == wide
    assert in_eight_bits(module, kind) == 0  # they are already
    assert 1e-4 < lost(module(x), before) < most
    assert stored(module) < bytes_before - wide * (before.element_size() - 1) + 4 * 400
    assert module[0].weight.dtype == dtype  # narrow: as it was


@torch.inference_mode()
def test_a_change_of_precision_leaves_the_eight_bits_alone():
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    module = network()
    in_eight_bits(module, "fp8")
    first = module(x)
    module.to(torch.bfloat16).to(torch.float32)
    norm = module[2]
    assert module[1].eight_bits.dtype == torch.uint8
    assert lost(module(x), first) < 1e-2
    assert norm.weight.dtype == torch.float32
    assert torch.equal(module[1].scale, module[1].scale.bfloat16().float())


def test_an_unknown_kind_is_refused():
    with refused("choice-unknown", UsageError, naming="int4"):
        in_eight_bits(network(), "int4")  # type: ignore[arg-type]
