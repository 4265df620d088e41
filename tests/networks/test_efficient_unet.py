import pytest
import torch
from torch import nn

from tests.networks.random_weights import normal, randomise
from tests.refusals import refused
from zoo.networks.blocks import ResBlock
from zoo.networks.efficient_unet import EfficientUNet

SMALL = {
    "width": 8, "mult": (1, 2), "blocks": (1, 2), "attention_levels": (1,), "text_levels": (1,), "head_width": 8,
    "context_width": 6, "vector_width": 5, "classes": 4, "null_class": True, "groups": 4,
}  # fmt: skip


def told(batch=2):
    return {
        "context": normal(batch, 3, 6, seed=2), "mask": torch.ones(batch, 3, dtype=torch.bool),
        "vector": normal(batch, 5, seed=3), "label": torch.tensor([1] * batch), "level": torch.full((batch,), 0.1),
    }  # fmt: skip


@torch.no_grad()
def test_everything_told_to_a_sample_reaches_it_and_no_other():
    model = randomise(EfficientUNet(**SMALL))
    x, time, cond = normal(2, 6, 8, 12), torch.tensor([10.0, 10.0]), told()
    before = model(x, time, **cond)
    assert before.shape == (2, 3, 8, 12)
    changes = {
        "context": torch.stack([cond["context"][0], cond["context"][1].square()]),
        "mask": torch.tensor([[True] * 3, [True, False, False]]),
        "vector": cond["vector"] * torch.tensor([[1.0], [2.0]]),
        "label": torch.tensor([1, 4]),
        "level": torch.tensor([0.1, 0.4]),
    }
    after = {name: model(x, time, **{**cond, name: value}) for name, value in changes.items()}
    after["time"] = model(x, torch.tensor([10.0, 60.0]), **cond)
    for name, found in after.items():
        assert torch.allclose(found[0], before[0], atol=1e-12), name
        assert not torch.allclose(found[1], before[1], atol=1e-3), name
    assert model.reads == tuple(changes)


def test_convolutions_of_the_pictures_own_size_are_the_first_and_the_last_alone():
    model = EfficientUNet(**SMALL)
    seen = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, o, name=name: seen.append((name, o.shape[-1])))
    model(normal(1, 6, 16, 16).float(), torch.zeros(1), **{k: v.float() if v.is_floating_point() else v
                                                           for k, v in told(1).items()})  # fmt: skip
    # The convolution that belongs to the last doubling is the second to last.
    assert [name for name, size in seen if size == 16] == ["first", "up.1.after.conv", "out.2"]
    assert {size for _, size in seen} == {16, 8, 4}


def test_blocks_are_counted_by_level_and_most_weights_are_at_the_coarsest():
    with torch.device("meta"):
        model = EfficientUNet()
    counted = [sum(isinstance(m, ResBlock) for m in part.modules()) for part in model.down]
    assert counted == [2, 4, 8, 8]
    assert [sum(isinstance(m, ResBlock) for m in part.modules()) for part in model.up] == counted[::-1]
    sizes = [sum(p.numel() for p in part.parameters()) for part in model.down]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sum(sizes[:-1])


@torch.no_grad()
def test_skips_are_scaled_by_one_over_root_two():
    model = randomise(EfficientUNet(**SMALL))
    seen = {}
    model.down[0].register_forward_hook(lambda m, i, o: seen.update(skip=o))
    model.up[1].register_forward_pre_hook(lambda m, i: seen.update(joined=i[0]))
    model.first.register_forward_hook(lambda m, i, o: seen.update(first=o))
    model.out.register_forward_pre_hook(lambda m, i: seen.update(last=i[0]))
    model(normal(2, 6, 8, 8), torch.zeros(2), **told())
    assert torch.allclose(seen["joined"][:, 8:], seen["skip"] / 2**0.5, atol=1e-12)
    assert torch.allclose(seen["last"][:, 8:], seen["first"] / 2**0.5, atol=1e-12)


def test_a_new_one_predicts_zero_and_checkpointing_gives_the_same_gradients():
    model = EfficientUNet(**SMALL).double()
    x, time = normal(2, 6, 8, 8), torch.tensor([3.0, 700.0])
    assert not model(x, time, **told()).any()
    randomise(model).requires_grad_(True)
    plain = torch.autograd.grad(model(x, time, **told()).square().mean(), list(model.parameters()))
    model.checkpointing = True
    found = torch.autograd.grad(model(x, time, **told()).square().mean(), list(model.parameters()))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, plain, strict=True))
    assert all(g.abs().max() > 0 for g in plain)


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"blocks": (1,)}, "network-levels-invalid"),
        ({"text_levels": ()}, "arguments-conflict"),
        ({"context_width": None}, "arguments-conflict"),
        ({"width": 10}, "width-indivisible: width"),
        ({"head_width": 5}, "width-indivisible: head_width"),
        ({"text_levels": (3,)}, "network-levels-invalid: text_levels"),
        ({"classes": None}, "classes-missing"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(given, refusal):
    with refused(refusal):
        EfficientUNet(**{**SMALL, **given})


def test_it_says_what_it_misses():
    with refused("condition-missing", naming="'level'"):
        EfficientUNet(width=8, mult=(1,), blocks=(1,), attention_levels=(), groups=4)(
            torch.zeros(1, 6, 4, 4), torch.zeros(1)
        )
