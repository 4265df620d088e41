"""The JSON files of a diffusers folder, from the shapes of its parts and what its family is known by.

Shapes say nearly all of a U-Net; its heads, a latent's scale, a text encoder's activation and the scheduler are the
family's, from the configurations it was published with (CompVis/stable-diffusion, Stability-AI/stablediffusion and
generative-models).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zoo.families.stable_diffusion.variants import Variant
from zoo.schema.errors import ConfigError

Shapes = Mapping[str, tuple[int, ...]]
WRITTEN_FOR = "0.36.0"  # the diffusers whose fields these are


# (variant, input channels of the U-Net) -> the pipeline's class.
PIPELINES = {
    ("sd-1", 4): "StableDiffusionPipeline", ("sd-1", 9): "StableDiffusionInpaintPipeline",
    ("sd-1", 8): "StableDiffusionInstructPix2PixPipeline", ("sd-2", 4): "StableDiffusionPipeline",
    ("sd-2", 9): "StableDiffusionInpaintPipeline", ("sdxl-base", 4): "StableDiffusionXLPipeline",
    ("sdxl-base", 9): "StableDiffusionXLInpaintPipeline", ("sdxl-refiner", 4): "StableDiffusionXLImg2ImgPipeline",
}  # fmt: skip


def unet_config(shapes: Shapes, *, heads: int | None, sample_size: int) -> dict[str, Any]:
    """`UNet2DConditionModel`'s; `shapes` by diffusers' names. `heads` None: 64 channels a head.

    Raises ConfigError where no such number of heads fits.
    """
    count = 1 + max(int(f[1]) for n in shapes if (f := re.match(r"down_blocks\.(\d+)\.", n)))
    levels = range(count)
    channels = [shapes[f"down_blocks.{b}.resnets.0.conv1.weight"][0] for b in levels]
    blocks = 1 + max(int(f[1]) for n in shapes if (f := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", n)))
    attends = [f"down_blocks.{b}.attentions.0.norm.weight" in shapes for b in levels]
    middle = "mid_block.attentions.0"

    def depth(where: str) -> int:
        found = re.compile(re.escape(where) + r"\.transformer_blocks\.(\d+)\.")
        return 1 + max(int(f[1]) for n in shapes if (f := found.match(n)))

    depths = [depth(f"down_blocks.{b}.attentions.0" if attends[b] else middle) for b in levels]
    width = shapes[f"{middle}.transformer_blocks.0.attn2.to_k.weight"][1]
    inner = [f"down_blocks.{b}.attentions.0.transformer_blocks.0.attn1.to_k.weight" for b in levels]
    crossed = [not attends[b] or shapes[inner[b]][1] != channels[b] for b in levels]
    numbers = [heads if heads is not None else c // 64 for c in channels]
    if any(n < 1 or c % n for n, c in zip(numbers, channels, strict=True)):
        raise ConfigError(
            f"the U-Net's levels of {channels} channels don't have heads of 64; say heads, their number",
            code="heads-unstated",
        )
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": WRITTEN_FOR,
        "sample_size": sample_size,
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        # diffusers reads this as the number of heads, whatever it is called.
        "attention_head_dim": numbers[0] if len(set(numbers)) == 1 else numbers,
        "transformer_layers_per_block": depths[0] if len(set(depths)) == 1 else depths,
        "cross_attention_dim": width,
        "use_linear_projection": len(shapes[f"{middle}.proj_in.weight"]) == 2,
        "norm_num_groups": 32, "norm_eps": 1e-5, "act_fn": "silu", "downsample_padding": 1, "flip_sin_to_cos": True,
        "freq_shift": 0, "center_input_sample": False, "mid_block_scale_factor": 1,
    }  # fmt: skip
    if any(attends[b] and crossed[b] for b in levels):
        config["only_cross_attention"] = crossed
    if "class_embedding.weight" in shapes:
        config["num_class_embeds"] = shapes["class_embedding.weight"][0]
    for name, kind in (("class_embedding", "projection"), ("add_embedding", "text_time")):
        if f"{name}.linear_1.weight" in shapes:
            key = "class_embed_type" if name == "class_embedding" else "addition_embed_type"
            config |= {key: kind, "projection_class_embeddings_input_dim": shapes[f"{name}.linear_1.weight"][1]}
            config |= {"addition_time_embed_dim": 256} if name == "add_embedding" else {}
    return config


def vae_config(shapes: Shapes, *, scale: float, sample_size: int) -> dict[str, Any]:
    """`AutoencoderKL`'s."""
    levels = range(1 + max(int(f[1]) for n in shapes if (f := re.match(r"encoder\.down_blocks\.(\d+)\.", n))))
    channels = [shapes[f"encoder.down_blocks.{b}.resnets.0.conv1.weight"][0] for b in levels]
    blocks = 1 + max(int(f[1]) for n in shapes if (f := re.match(r"encoder\.down_blocks\.0\.resnets\.(\d+)\.", n)))
    return {
        "_class_name": "AutoencoderKL", "_diffusers_version": WRITTEN_FOR,
        "in_channels": shapes["encoder.conv_in.weight"][1], "out_channels": shapes["decoder.conv_out.weight"][0],
        "down_block_types": ["DownEncoderBlock2D"] * len(channels), "latent_channels":
        shapes["post_quant_conv.weight"][1], "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "block_out_channels": channels, "layers_per_block": blocks, "act_fn": "silu", "norm_num_groups": 32,
        "sample_size": sample_size, "scaling_factor": scale,
    }  # fmt: skip


def text_config(shapes: Shapes, *, open_clip: bool, projected: bool) -> dict[str, Any]:
    """`CLIPTextModel`'s, or with a projection `CLIPTextModelWithProjection`'s; names without `text_model.`."""
    width = shapes["embeddings.token_embedding.weight"][1]
    layers = 1 + max(int(f[1]) for n in shapes if (f := re.match(r"encoder\.layers\.(\d+)\.", n)))
    projection = shapes["text_projection.weight"][0] if projected else width
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": shapes["embeddings.token_embedding.weight"][0],
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "hidden_act": "gelu" if open_clip else "quick_gelu",
        "layer_norm_eps": 1e-5, "projection_dim": projection, "bos_token_id": 49406, "eos_token_id": 49407,
        "pad_token_id": 0 if open_clip else 49407, "attention_dropout": 0.0,
    }  # fmt: skip


def scheduler_config(variant: Variant, prediction: str) -> dict[str, Any]:
    """The published scheduler's."""
    config: dict[str, Any] = {
        "_class_name": variant.scheduler, "_diffusers_version": WRITTEN_FOR, "num_train_timesteps": 1000,
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
        "prediction_type": {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}[prediction],
        "timestep_spacing": "leading",
    }  # fmt: skip
    if variant.scheduler != "EulerDiscreteScheduler":
        config["set_alpha_to_one"] = False
    if variant.scheduler == "DDIMScheduler":
        config["clip_sample"] = False
    if variant.scheduler == "PNDMScheduler":
        config["skip_prk_steps"] = True
    return config


def model_index(variant: Variant, kind: str) -> dict[str, Any]:
    """`model_index.json`."""
    found: dict[str, Any] = {
        "_class_name": kind, "_diffusers_version": WRITTEN_FOR, "scheduler": ["diffusers", variant.scheduler],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    held = [text.folder for text in variant.texts.values()]
    for part in ("text_encoder", "text_encoder_2"):
        if part in held:
            projected = part == "text_encoder_2"
            found[part] = ["transformers", "CLIPTextModelWithProjection" if projected else "CLIPTextModel"]
            found[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
        elif variant.key.startswith("sdxl"):
            found[part] = found[part.replace("text_encoder", "tokenizer")] = [None, None]
    if variant.key.startswith("sdxl"):
        if kind != "StableDiffusionXLImg2ImgPipeline" or variant.key == "sdxl-base":
            found["force_zeros_for_empty_prompt"] = True
        else:
            found |= {"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True}
    else:
        found |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    return dict(sorted(found.items()))
