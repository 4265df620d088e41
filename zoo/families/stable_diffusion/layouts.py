"""Each part's tensors in the other layout, as copies of bytes: names by diffusers' `layout`, shapes of a few.

A 1x1 convolution of an autoencoder's attention is a matrix in diffusers. open_clip's fused q, k, v are three layers in
transformers, and its projection is turned. WeightsError names a tensor that has no place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from zoo.checkpoints.headers import TensorEntry
from zoo.checkpoints.writing import Copied, joined, third, turned, whole
from zoo.families.diffusers.layout import (
    BUFFERS,
    CLIP_PREFIX,
    PROJECTION,
    kl_names,
    open_clip_names,
    tower_names,
    unet_names,
)
from zoo.families.stable_diffusion.original_names import original_kl_names, original_unet_names
from zoo.schema.errors import WeightsError

UNET, VAE = "model.diffusion_model.", "first_stage_model."
AVERAGED = "model_ema.diffusion_model"  # and the name without its dots
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.")
_T = TypeVar("_T")
Tensors = Mapping[str, TensorEntry]


def unet_to_diffusers(tensors: Tensors, used: set[str], *, names: Mapping[str, str]) -> dict[str, Copied]:
    """A U-Net's; `tensors` by original names, `names` whole ones in the file, which are added to `used`."""
    theirs = _placed(unet_names, tensors, "U-Net")
    used.update(names[n] for n in tensors)
    return {theirs[n]: whole(t) for n, t in tensors.items()}


def unet_to_original(tensors: Tensors, *, averaged: bool) -> dict[str, Copied]:
    """A U-Net's, under the prefix of the plain or the averaged copy."""
    ours = _placed(original_unet_names, tensors, "U-Net")
    place = {n: AVERAGED + o.replace(".", "") if averaged else UNET + o for n, o in ours.items()}
    return {place[n]: whole(t) for n, t in tensors.items()}


def kl_to_diffusers(tensors: Tensors, prefix: str, used: set[str]) -> dict[str, Copied]:
    """A KL autoencoder's; its loss, of training, isn't one of its parts."""
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    own = {n: t for n, t in own.items() if n.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))}
    if not own:
        raise WeightsError(
            f"the file has no autoencoder under '{prefix}'; give one that has all parts", code="tensor-missing"
        )
    theirs = _placed(kl_names, own, "autoencoder")
    used.update(prefix + n for n in own)
    flat = {n: t.shape[:2] for n, t in own.items() if ".attentions." in theirs[n] and len(t.shape) == 4}
    return {theirs[n]: whole(t, flat.get(n)) for n, t in own.items()}


def kl_to_original(tensors: Tensors, prefix: str) -> dict[str, Copied]:
    """A KL autoencoder's, under its prefix."""
    ours = _placed(original_kl_names, tensors, "autoencoder")
    wide = {n: (*t.shape, 1, 1) for n, t in tensors.items() if ".attn" in ours[n] and len(t.shape) == 2}
    return {prefix + ours[n]: whole(t, wide.get(n)) for n, t in tensors.items()}


def text_to_diffusers(
    tensors: Tensors, prefix: str, used: set[str], *, drop: int, projected: bool
) -> dict[str, Copied]:
    """A text tower's by transformers' names; the last `drop` layers of open_clip's stay behind."""
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    own = {n: t for n, t in own.items() if n.rpartition(".")[2] not in BUFFERS}
    if not prefix.endswith(".model."):  # transformers' own names, with text_model. or without
        used.update(prefix + n for n in own)
        return {CLIP_PREFIX + n.removeprefix(CLIP_PREFIX): whole(t) for n, t in own.items()}
    layers = 1 + max((int(f[1]) for n in own if (f := _LAYER.match(n))), default=0) - drop
    own = {n: t for n, t in own.items() if not ((f := _LAYER.match(n)) and int(f[1]) >= layers)}
    out: dict[str, Copied] = {}
    for name, theirs in _placed(tower_names, own, "text encoder").items():
        for part, one in enumerate(theirs):
            out[CLIP_PREFIX + one] = whole(own[name]) if len(theirs) == 1 else third(own[name], part)
        used.add(prefix + name)
    if projected:
        if PROJECTION not in own:
            raise WeightsError(
                f"the text encoder under '{prefix}' has no '{PROJECTION}'; get the file again", code="tensor-missing"
            )
        out[f"{PROJECTION}.weight"] = turned(own[PROJECTION])
        used.add(prefix + PROJECTION)
    return out


def text_to_original(tensors: Tensors, prefix: str, *, projected: bool) -> dict[str, Copied]:
    """A text tower's under its prefix, by open_clip's names where the file has those."""
    own = {n: t for n, t in tensors.items() if n.rpartition(".")[2] not in BUFFERS}
    if not prefix.endswith(".model."):
        return {prefix + CLIP_PREFIX + n.removeprefix(CLIP_PREFIX): whole(t) for n, t in own.items()}
    ours = _placed(open_clip_names, own, "text encoder")
    out: dict[str, Copied] = {}
    fused: dict[str, dict[str, TensorEntry]] = {}
    for name, place in ours.items():
        found = re.search(r"self_attn\.([qkv])_proj\.", name)
        if found:
            fused.setdefault(place, {})[found[1]] = own[name]
        else:
            out[prefix + place] = turned(own[name]) if place == PROJECTION else whole(own[name])
    for place, three in fused.items():
        if three.keys() != set("qkv"):
            raise WeightsError(
                f"the text encoder has {', '.join(three)} of q, k and v in '{place}'; get it again",
                code="tensor-missing",
            )
        out[prefix + place] = joined([three[letter] for letter in "qkv"])
    return out


def _placed(rename: Callable[[Iterable[str]], dict[str, _T]], names: Iterable[str], what: str) -> dict[str, _T]:
    try:
        odd = next((n for n in names if n != PROJECTION and not n.endswith(("weight", "bias", "embedding"))), None)
        if odd is not None:
            raise KeyError(odd)
        return rename(names)
    except KeyError as error:
        raise WeightsError(
            f"the {what}'s tensor {str(error)[:100]} has no place in the other layout; `zoo explain` says what differs "
            "from the published one",
            code="layout-wrong",
        ) from error
