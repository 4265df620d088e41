"""A part's tensors by zoo's names: from the original layout by a prefix, from diffusers' and transformers' by a table.

The tables are `zoo.families.diffusers.layout`'s, read backwards. A tensor of the part that no table names is passed on
under its own name, so that the strict loader refuses it; only the buffers listed here are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from zoo.families.diffusers.layout import clip_vision_sources, kl_names, taesd_key, tower_sources, unet_names
from zoo.families.stable_diffusion.original_names import today
from zoo.schema.advice import option
from zoo.schema.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.families.stable_diffusion.containers import Container

Layout = Literal["original", "ema", "diffusers", "transformers", "open-clip", "taesd"]
AVERAGE = "model_ema."
AVERAGED = "model_ema.diffusion_model"  # and the name without its dots
# Buffers, counters, a contrastive model's temperature, an autoencoder's loss: nothing that these networks read.
BUFFERS = re.compile(
    r"(.*\.)?(position_ids|attn_mask|logit_scale|logit_bias)|betas|alphas_cumprod(_prev)?|sqrt_.*|posterior_.*|"
    r"log_one_minus_alphas_cumprod|logvar|lvlb_weights|model_ema\.(decay|num_updates)|scale_factor|"
    r"ddim_.*|denoiser\.sigmas|v_pred|ztsnr|loss\..*"
)
PROJECTIONS = (("text_projection.weight",), ("visual_projection.weight",))  # matrices in CLIP's own layout


def sources(module: nn.Module, own: Iterable[str], kind: str, layout: Layout) -> dict[str, tuple[str, ...]]:
    """Each of a module's own tensors -> the name under which a file has it, of a fused projection the three names."""
    own = list(own)
    if kind == "image" and layout == "open-clip":  # beside the tower, what whitens embeddings, which stays as it is
        return {name: (name.removeprefix("visual."),) for name in own}
    if kind == "image":
        return {name: clip_vision_sources(name) for name in own}
    if kind == "tiny" and layout == "diffusers":
        return {name: (taesd_key(name),) for name in own}
    if layout in ("original", "open-clip", "taesd"):
        return {name: (name,) for name in own}
    if layout == "ema":
        return {name: (name.replace(".", ""),) for name in own}
    if kind == "network":
        return {ours: (known(theirs, kind, layout),) for ours, theirs in unet_names(own).items()}
    if kind == "autoencoder":
        return {ours: (theirs,) for ours, theirs in kl_names(own).items()}
    return {name: tower_sources(name) for name in own}


def gather(module: nn.Module, kind: str, layout: Layout, container: Container, prefix: str) -> dict[str, Tensor]:
    """The tensors of a part, by zoo's names; those that no name of the module's stands for keep their own."""
    import torch

    there = {known(name.removeprefix(prefix), kind, layout): name for name in container.shapes if of(name, prefix)}
    own = module.state_dict()
    wanted = sources(module, own, kind, layout)
    used = {name for names in wanted.values() for name in names}
    read = container.tensors(list(there.values()))
    found = {name: read[at] for name, at in there.items() if name not in used}  # refused by the loader
    for ours, names in wanted.items():
        if not all(name in there for name in names):
            if kind == "image" and ours in ("mean", "std"):  # of embeddings that need no whitening
                found[ours] = torch.full_like(own[ours], float(ours == "std"), device="cpu")
            continue  # missing, which the loader reports
        parts = [read[there[name]] for name in names]
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        found[ours] = _reshaped(tensor, own[ours], transposed=names in PROJECTIONS)
    return found


def of(name: str, prefix: str) -> bool:
    """Whether a tensor belongs to the part with this prefix."""
    return name.startswith(prefix) and not BUFFERS.fullmatch(name.removeprefix(prefix)) and not BUFFERS.fullmatch(name)


def known(name: str, kind: str, layout: Layout) -> str:
    """A name as today's versions of diffusers and transformers write it."""
    if layout == "transformers":
        while name.startswith(("text_model.", "vision_model.")):  # twice, in a safety checker
            name = name.partition(".")[2]
        return name
    if layout == "diffusers" and kind == "autoencoder":
        return today(name)
    if layout == "diffusers" and kind == "network":
        return re.sub(r"^class_embedding\.linear_", "add_embedding.linear_", name)  # Stable unCLIP's vector
    return name


def ema_whole(names: Iterable[str], prefix: str) -> bool:
    """Whether a file holds a moving average of the network under `prefix`; WeightsError where it isn't whole."""
    listed = set(names)
    held = [name for name in listed if name.startswith(AVERAGED)]
    if not held:
        return False
    plain = [name.removeprefix(prefix) for name in listed if of(name, prefix)]
    missing = next((name for name in sorted(plain) if AVERAGED + name.replace(".", "") not in listed), None)
    if missing is not None:
        raise WeightsError(
            f"this checkpoint's averaged weights are not whole: '{missing}' is missing among them; get the file again, "
            f"or say {option('copy', 'plain')}",
            code="average-unfit",
        )
    return True


def _reshaped(tensor: Tensor, own: Tensor, *, transposed: bool) -> Tensor:
    """The few tensors that layouts store in another form: 1x1 convolutions as matrices, a projection transposed."""
    if transposed:
        return tensor.T.contiguous()
    if tensor.ndim + 2 == own.ndim and tuple(own.shape[tensor.ndim :]) == (1, 1):
        return tensor[..., None, None]
    if tensor.ndim == own.ndim + 2 and tuple(tensor.shape[2:]) == (1, 1):
        return tensor[..., 0, 0]
    return tensor


def shapes_of(container: Container, prefix: str, kind: str, layout: Layout) -> Mapping[str, tuple[int, ...]]:
    """A part's shapes, by its names without the prefix."""
    found = {name.removeprefix(prefix): shape for name, shape in container.shapes.items() if of(name, prefix)}
    return {known(name, kind, layout): shape for name, shape in found.items()}
