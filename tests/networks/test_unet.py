from typing import Any

import pytest
import torch

from tests.networks.random_weights import normal, randomise
from tests.refusals import refused
from zoo.networks.unet import UNet
from zoo.schema.errors import ConfigError, UsageError


def test_unet_keeps_the_size_of_what_it_is_given():
    model = UNet(
        in_channels=5,
        out_channels=3,
        width=16,
        mult=(1, 2),
        blocks=1,
        attention_levels=(1,),
        heads=2,
        context_width=6,
        groups=8,
    )
    out = model(torch.zeros(2, 5, 6, 10), torch.zeros(2), context=torch.zeros(2, 3, 6))
    assert out.shape == (2, 3, 6, 10)


def test_a_new_unet_predicts_zero():
    model = UNet(width=16, mult=(1, 2), blocks=1, attention_levels=(1,), heads=2, context_width=6, groups=8)
    out = model(torch.randn(1, 4, 8, 8), torch.tensor([5.0]), context=torch.randn(1, 3, 6))
    assert not out.any()


@torch.no_grad()
def test_time_and_context_of_a_sample_reach_only_that_sample():
    model = randomise(UNet(width=16, mult=(1, 2), blocks=1, attention_levels=(1,), heads=2, context_width=6, groups=8))
    x, time, context = normal(2, 4, 8, 8), torch.tensor([10.0, 500.0]), normal(2, 3, 6, seed=2)
    before = model(x, time, context=context)
    for changed in (
        (x, time + torch.tensor([0.0, 9.0]), context),
        (x, time, context * torch.tensor([1, 2.0]).view(2, 1, 1)),
    ):
        after = model(changed[0], changed[1], context=changed[2])
        assert torch.allclose(after[0], before[0], atol=1e-12)
        assert not torch.allclose(after[1], before[1], atol=1e-3)


@pytest.mark.parametrize("given", [{}, {"heads": 2, "head_width": 8}])
def test_heads_or_head_width_must_be_said(given):
    with pytest.raises(ValueError, match="either heads or head_width"):
        UNet(width=16, groups=8, **given)


SMALL = {"in_channels": 3, "out_channels": 3, "width": 16, "mult": (1, 2), "blocks": 1, "groups": 8}
PLAIN = {**SMALL, "attention": "plain", "attention_levels": (1,), "heads": 2, "context_width": None}


@pytest.mark.parametrize(
    ("given", "reads"),
    [
        (PLAIN, ()),
        ({**PLAIN, "classes": 4, "level": True}, ("label", "level")),
        ({**SMALL, "attention_levels": (), "middle_attention": False}, ()),
        ({**SMALL, "attention_levels": (1,), "heads": 2, "context_width": 6}, ("context", "mask")),
    ],
)
def test_a_unet_reads_what_it_was_built_to_read(given, reads):
    assert UNet(**given).reads == reads


@torch.no_grad()
@pytest.mark.parametrize(("field", "values"), [("label", [1, 4]), ("level", [0.1, 0.2])])
def test_label_and_level_of_a_sample_reach_only_that_sample(field, values):
    model = randomise(UNet(**PLAIN, classes=4, null_class=True, level=True))
    told = {"label": torch.tensor([1, 1]), "level": torch.tensor([0.1, 0.1])}
    x, time = normal(2, 3, 8, 8), torch.tensor([10.0, 10.0])
    before, after = model(x, time, **told), model(x, time, **{**told, field: torch.tensor(values)})
    assert torch.allclose(after[0], before[0], atol=1e-12)
    assert not torch.allclose(after[1], before[1], atol=1e-3)


@torch.no_grad()
def test_a_level_is_embedded_as_a_thousand_times_itself():
    model = randomise(UNet(**PLAIN, level=True))
    model.aug_proj = model.time_embed
    x, zero = normal(1, 3, 8, 8), torch.zeros(1)
    swapped = model(x, torch.tensor([250.0]), level=zero), model(x, zero, level=torch.tensor([0.25]))
    assert torch.allclose(*swapped, atol=1e-12)


def test_the_null_class_is_one_more_row():
    assert UNet(**PLAIN, classes=4).label_emb.weight.shape[0] == 4
    assert UNet(**PLAIN, classes=4, null_class=True).label_emb.weight.shape[0] == 5


def test_hos_recipe_has_its_published_size():
    with torch.device("meta"):
        model = UNet(
            in_channels=3, out_channels=3, width=128, mult=(1, 2, 2, 2), attention="plain", attention_levels=(1,),
            heads=1, context_width=None, dropout=0.1,
        )  # fmt: skip
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 35.7  # Ho et al. 2020, appendix B
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}


@pytest.mark.parametrize("updown", [False, True])
def test_checkpointing_changes_memory_and_no_gradient(updown):
    model = randomise(UNet(**PLAIN, resblock_updown=updown, scale_shift=True)).train().requires_grad_(True)
    x, time = normal(2, 3, 8, 8), torch.tensor([3.0, 700.0])

    def run():
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            loss = model(x, time).square().mean()
        return sum(kept), torch.autograd.grad(loss, list(model.parameters()))

    plain, expected = run()
    model.checkpointing = True
    checkpointed, found = run()
    assert checkpointed < plain / 2
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"width": 20}, "width-indivisible: width"),
        ({"width": 0}, "number-out-of-range: width"),
        ({"mult": ()}, "network-levels-invalid"),
        ({"mult": (1, 1.3)}, "width-indivisible: mult"),
        ({"mult": (0, 1)}, "width-indivisible: mult"),
        ({"dims": 4}, "number-out-of-range: dims"),
        ({"dims": 1, "patch": 2}, "arguments-conflict"),
        ({"classes": 3, "vector_width": 4}, "arguments-conflict"),
        ({"downsample_padding": "none"}, "choice-unknown"),
        ({"time_features": "sines"}, "choice-unknown: sines-first"),
        ({"blocks": 0}, "number-out-of-range: blocks"),
        ({"attention_levels": (2,)}, "network-levels-invalid: attention_levels"),
        ({"heads": 3}, "width-indivisible: heads"),
        ({"heads": None, "head_width": 12}, "width-indivisible: head_width"),
        ({"context_width": 6}, "arguments-conflict: context_width"),
        ({"attention": "transformer"}, "arguments-conflict: context_width"),
        ({"attention": "linear"}, "choice-unknown"),
        ({"qkv_order": "old"}, "choice-unknown"),
        ({"heads": None, "head_width": 8, "heads_up": 2}, "arguments-conflict: heads_up"),
        ({"null_class": True}, "classes-missing"),
        ({"classes": 0}, "number-out-of-range: classes"),
        ({"blocks": 10**9}, "number-out-of-range: blocks"),
        ({"width": 10**9}, "number-out-of-range: width"),
        ({"mult": (1,) * 20_000, "attention_levels": (0,)}, "network-levels-invalid: 16"),
        ({"mult": (1, 10**6)}, "network-levels-invalid: 16 levels of 16384 channels"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(given, refusal):
    with refused(refusal, ConfigError):
        UNet(**{**PLAIN, **given})


def test_a_unet_says_what_it_misses_and_what_it_cannot_hear():
    x, time = torch.zeros(1, 3, 8, 8), torch.zeros(1)
    with refused("condition-missing", naming="'label'"):
        UNet(**PLAIN, classes=2)(x, time)
    with refused("condition-unread", UsageError, naming="'level'"):
        UNet(**PLAIN)(x, time, level=torch.zeros(1))


@torch.no_grad()
def test_a_patch_is_the_same_network_between_a_rearrangement_of_pixels():
    facts: dict[str, Any] = {
        "width": 16, "mult": (1, 2), "blocks": 1, "attention": "plain", "attention_levels": (1,), "heads": 2,
        "context_width": None, "groups": 8,
    }  # fmt: skip
    model = randomise(UNet(in_channels=3, out_channels=3, patch=2, **facts))
    inner = UNet(in_channels=12, out_channels=12, **facts).to(torch.float64)
    inner.load_state_dict(model.state_dict())
    x, time = normal(2, 3, 8, 12), torch.tensor([3.0, 40.0])
    cells = x.reshape(2, 3, 4, 2, 6, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 12, 4, 6)
    out = inner(cells, time).reshape(2, 3, 2, 2, 4, 6).permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 8, 12)
    assert torch.equal(model(x, time), out)
    assert model.size_multiple == 4
