"""The layout of Ho et al.'s DDPM in PyTorch (`temb`, `down`, `mid`, `up`) -> zoo's U-Net, which has OpenAI's.

The two networks compute the same, after three switches that tensors don't show: `norm_eps: 1e-6`,
`downsample_padding: end`, `time_features: sines-first`. Attention has one head and its q, k and v in three 1x1
convolutions, here the rows of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from zoo.schema.errors import WeightsError

SWITCHES = {"norm_eps": 1e-6, "downsample_padding": "end", "time_features": "sines-first"}

_ENDS = {
    "temb.dense.0": "time_embed.0",
    "temb.dense.1": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid.block_1": "middle_block.0",
    "mid.attn_1": "middle_block.1",
    "mid.block_2": "middle_block.2",
    "norm_out": "out.0",
    "conv_out": "out.2",
}
_RES_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "temb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "nin_shortcut": "skip_connection",
}


def unet_tensors_from_ddpm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published DDPM under the names and in the shapes of zoo's U-Net."""
    places = dict(_places(state))
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem, _, leaf = name.rpartition(".")
        place, inner = _split(stem, places)
        if inner in ("q", "k", "v"):
            if inner == "q":
                rows = torch.cat([state[f"{stem[:-1]}{part}.{leaf}"] for part in "qkv"])
                out[f"{place}.qkv.{leaf}"] = rows[..., 0] if leaf == "weight" else rows
        elif inner == "proj_out":
            out[f"{place}.proj_out.{leaf}"] = tensor[..., 0] if leaf == "weight" else tensor
        else:
            inner = _RES_BLOCK.get(inner, inner)
            out[".".join(part for part in (place, inner, leaf) if part)] = tensor
    return out


def _places(names: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Where each of its modules stands: counted by level there, in one sequence here."""
    yield from _ENDS.items()
    found = [re.match(r"down\.(\d+)\.block\.(\d+)\.", name) for name in names]
    counts = [(int(m[1]), int(m[2])) for m in found if m]
    if not counts:
        raise WeightsError(
            "these tensors have no 'down.0.block.0' and are not Ho et al.'s layout; name their own layout",
            code="layout-wrong",
        )
    levels, blocks = (1 + max(pair[i] for pair in counts) for i in (0, 1))
    number = 1
    for level in range(levels):
        for block in range(blocks):
            yield f"down.{level}.block.{block}", f"input_blocks.{number}.0"
            yield f"down.{level}.attn.{block}", f"input_blocks.{number}.1"
            number += 1
        if level < levels - 1:
            yield f"down.{level}.downsample.conv", f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for level in reversed(range(levels)):
        attends = f"up.{level}.attn.0.norm.weight" in names
        for block in range(blocks + 1):
            yield f"up.{level}.block.{block}", f"output_blocks.{number}.0"
            yield f"up.{level}.attn.{block}", f"output_blocks.{number}.1"
            if block == blocks and level > 0:
                yield f"up.{level}.upsample.conv", f"output_blocks.{number}.{1 + attends}.conv"
            number += 1


def _split(stem: str, places: Mapping[str, str]) -> tuple[str, str]:
    """A module's place, and what is left of its name within that."""
    head, tail = stem, ""
    while head:
        if head in places:
            return places[head], tail
        head, _, last = head.rpartition(".")
        tail = f"{last}.{tail}".rstrip(".")
    raise WeightsError(
        f"the tensor '{stem}' has no place in Ho et al.'s layout; name the layout that it is of", code="layout-wrong"
    )
