"""Names of Stable Diffusion's parts in the original files and in diffusers', as bijections of names alone.

The tables are `zoo.families.diffusers.layout`'s; what those leave to a network's arguments (blocks a level, levels,
where a vector goes in) is read off the names. Nothing here needs torch or a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from zoo.families.diffusers.layout import CLIP_PREFIX, kl_keys, unet_keys

Shape = tuple[int, ...]

_VECTOR = "label_emb."
_DOWN = re.compile(r"input_blocks\.(\d+)\.0\.op\.weight")
_LEVEL = re.compile(r"encoder\.down\.(\d+)\.")
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
# open_clip's names -> transformers', outside and inside a layer.
TOWER_ENDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
TOWER_LAYER = {
    f"{theirs}.{leaf}": f"{ours}.{leaf}"
    for theirs, ours in {
        "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }.items()
    for leaf in ("weight", "bias")
}  # fmt: skip
PROJECTION = "text_projection"  # a matrix in open_clip, the transposed weight of a linear layer in transformers
BUFFERS = ("position_ids", "logit_scale", "attn_mask")  # last parts of names that are no weights of a text tower


def unet_names(names: Iterable[str]) -> dict[str, str]:
    """A U-Net's names in the original layout -> diffusers'; KeyError for a name that has no place there."""
    names = list(names)
    first = min((int(found[1]) for n in names if (found := _DOWN.fullmatch(n))), default=len(names))
    plain = unet_keys([n for n in names if not n.startswith(_VECTOR)], blocks=first - 1)
    # SDXL has no attention at its finest level, and adds the vector; unCLIP's models and the x4 upscaler have it.
    target = "class_embedding" if any(n.startswith("input_blocks.1.1.") for n in names) else "add_embedding"
    for name in names:
        if name.startswith(_VECTOR):
            rest = name.removeprefix(_VECTOR)
            number, _, leaf = rest.removeprefix("0.").partition(".")
            if rest == "weight":  # a table of classes or noise levels
                plain[name] = "class_embedding.weight"
            elif number in ("0", "2") and leaf in ("weight", "bias"):
                plain[name] = f"{target}.linear_{1 + int(number) // 2}.{leaf}"
            else:
                raise KeyError(name)
    return plain


def kl_names(names: Iterable[str]) -> dict[str, str]:
    """A KL autoencoder's names in the original layout -> diffusers'."""
    names = list(names)
    levels = 1 + max((int(found[1]) for n in names if (found := _LEVEL.match(n))), default=0)
    return kl_keys(names, levels=levels)


def tower_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """A text tower's names in open_clip's layout -> transformers' without `text_model.`; a fused q, k, v is three.

    The projection is left out, which stands outside the tower; so are buffers. KeyError for any other name.
    """
    out: dict[str, tuple[str, ...]] = {}
    for name in names:
        if name in TOWER_ENDS:
            out[name] = (TOWER_ENDS[name],)
        elif name == PROJECTION or name.rpartition(".")[2] in BUFFERS:
            continue
        elif (found := _BLOCK.fullmatch(name)) is None:
            raise KeyError(name)
        elif found[2] in TOWER_LAYER:
            out[name] = (f"encoder.layers.{found[1]}.{TOWER_LAYER[found[2]]}",)
        elif found[2] in ("attn.in_proj_weight", "attn.in_proj_bias"):
            leaf = found[2].rpartition("_")[2]
            out[name] = tuple(f"encoder.layers.{found[1]}.self_attn.{p}_proj.{leaf}" for p in "qkv")
        else:
            raise KeyError(name)
    return out


def open_clip_names(names: Iterable[str]) -> dict[str, str]:
    """A text tower's names in transformers' layout, with or without `text_model.` -> open_clip's; three give one."""
    ends = {theirs: ours for ours, theirs in TOWER_ENDS.items()}
    inner = {theirs: ours for ours, theirs in TOWER_LAYER.items()}
    out: dict[str, str] = {}
    for name in names:
        bare = name.removeprefix(CLIP_PREFIX)
        found = _LAYER.fullmatch(bare)
        if bare == f"{PROJECTION}.weight":
            out[name] = PROJECTION
        elif bare in ends:
            out[name] = ends[bare]
        elif bare.rpartition(".")[2] in BUFFERS:
            continue
        elif found is not None and found[2] in inner:
            out[name] = f"transformer.resblocks.{found[1]}.{inner[found[2]]}"
        elif found is not None and re.fullmatch(r"self_attn\.[qkv]_proj\.(weight|bias)", found[2]):
            out[name] = f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2].rpartition('.')[2]}"
        else:
            raise KeyError(name)
    return out


def open_clip_shapes(tower: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes of a text tower in transformers' layout -> those of open_clip's, with its scale of similarities."""
    out: dict[str, Shape] = {}
    for name, ours in open_clip_names(tower).items():
        shape = tower[name]
        if ours in out:
            out[ours] = (out[ours][0] + shape[0], *shape[1:])
        else:
            out[ours] = shape
    return out
