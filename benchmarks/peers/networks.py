"""diffusers' networks with zoo's weights, on the device: the very tensors under other names, nothing is copied.

Text encoders stay out: a `stand-in` conditions both libraries on the same tokens (and SDXL on the same pooled vector).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.autoencoders.kl import AutoencoderKL
from zoo.families.diffusers.config import blocks_of, kl_config, scheduler_config, unet_config
from zoo.families.diffusers.layout import kl_tensors, unet_tensors
from zoo.families.diffusers.unconditional import unconditional_config, unconditional_tensors
from zoo.networks.blocks import timestep_embedding
from zoo.networks.transformer import SpatialTransformer
from zoo.networks.unet import UNet
from zoo.pipeline.stage import Stage
from zoo.schema.errors import ConfigError

SIZES = 6  # SDXL is conditioned on original size, crop and target size, two numbers each (Podell et al. 2023, 2.2)


def quiet() -> None:
    """Import diffusers without its output on the terminal."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()


def network_of(stage: Stage) -> Any:
    """The stage's U-Net as diffusers' `UNet2DModel` or `UNet2DConditionModel`, in its own memory."""
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = stage.denoiser.network
    if not isinstance(unet, UNet):
        raise ConfigError(
            f"diffusers has no {type(unet).__name__}; only a 'unet' has an equal there", code="export-unfit"
        )
    side = stage.size // stage.autoencoder.factor
    if "context" not in unet.reads:
        return _with(UNet2DModel, unconditional_config(unet, sample_size=side), unconditional_tensors(unet))
    config = unet_config(unet, sample_size=side)
    tensors, vector = unet_tensors(unet.state_dict()), unet.state_dict().get("label_emb.0.0.weight")
    depths = _depths(unet)
    if len(set(depths)) > 1:
        config["transformer_layers_per_block"] = depths
    if vector is not None:
        width = vector.shape[1]
        config |= {
            "addition_embed_type": "text_time", "addition_time_embed_dim": size_width(width),
            "projection_class_embeddings_input_dim": width,
        }  # fmt: skip
        tensors = {name.replace("class_embedding.", "add_embedding."): t for name, t in tensors.items()}
    return _with(UNet2DConditionModel, config, tensors)


def autoencoder_of(autoencoder: AutoencoderKL) -> Any:
    """diffusers' `AutoencoderKL` in the memory of zoo's."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Theirs

    if autoencoder.shift:
        raise ConfigError(
            "an autoencoder with a shift is not compared in place; export its pipeline", code="export-unfit"
        )
    tensors = kl_tensors(autoencoder.state_dict())
    return _with(Theirs, kl_config(autoencoder), tensors)


def scheduler_of(stage: Stage) -> Any:
    """diffusers' `DDIMScheduler` on the stage's schedule."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler.from_config(scheduler_config(stage))


def _with(kind: Any, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    with torch.device("meta"):
        made = kind.from_config(dict(config))
    made.load_state_dict(dict(tensors), strict=True, assign=True)
    return made.eval().requires_grad_(False)


def _depths(unet: UNet) -> list[int]:
    """Transformer blocks of each level; for a level without attention any number does, which diffusers requires."""
    period = blocks_of(unet) + 1
    rows: list[Any] = list(unet.input_blocks)[1:]
    found = []
    for i in range(0, len(rows), period):
        inside = [m for block in rows[i : i + period] for m in block if isinstance(m, SpatialTransformer)]
        found.append(len(inside[0].transformer_blocks) if inside else 1)
    return found


def size_width(vector_width: int) -> int:
    """Channels that each of the six size numbers is embedded in: SDXL's 256, of a vector of 2816 = 1280 + 6 * 256."""
    return vector_width // 11  # its pooled text has five times as many


def pooled_and_sizes(vector: Tensor, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """SDXL's vector made as its pipeline makes it: (vector (B, D), what diffusers is given for it).

    Args:
        vector: the stand-in's, whose first part is the pooled text. size: pixels a side, given for all sizes.
    """
    batch, width = vector.shape
    channels = size_width(width)
    pooled = vector[:, : width - SIZES * channels]
    sizes = torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32, device=vector.device)
    embedded = timestep_embedding(sizes.flatten(), channels).reshape(1, -1).expand(batch, -1)
    made = torch.cat([pooled.float(), embedded], dim=1)
    return made, {"text_embeds": pooled, "time_ids": sizes.expand(batch, -1)}


def laid_out(network: nn.Module) -> tuple[Any, list[str]]:
    """A copy as diffusers' guide to speed has it, before torch.compile: channels last, fused projections; and notes."""
    made: Any = copy.deepcopy(network)
    notes = []
    if hasattr(made, "fuse_qkv_projections"):
        made.fuse_qkv_projections()
    else:
        notes.append(f"diffusers has no fused projections for {type(network).__name__}")
    return made.to(memory_format=torch.channels_last), notes
