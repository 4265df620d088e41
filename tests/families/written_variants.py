"""Tiny pipelines of the further variants with random weights, written to folders by diffusers and transformers."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionUpscalePipeline,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.families.written import SD_SCHEDULE, TEXT, UNET, VAE, randomise, tokenizer

SD2 = {"use_linear_projection": True, "attention_head_dim": (1, 2)}
VISION = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14, "projection_dim": 32, "hidden_act": "gelu",
}  # fmt: skip
X4_SCHEDULE = {**SD_SCHEDULE, "beta_start": 0.0001, "beta_end": 0.02, "prediction_type": "v_prediction"}
X4_UNET = {
    **UNET, "in_channels": 7, "block_out_channels": (64, 128, 128), "num_class_embeds": 1000, "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "use_linear_projection": True,
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "only_cross_attention": (True, True, False),
}  # fmt: skip


def _parts(unet: dict[str, Any], *, pad: str = "!", vae: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    return {
        "vae": randomise(AutoencoderKL(**{**VAE, **(vae or {})}), 2, out=0.5), "tokenizer": tokenizer(pad),
        "text_encoder": randomise(CLIPTextModel(CLIPTextConfig(**{**TEXT, **text})), 3),
        "unet": randomise(UNet2DConditionModel(**{**UNET, **unet}), 1),
    }  # fmt: skip


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def depth() -> Any:
    """Stable Diffusion 2's depth model, without the network that estimates depth."""
    return _quiet(StableDiffusionDepth2ImgPipeline(
        **_parts({**SD2, "in_channels": 5}, hidden_act="gelu"), scheduler=DDIMScheduler.from_config(SD_SCHEDULE),
        depth_estimator=None, feature_extractor=None,
    ))  # fmt: skip


def upscaler() -> Any:
    """The x4 upscaler."""
    return _quiet(StableDiffusionUpscalePipeline(
        **_parts(X4_UNET, vae={"scaling_factor": 0.08333}, hidden_act="gelu"),
        low_res_scheduler=DDPMScheduler.from_config({**X4_SCHEDULE, "prediction_type": "epsilon"}),
        scheduler=DDIMScheduler.from_config(X4_SCHEDULE),
    ))  # fmt: skip


def images(config: dict[str, Any] | None = None) -> CLIPImageProcessor:
    """What prepares images for a tower of `VISION`'s size."""
    side = {**VISION, **(config or {})}["image_size"]
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def unclip() -> Any:
    """Stable unCLIP, from an image's embedding."""
    normalizer = randomise(StableUnCLIPImageNormalizer(embedding_dim=32), 5)
    normalizer.std.data = normalizer.std.data.abs() + 0.5
    vector = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 64}
    return _quiet(StableUnCLIPImg2ImgPipeline(
        **_parts({**SD2, **vector}, hidden_act="gelu"), image_normalizer=normalizer, feature_extractor=images(),
        image_encoder=randomise(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)), 4),
        scheduler=DDIMScheduler.from_config({**SD_SCHEDULE, "prediction_type": "v_prediction"}),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    ))  # fmt: skip


def lcm() -> Any:
    """A latent consistency model, whose network takes its guidance scale as an input."""
    return _quiet(LatentConsistencyModelPipeline(
        **_parts({"time_cond_proj_dim": 32}, pad="<|endoftext|>"), scheduler=LCMScheduler.from_config(SD_SCHEDULE),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ))  # fmt: skip
