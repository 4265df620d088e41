"""Tiny Stable Diffusion pipelines with random weights, written to folders by diffusers and transformers themselves."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from open_clip.tokenizer import SimpleTokenizer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SD_SCHEDULE = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000,
    "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}  # fmt: skip
UNET = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (64, 128), "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 64, "attention_head_dim": 8,
}  # fmt: skip
VAE = {
    "block_out_channels": (32, 32, 64), "layers_per_block": 1, "latent_channels": 4, "sample_size": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
    "scaling_factor": 0.18215,
}  # fmt: skip
TEXT = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 1,
    "hidden_act": "quick_gelu", "projection_dim": 64, "vocab_size": 49408, "max_position_embeddings": 77,
    "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
}  # fmt: skip


def randomise(module: nn.Module, seed: int, *, out: float = 1.0) -> Any:
    """Every parameter drawn, so that no layer that starts at zero or one hides; `out` scales the last layer."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        if "embedding" in name and parameter.ndim == 2 and "linear" not in name:
            parameter.data = 0.3 * draw
        elif parameter.ndim > 1:
            parameter.data = draw * parameter[0].numel() ** -0.5
        else:
            parameter.data = 0.1 * draw + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        if "attn2.to_out" in name or ".mlp." in name:  # so that the text shows
            parameter.data *= 3.0
        if "conv_out" in name:
            parameter.data *= out
    return module.eval()


@cache
def tokenizer_folder() -> Path:
    """CLIP's vocabulary as transformers reads it, from the package open_clip."""
    own = SimpleTokenizer()
    named = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    folder = Path(mkdtemp())
    ids = {named.get(token, token): i for token, i in own.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in own.bpe_ranks)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    return folder


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's, padding as Stable Diffusion 1's does (or with `!`, token 0)."""
    return CLIPTokenizer.from_pretrained(tokenizer_folder(), model_max_length=77, pad_token=pad)


def stable_diffusion(
    *, scheduler: Any = DDIMScheduler, settings: dict[str, Any] | None = None, unet: dict[str, Any] | None = None,
    vae: dict[str, Any] | None = None, text: dict[str, Any] | None = None, pad: str = "<|endoftext|>",
    kind: Any = StableDiffusionPipeline,
) -> Any:  # fmt: skip
    """diffusers' own pipeline, of the shape of Stable Diffusion 1 or 2 in small."""
    pipe = kind(
        vae=randomise(AutoencoderKL(**{**VAE, **(vae or {})}), 2, out=0.5),
        text_encoder=randomise(CLIPTextModel(CLIPTextConfig(**{**TEXT, **(text or {})})), 3),
        tokenizer=tokenizer(pad), unet=randomise(UNet2DConditionModel(**{**UNET, **(unet or {})}), 1),
        scheduler=scheduler.from_config({**SD_SCHEDULE, **(settings or {})}), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


XL_UNET = {
    **UNET, "cross_attention_dim": 64 + 128, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 64 + 6 * 256, "use_linear_projection": True, "attention_head_dim": (1, 2),
    "transformer_layers_per_block": (1, 2), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
XL_TEXT_2 = {**TEXT, "hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "hidden_act": "gelu"}


def stable_diffusion_xl(
    *, scheduler: Any = EulerDiscreteScheduler, settings: dict[str, Any] | None = None,
    unet: dict[str, Any] | None = None, zeros: bool = True, first: bool = True, kind: Any = StableDiffusionXLPipeline,
    **more: Any,
) -> Any:  # fmt: skip
    """diffusers' own pipeline, of the shape of SDXL's base in small; of its refiner without the `first` encoder."""
    pipe = kind(
        vae=randomise(AutoencoderKL(**{**VAE, "scaling_factor": 0.13025}), 2, out=0.5),
        text_encoder=randomise(CLIPTextModel(CLIPTextConfig(**TEXT)), 3) if first else None,
        text_encoder_2=randomise(CLIPTextModelWithProjection(CLIPTextConfig(**XL_TEXT_2)), 4),
        tokenizer=tokenizer() if first else None, tokenizer_2=tokenizer("!"),
        unet=randomise(UNet2DConditionModel(**{**XL_UNET, **(unet or {})}), 1),
        scheduler=scheduler.from_config({**SD_SCHEDULE, **(settings or {})}), force_zeros_for_empty_prompt=zeros,
        add_watermarker=False, **more,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


# Of what is called the same: far within one grey level, so that a switch which moves an image by less than one shows.
SAME = 0.05


def grey_levels(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two images in [0, 1], in 255ths and before they are rounded to eight bits."""
    return float((one - other).abs().max()) * 255
