"""Tensors of a diffusers file by the names of zoo's module: `.layout` read backwards.

The tables of `.layout` are one-to-one, so the module's own names say where each tensor lies; what is left over keeps
its name, and is refused when the tensors are put in place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zoo.autoencoders.kl import AutoencoderKL
from zoo.conditioners.clip_text import ClipText
from zoo.families.diffusers import layout
from zoo.families.diffusers.config import blocks_of
from zoo.networks.unet import UNet
from zoo.schema.errors import WeightsError


def own_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors by the names of `module`, in its shapes; what is missing stays missing.

    module: a `UNet`, an `AutoencoderKL` or a `ClipText`; it may be on the meta device.
    """
    own = module.state_dict()
    if isinstance(module, UNet):
        return _renamed(tensors, layout.unet_keys(own, blocks=blocks_of(module)))
    if isinstance(module, AutoencoderKL):
        found = _renamed(tensors, layout.kl_keys(own, levels=len(module.encoder.down)))
        # Attention's linear layers are 1x1 convolutions here.
        return {n: t[..., None, None] if t.ndim == 2 and n in own and own[n].ndim == 4 else t for n, t in found.items()}
    if isinstance(module, ClipText):
        return _text(module, tensors)
    raise WeightsError(
        f"diffusers' names are known of 'unet', 'kl' and 'clip-text', not of {type(module).__name__}",
        code="layout-wrong",
    )


def _renamed(tensors: Mapping[str, Tensor], theirs: Mapping[str, str]) -> dict[str, Tensor]:
    back = {their: our for our, their in theirs.items()}
    return {back.get(name, name): tensor for name, tensor in tensors.items()}


def _text(text: ClipText, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `layout.clip_text_tensors`, backwards. `CLIPTextModel` has no projection: an identity stands there."""
    prefix = layout.CLIP_PREFIX
    # transformers writes the prefix or leaves it out, by its version; position_ids is a count that old files hold.
    given = {n.removeprefix(prefix): t for n, t in tensors.items() if not n.endswith("position_ids")}
    assert text.embed_dim is not None
    out: dict[str, Tensor] = {"text_projection": torch.eye(text.width, text.embed_dim)}
    for ours, theirs in layout.clip_text_keys(text.state_dict()).items():
        parts = [given.pop(name, None) for name in theirs]
        whole = [part for part in parts if part is not None]
        if len(whole) == len(theirs):
            out[ours] = torch.cat(whole) if len(whole) > 1 else whole[0]
    return out | given
