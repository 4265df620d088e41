"""Checkpoints in the original layout, in small: the published key lists with every width scaled, and random values.

What diffusers makes of such a file is by its own conversion (`diffusers.loaders.single_file_utils`).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import single_file_utils as conversion
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from tests.families.written import SD_SCHEDULE, TEXT, tokenizer

MANIFESTS = Path(__file__).parents[1] / "golden" / "manifests"
UNET_KEY, VAE_KEY, CLIP_KEY = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
UNET = {
    "sample_size": 8, "block_out_channels": (32, 64, 128, 128), "layers_per_block": 2, "cross_attention_dim": 64,
    "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
VAE = {
    "block_out_channels": (32, 64, 128, 128), "layers_per_block": 2, "latent_channels": 4, "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


def key_list(file: str, layout: str) -> dict[str, tuple[int, ...]]:
    """A published file's names and shapes."""
    read = json.loads(gzip.decompress((MANIFESTS / f"{file}.json.gz").read_bytes()))[layout]
    return {name: tuple(shape) for name, shape in read.get("keys", read).items()}


def scaled(shapes: Mapping[str, tuple[int, ...]], *, by: int, of: int, fixed: Mapping[int, int]) -> dict[str, Any]:
    """Every multiple of `of` divided by `by`; numbers in `fixed` become what it says."""
    return {
        name: tuple(fixed.get(n, n // by if n % of == 0 else n) for n in shape) for name, shape in shapes.items()
    }  # fmt: skip


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Random tensors of these shapes, none at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        draw = torch.randn(shape, generator=generator)
        if "embedding" in name:
            found[name] = 0.3 * draw
        elif len(shape) > 1:
            found[name] = draw * draw[0].numel() ** -0.5 * (3.0 if ".attn2.to_out" in name else 1.0)
        else:
            found[name] = 0.1 * draw + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return found


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def stable_diffusion_1(*, average: bool = False, unet: str = "original/unet") -> dict[str, Tensor]:
    """A whole Stable Diffusion 1 checkpoint's tensors; with the average, as CompVis' LitEma names it."""
    shapes = scaled(key_list("stable_diffusion", unet), by=10, of=320, fixed={768: 64})
    kl = scaled(key_list("autoencoder_kl", "original/kl-f8"), by=4, of=128, fixed={})
    text = scaled(key_list("stable_diffusion", "transformers/clip-text"), by=12, of=768, fixed={49408: 49408})
    state = prefixed(drawn(shapes, 1), UNET_KEY) | prefixed(drawn(kl, 2), VAE_KEY) | prefixed(drawn(text, 3), CLIP_KEY)
    state |= {f"{CLIP_KEY}embeddings.position_ids": torch.arange(77)[None], "betas": torch.zeros(1000)}
    state |= {"alphas_cumprod": torch.zeros(1000), "model_ema.num_updates": torch.tensor(5)} if average else {}
    if average:
        averaged = drawn(shapes, 11)
        state |= {f"model_ema.diffusion_model{n.replace('.', '')}": tensor for n, tensor in averaged.items()}
    return state


def lightning(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint as PyTorch Lightning saves one."""
    return {"state_dict": dict(state), "global_step": 5, "epoch": 1, "pytorch-lightning_version": "1.4.2"}


def converted(state: Mapping[str, Tensor], *, ema: bool = False, **unet: Any) -> StableDiffusionPipeline:
    """diffusers' pipeline of a Stable Diffusion 1 checkpoint, by diffusers' own conversion."""
    network = UNet2DConditionModel(**{**UNET, **unet})
    network.load_state_dict(
        conversion.convert_ldm_unet_checkpoint(dict(state), network.config, extract_ema=ema)  # type: ignore[arg-type]
    )
    kl = AutoencoderKL(**VAE)
    kl.load_state_dict(conversion.convert_ldm_vae_checkpoint(dict(state), kl.config))  # type: ignore[arg-type]
    text = CLIPTextModel(CLIPTextConfig(**{**TEXT, "num_hidden_layers": 12}))
    held = conversion.convert_ldm_clip_checkpoint(dict(state))
    own = text.state_dict()
    named = {n if n in own else n.removeprefix("text_model."): t for n, t in held.items()}
    text.load_state_dict({n: t for n, t in named.items() if "position_ids" not in n})
    scheduler = PNDMScheduler.from_config({**SD_SCHEDULE, "skip_prk_steps": True})
    pipe = StableDiffusionPipeline(
        vae=kl.eval(), text_encoder=text.eval(), tokenizer=tokenizer(), unet=network.eval(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe
