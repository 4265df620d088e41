"""The building blocks against diffusers' with the same weights, and against attention written out."""

import pytest
import torch

from tests.networks.random_weights import normal, randomise, relative
from zoo.networks.blocks import AttentionBlock, Downsample, ResBlock, Upsample, attend

NAMES = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def pair(*, scale_shift, resample, inside=8, outside=16):
    from diffusers.models.resnet import ResnetBlock2D

    ours = randomise(ResBlock(inside, 12, outside, groups=4, scale_shift=scale_shift, resample=resample))
    theirs = ResnetBlock2D(
        in_channels=inside, out_channels=outside, temb_channels=12, groups=4, eps=1e-5,
        time_embedding_norm="scale_shift" if scale_shift else "default", up=resample == "up", down=resample == "down",
    ).double()  # fmt: skip
    state = ours.state_dict()
    theirs.load_state_dict(
        {name: state[f"{NAMES[name.split('.')[0]]}.{name.split('.')[1]}"] for name in theirs.state_dict()}
    )
    return ours, theirs.eval()


@pytest.mark.peer
@torch.no_grad()
@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("resample", [None, "down", "up"])
def test_residual_block_is_diffusers_with_the_same_weights(scale_shift, resample):
    ours, theirs = pair(scale_shift=scale_shift, resample=resample)
    x, emb = normal(2, 8, 6, 4), normal(2, 12, seed=2)
    assert relative(ours(x, emb), theirs(x, emb)) < 1e-10
    other, _ = pair(scale_shift=scale_shift, resample=None)
    assert resample is None or other(x, emb).shape != theirs(x, emb).shape


def written_out(qkv, heads, row):
    """Softmax attention a head at a time; row(part, head, channel, width) is where the tensor keeps it."""
    batch, rows, positions = qkv.shape
    width = rows // 3 // heads
    out = torch.zeros(batch, heads * width, positions, dtype=qkv.dtype)
    for head in range(heads):
        q, k, v = (qkv[:, [row(part, head, c, width) for c in range(width)]] for part in range(3))
        weight = torch.softmax(q.transpose(1, 2) @ k / width**0.5, dim=-1)
        out[:, head * width : (head + 1) * width] = v @ weight.transpose(1, 2)
    return out


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_qkv_orders_are_what_they_are_called(heads):
    qkv = normal(2, 24, 5)
    rows = {
        "legacy": lambda part, head, c, width: head * 3 * width + part * width + c,
        "new": lambda part, head, c, width: part * heads * width + head * width + c,
    }
    for order, row in rows.items():
        assert torch.allclose(attend(qkv, heads=heads, order=order), written_out(qkv, heads, row), atol=1e-12)
    same = torch.allclose(attend(qkv, heads=heads, order="legacy"), attend(qkv, heads=heads, order="new"))
    assert same == (heads == 1)


def test_blocks_start_as_their_shortcut():
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ResBlock(8, 6, 8, groups=4, scale_shift=True)(x, torch.randn(2, 6)), x)
    assert torch.equal(AttentionBlock(8, heads=2, groups=4)(x), x)


def test_resampling_without_a_convolution_keeps_the_mean_and_has_no_weights():
    x = normal(1, 3, 4, 6)
    down, up = Downsample(3, conv=False), Upsample(3, conv=False)
    assert torch.allclose(down(x)[0, :, 0, 0], x[0, :, :2, :2].mean(dim=(1, 2)))
    assert torch.equal(down(up(x)), x)
    assert not [*down.parameters(), *up.parameters()]
