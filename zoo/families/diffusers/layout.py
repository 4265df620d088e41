"""Names of the diffusers layout for zoo's networks, which use the original ones (OpenAI, CompVis, open_clip).

Each table is one-to-one, so it reads in both directions: for a network's tensors the map is a bijection, which the
tests check against the published files' lists. `*_tensors` renames whole state dicts and reshapes the few tensors
that the two layouts store differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# -- U-Net

# Names by place; {b} counts levels in the order they run, {l} layers within one.
_UNET_PLACES = (
    (re.compile(r"time_embed\.0"), "time_embedding.linear_1"),
    (re.compile(r"time_embed\.2"), "time_embedding.linear_2"),
    (re.compile(r"input_blocks\.0\.0"), "conv_in"),
    (re.compile(r"input_blocks\.(\d+)\.0\.op"), "down_blocks.{b}.downsamplers.0.conv"),
    (re.compile(r"input_blocks\.(\d+)\.0"), "down_blocks.{b}.resnets.{l}"),
    (re.compile(r"input_blocks\.(\d+)\.1"), "down_blocks.{b}.attentions.{l}"),
    (re.compile(r"middle_block\.0"), "mid_block.resnets.0"),
    (re.compile(r"middle_block\.1"), "mid_block.attentions.0"),
    (re.compile(r"middle_block\.2"), "mid_block.resnets.1"),
    (re.compile(r"output_blocks\.(\d+)\.[12]\.conv"), "up_blocks.{b}.upsamplers.0.conv"),
    (re.compile(r"output_blocks\.(\d+)\.0"), "up_blocks.{b}.resnets.{l}"),
    (re.compile(r"output_blocks\.(\d+)\.1"), "up_blocks.{b}.attentions.{l}"),
    (re.compile(r"out\.0"), "conv_norm_out"),
    (re.compile(r"out\.2"), "conv_out"),
    (re.compile(r"label_emb\.0\.0"), "add_embedding.linear_1"),  # of a vector (SDXL)
    (re.compile(r"label_emb\.0\.2"), "add_embedding.linear_2"),
    (re.compile(r"label_emb(?=\.weight$)"), "class_embedding"),  # a table of classes or noise levels
    (re.compile(r"cond_proj"), "time_embedding.cond_proj"),  # of a distilled guidance scale (LCM)
)
_UNET_DOWN = re.compile(r"input_blocks\.(\d+)\.0\.op\.weight")
_UNET_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}  # the transformer's inner names are the same in both

# -- KL autoencoder; decoder levels count from the finest here and in the order they run there

_KL_PLACES = (
    (re.compile(r"encoder\.down\.(\d+)\.block\.(\d+)"), "encoder.down_blocks.{0}.resnets.{1}"),
    (re.compile(r"encoder\.down\.(\d+)\.attn\.(\d+)"), "encoder.down_blocks.{0}.attentions.{1}"),
    (re.compile(r"encoder\.down\.(\d+)\.downsample\.conv"), "encoder.down_blocks.{0}.downsamplers.0.conv"),
    (re.compile(r"decoder\.up\.(\d+)\.block\.(\d+)"), "decoder.up_blocks.{reversed}.resnets.{1}"),
    (re.compile(r"decoder\.up\.(\d+)\.attn\.(\d+)"), "decoder.up_blocks.{reversed}.attentions.{1}"),
    (re.compile(r"decoder\.up\.(\d+)\.upsample\.conv"), "decoder.up_blocks.{reversed}.upsamplers.0.conv"),
    (re.compile(r"(encoder|decoder)\.mid\.block_1"), "{0}.mid_block.resnets.0"),
    (re.compile(r"(encoder|decoder)\.mid\.attn_1"), "{0}.mid_block.attentions.0"),
    (re.compile(r"(encoder|decoder)\.mid\.block_2"), "{0}.mid_block.resnets.1"),
    (re.compile(r"(encoder|decoder)\.norm_out"), "{0}.conv_norm_out"),
)
_KL_LEVEL = re.compile(r"encoder\.down\.(\d+)\.")
_KL_RES_BLOCK = {"nin_shortcut": "conv_shortcut"}
_KL_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}

# -- CLIP's text tower

_CLIP_ENDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_CLIP_VISION_ENDS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "proj": "visual_projection.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_CLIP_RESBLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_CLIP_IN_PROJ = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
_CLIP_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
# transformers dropped this level from its own names in 5.6 and reads it still; older versions need it.
CLIP_PREFIX = "text_model."
PROJECTION = "text_projection"  # a matrix in open_clip, the transposed weight of a linear layer in transformers
BUFFERS = ("position_ids", "logit_scale", "attn_mask")  # last parts of names that are no weights of a text tower


def unet_names(names: Iterable[str]) -> dict[str, str]:
    """A U-Net's names in the original layout -> diffusers'; KeyError for a name that has no place there."""
    names = list(names)
    # The first downsampling ends the first level; blocks a level are those before it.
    period = min((int(found[1]) for n in names if (found := _UNET_DOWN.fullmatch(n))), default=len(names))
    out = _bijection(names, lambda name: _unet_key(name, period))
    # SDXL has no attention at its finest level, and adds the vector; unCLIP's models and the x4 upscaler have it.
    if any(n.startswith("input_blocks.1.1.") for n in names):
        return {ours: re.sub(r"^add_embedding\.", "class_embedding.", theirs) for ours, theirs in out.items()}
    return out


def _unet_key(name: str, period: int) -> str:
    for pattern, template in _UNET_PLACES:
        if found := pattern.match(name):
            # Input block 0 is the first convolution; the levels begin after it.
            i = int(found[1]) - name.startswith("input_blocks") if found.groups() else 0
            return template.format(b=i // period, l=i % period) + _inner(name[found.end() :], _UNET_RES_BLOCK)
    raise KeyError(name)


def kl_names(names: Iterable[str]) -> dict[str, str]:
    """A KL autoencoder's names in the original layout -> diffusers'."""
    names = list(names)
    levels = 1 + max((int(found[1]) for n in names if (found := _KL_LEVEL.match(n))), default=0)
    return _bijection(names, lambda name: _kl_key(name, levels))


def _kl_key(name: str, levels: int) -> str:
    for pattern, template in _KL_PLACES:
        if found := pattern.match(name):
            run_order = levels - 1 - int(found[1]) if name.startswith("decoder.up") else None
            where = template.format(*found.groups(), reversed=run_order)
            return where + _inner(name[found.end() :], _KL_ATTENTION if ".attn" in found[0] else _KL_RES_BLOCK)
    return name  # conv_in, conv_out, quant_conv, post_quant_conv


def tower_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """A text tower's names in open_clip's layout -> transformers' without `CLIP_PREFIX`; a fused q, k, v is three.

    The projection is left out, which stands outside the tower; so are buffers. KeyError for any other name.
    """
    return {n: tower_sources(n) for n in names if n != PROJECTION and n.rpartition(".")[2] not in BUFFERS}


def tower_sources(name: str) -> tuple[str, ...]:
    """The names, without `CLIP_PREFIX`, under which transformers' CLIP text models have a tensor of open_clip's."""
    if name in _CLIP_ENDS:
        return (_CLIP_ENDS[name],)
    if name == PROJECTION:
        return (f"{PROJECTION}.weight",)
    if found := _CLIP_IN_PROJ.fullmatch(name):
        return tuple(f"encoder.layers.{found[1]}.self_attn.{letter}_proj.{found[2]}" for letter in "qkv")
    if (found := _CLIP_RESBLOCK.fullmatch(name)) and found[2] in _CLIP_BLOCK:
        return (f"encoder.layers.{found[1]}.{_CLIP_BLOCK[found[2]]}.{found[3]}",)
    raise KeyError(name)


def open_clip_names(names: Iterable[str]) -> dict[str, str]:
    """A text tower's names in transformers' layout, with or without `CLIP_PREFIX` -> open_clip's; three give one."""
    ends = {theirs: ours for ours, theirs in _CLIP_ENDS.items()} | {f"{PROJECTION}.weight": PROJECTION}
    inner = {theirs: ours for ours, theirs in _CLIP_BLOCK.items()}
    out: dict[str, str] = {}
    for name in names:
        bare = name.removeprefix(CLIP_PREFIX)
        found = _CLIP_LAYER.fullmatch(bare)
        if bare in ends:
            out[name] = ends[bare]
        elif bare.rpartition(".")[2] in BUFFERS:
            continue
        elif found and found[2] in inner:
            out[name] = f"transformer.resblocks.{found[1]}.{inner[found[2]]}.{found[3]}"
        elif found and re.fullmatch(r"self_attn\.[qkv]_proj", found[2]):
            out[name] = f"transformer.resblocks.{found[1]}.attn.in_proj_{found[3]}"
        else:
            raise KeyError(name)
    return out


def kl_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A KL autoencoder's tensors by diffusers' names: attention's 1x1 convolutions become linear layers."""
    out = {theirs: state[ours] for ours, theirs in kl_names(state).items()}
    return {n: t[:, :, 0, 0] if ".attentions." in n and t.ndim == 4 else t for n, t in out.items()}


def unet_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A U-Net's tensors by diffusers' names."""
    return {theirs: state[ours] for ours, theirs in unet_names(state).items()}


def clip_text_tensors(state: Mapping[str, Tensor], *, layers: int) -> dict[str, Tensor]:
    """The tensors of CLIP's text tower by transformers' `CLIPTextModel` names.

    The first `layers` blocks are taken: a model whose second last states are read doesn't need the last. The
    projection of the pooled state isn't part of that class and is left out.
    """
    out: dict[str, Tensor] = {}
    for ours, theirs in tower_names(state).items():
        for name, part in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
            if not ((found := _CLIP_LAYER.match(name)) and int(found[1]) >= layers):
                out[CLIP_PREFIX + name] = part
    return out


def clip_vision_sources(name: str) -> tuple[str, ...]:
    """The names, without `vision_model.`, under which transformers have a tensor of a module with CLIP's image tower.

    What stands beside the tower keeps its name.
    """
    bare = name.removeprefix("visual.")
    if bare in _CLIP_VISION_ENDS:
        return (_CLIP_VISION_ENDS[bare],)
    return tower_sources(bare) if bare.startswith("transformer.") else (bare,)


def taesd_key(name: str) -> str:
    """diffusers' name of a tensor of TAESD: its decoder has no place for the clamp in front."""
    side, number, rest = name.split(".", 2)
    return f"{side}.layers.{int(number) - (side == 'decoder')}.{rest}"


def _inner(rest: str, table: Mapping[str, str]) -> str:
    """`.in_layers.0.weight` -> `.norm1.weight`; what the table doesn't name stays."""
    stem, _, leaf = rest.rpartition(".")
    return f".{table[stem[1:]]}.{leaf}" if stem[1:] in table else rest


def _bijection(names: Iterable[str], rename: Callable[[str], str]) -> dict[str, str]:
    out = {name: rename(name) for name in names}
    assert len(set(out.values())) == len(out), "two tensors would get one name"
    return out
