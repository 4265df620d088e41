"""Original checkpoints of Stable Diffusion 2 and SDXL in small, and what diffusers' own conversion makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
from diffusers.loaders import single_file_utils as conversion
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.families.original import UNET, UNET_KEY, VAE, VAE_KEY, drawn, key_list, prefixed, scaled
from tests.families.written import SD_SCHEDULE, TEXT, XL_TEXT_2, tokenizer

XL_CLIP_L, XL_BIG_G, SD2_CLIP = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model.", (
    "cond_stage_model.model."
)  # fmt: skip
XL_UNET = {
    **UNET, "block_out_channels": (64, 128, 256), "cross_attention_dim": 192, "attention_head_dim": (1, 2, 4),
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2, "use_linear_projection": True,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), "transformer_layers_per_block": (1, 2, 2),
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 128 + 6 * 256,
}  # fmt: skip
SD2_UNET = {
    **UNET, "block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 128, "attention_head_dim": (1, 2, 4, 4),
    "use_linear_projection": True,
}  # fmt: skip


def open_clip(prefix: str, *, layers: int, seed: int, width: int = 128) -> dict[str, Tensor]:
    """open_clip's text tower under a prefix, and a temperature that nobody reads."""
    with torch.device("meta"):
        tower = TextTransformer(width=width, heads=width // 64, layers=layers, output_dim=width)
    made = drawn({name: tuple(t.shape) for name, t in tower.state_dict().items()}, seed)
    norms = {n: t + 1.0 for n, t in made.items() if re.search(r"ln_\w+\.weight$", n)}
    return prefixed({**made, **norms}, prefix) | {f"{prefix}logit_scale": torch.tensor(4.6)}


def autoencoder() -> dict[str, Tensor]:
    shapes = scaled(key_list("autoencoder_kl", "original/kl-f8"), by=4, of=128, fixed={})
    return prefixed(drawn(shapes, 2), VAE_KEY)


def stable_diffusion_2(unet: str = "v2-inference") -> dict[str, Tensor]:
    """A whole Stable Diffusion 2 checkpoint's tensors, with the U-Net of a published configuration."""
    shapes = scaled(key_list("sd2_unet", f"sd2_unet/{unet}"), by=5, of=320, fixed={1024: 128})
    return prefixed(drawn(shapes, 1), UNET_KEY) | autoencoder() | open_clip(SD2_CLIP, layers=4, seed=3)


def two_blocks(listed: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A U-Net's key list with transformers of two blocks at the most."""
    return {n: s for n, s in listed.items() if not re.search(r"transformer_blocks\.[2-9]\.", n)}


def sdxl(channels: int = 4) -> dict[str, Tensor]:
    """A whole SDXL base's tensors, with transformers of two blocks in place of ten; 9 channels: for inpainting."""
    shapes = scaled(
        two_blocks(key_list("sdxl_unet", "sdxl_unet/sd_xl_base")), by=5, of=320, fixed={2048: 192, 2816: 128 + 6 * 256}
    )
    shapes["input_blocks.0.0.weight"] = (64, channels, 3, 3)
    text = scaled(key_list("stable_diffusion", "transformers/clip-text"), by=12, of=768, fixed={49408: 49408})
    clips = prefixed(drawn(text, 3), XL_CLIP_L) | open_clip(XL_BIG_G, layers=3, seed=4)
    return prefixed(drawn(shapes, 1), UNET_KEY) | autoencoder() | clips


def loaded(module: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
    """transformers' names have `text_model.` in front or not, by its version and class."""
    own = module.state_dict()
    named = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix("text_model.")
        named[bare if bare in own else f"text_model.{bare}"] = tensor
    module.load_state_dict({n: t for n, t in named.items() if "position_ids" not in n and "logit_scale" not in n})
    return module.eval()


def converted_networks(
    state: Mapping[str, Tensor], unet: Mapping[str, Any], scale: float, vae: Mapping[str, Any] = VAE
) -> dict[str, Any]:
    """diffusers' U-Net and autoencoder of a checkpoint, by diffusers' own conversion."""
    network = UNet2DConditionModel(**unet)
    network.load_state_dict(conversion.convert_ldm_unet_checkpoint(dict(state), network.config))  # type: ignore[arg-type]
    kl = AutoencoderKL(**{**vae, "scaling_factor": scale})
    kl.load_state_dict(conversion.convert_ldm_vae_checkpoint(dict(state), kl.config))  # type: ignore[arg-type]
    return {"unet": network.eval(), "vae": kl.eval()}


def converted_text_2(state: Mapping[str, Tensor], width: int = 128) -> dict[str, Any]:
    """transformers' text model of a Stable Diffusion 2 checkpoint, which is a layer shorter, and its tokenizer."""
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    text = CLIPTextModel(CLIPTextConfig(**{**XL_TEXT_2, **sizes, "num_hidden_layers": 3}))
    held = {n: t for n, t in state.items() if ".resblocks.3." not in n and "text_projection" not in n}
    # Without a projection its conversion takes the config's width for the queries', keys' and values' rows.
    made = loaded(text, conversion.convert_open_clip_checkpoint(text, held, prefix=SD2_CLIP))
    return {"text_encoder": made, "tokenizer": tokenizer("!")}


def quiet(pipe: Any) -> Any:
    """A pipeline without its bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def converted_2(state: Mapping[str, Tensor], prediction: str) -> StableDiffusionPipeline:
    """diffusers' pipeline of a Stable Diffusion 2 checkpoint."""
    scheduler = DDIMScheduler.from_config({**SD_SCHEDULE, "prediction_type": prediction})
    return quiet(StableDiffusionPipeline(
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        **converted_text_2(state), **converted_networks(state, SD2_UNET, 0.18215),
    ))  # fmt: skip


def converted_big_g(state: Mapping[str, Tensor], prefix: str) -> Any:
    """transformers' second text encoder of SDXL."""
    second = CLIPTextModelWithProjection(CLIPTextConfig(**{**XL_TEXT_2, "projection_dim": 128}))
    return _projected(second, conversion.convert_open_clip_checkpoint(second, dict(state), prefix=prefix))


def converted_xl(state: Mapping[str, Tensor], kind: Any = StableDiffusionXLPipeline, **unet: Any) -> Any:
    """diffusers' pipeline of an SDXL base checkpoint."""
    first = CLIPTextModel(CLIPTextConfig(**{**TEXT, "num_hidden_layers": 12}))
    return quiet(kind(
        text_encoder=loaded(first, conversion.convert_ldm_clip_checkpoint(dict(state))), tokenizer=tokenizer(),
        text_encoder_2=converted_big_g(state, XL_BIG_G), tokenizer_2=tokenizer("!"), add_watermarker=False,
        scheduler=EulerDiscreteScheduler.from_config(SD_SCHEDULE),
        **converted_networks(state, {**XL_UNET, **unet}, 0.13025),
    ))  # fmt: skip


def _projected(module: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
    own = module.state_dict()
    named = {n if n in own else f"text_model.{n.removeprefix('text_model.')}": t for n, t in tensors.items()}
    module.load_state_dict({n: t for n, t in named.items() if n in own or "logit_scale" not in n})
    return module.eval()
