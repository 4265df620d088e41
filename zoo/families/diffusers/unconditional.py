"""A U-Net without text as diffusers' `UNet2DModel`: its configuration, and its tensors renamed.

Names are those of `zoo.families.diffusers.layout`, except for plain attention: its q, k and v are the rows of one 1x1
convolution here and three linear layers there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from zoo.families.diffusers.config import WRITTEN_FOR, blocks_of
from zoo.families.diffusers.layout import unet_names
from zoo.networks.blocks import AttentionBlock, ResBlock
from zoo.networks.unet import UNet
from zoo.schema.errors import ConfigError

_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}


def unconditional_config(unet: UNet, *, sample_size: int | None = None) -> dict[str, Any]:
    """The configuration of diffusers' `UNet2DModel` that is this U-Net; ConfigError where none is."""
    middle = [m for m in unet.middle_block if isinstance(m, AttentionBlock)]
    residual = [m for m in unet.modules() if isinstance(m, ResBlock)]
    for reason, refused in (
        ("reads more than the time", bool(unet.reads)),
        ("has no plain attention in its middle", not middle),
        ("takes patches", unet.patch > 1),
        ("has other dimensions than two", unet.dims != 2),
        ("scales and shifts its norms, or resamples in residual blocks",
         any(m.scale_shift or m.resample is not None for m in residual)),
        ("has a stem_width of its own", unet.stem_width != unet.width),
    ):  # fmt: skip
        if refused:
            raise ConfigError(f"a U-Net that {reason} can't be a UNet2DModel; only others can be", code="export-unfit")
    rows: list[Any] = list(unet.input_blocks)[1:]
    period = blocks_of(unet) + 1
    levels = [[m for block in rows[i : i + period] for m in block] for i in range(0, len(rows), period)]
    channels = [next(m for m in level if isinstance(m, ResBlock)).out_layers[3].out_channels for level in levels]
    if channels[0] != unet.width:
        raise ConfigError(
            "a U-Net whose mult doesn't start with 1 can't be a UNet2DModel; only others can be", code="export-unfit"
        )
    attends = [any(isinstance(m, AttentionBlock) for m in level) for level in levels]
    norm = residual[0].in_layers[0]
    assert isinstance(norm, nn.GroupNorm)
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": WRITTEN_FOR,
        "sample_size": sample_size,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "block_out_channels": channels,
        "layers_per_block": blocks_of(unet),
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "attention_head_dim": _head_width(unet),
        "norm_num_groups": norm.num_groups,
        "norm_eps": norm.eps,
        "act_fn": "silu",
        "downsample_padding": 1 if unet.downsample_padding == "both" else 0,
        "flip_sin_to_cos": unet.time_features == "cosines-first",
        "freq_shift": 0 if unet.time_features == "cosines-first" else 1,
        "center_input_sample": False,
    }


def _head_width(unet: UNet) -> int | None:
    """Channels a head, which diffusers knows one number of; None is one head, however wide."""
    attention = [m for m in unet.modules() if isinstance(m, AttentionBlock)]
    if all(m.heads == 1 for m in attention):
        return None
    widths = {m.qkv.in_channels // m.heads for m in attention}
    if len(widths) > 1:
        raise ConfigError(
            "a U-Net whose heads differ in width can't be a UNet2DModel; give head_width", code="export-unfit"
        )
    return widths.pop()


def unconditional_tensors(unet: UNet) -> dict[str, Tensor]:
    """The tensors of a U-Net by the names of diffusers' `UNet2DModel`."""
    state: Mapping[str, Tensor] = unet.state_dict()
    attention = {name: m for name, m in unet.named_modules() if isinstance(m, AttentionBlock)}
    out: dict[str, Tensor] = {}
    for ours, theirs in unet_names(state).items():
        tensor = state[ours]
        stem, inner, leaf = ours.rsplit(".", 2)
        if stem not in attention:
            out[theirs] = tensor
            continue
        place = theirs.removesuffix(f"{inner}.{leaf}")
        tensor = tensor[..., 0] if tensor.ndim == 3 else tensor  # a 1x1 convolution is a linear layer there
        if inner != "qkv":
            out[f"{place}{_ATTENTION[inner]}.{leaf}"] = tensor
            continue
        block = attention[stem]
        shape = (block.heads, 3, -1) if block.order == "legacy" else (3, block.heads, -1)
        parts = tensor.unflatten(0, shape).unbind(1 if block.order == "legacy" else 0)
        for letter, part in zip("qkv", parts, strict=True):
            out[f"{place}to_{letter}.{leaf}"] = part.flatten(0, 1)
    return out
