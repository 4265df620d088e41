"""Original checkpoints of the x4 upscaler, unCLIP and SDXL's refiner in small, and diffusers' conversion of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableUnCLIPImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from tests.families.original import UNET, UNET_KEY, VAE, VAE_KEY, drawn, key_list, prefixed, scaled
from tests.families.original_variants import (
    SD2_CLIP,
    SD2_UNET,
    XL_UNET,
    autoencoder,
    converted_big_g,
    converted_networks,
    converted_text_2,
    open_clip,
    quiet,
    stable_diffusion_2,
    two_blocks,
)
from tests.families.written import SD_SCHEDULE, tokenizer
from tests.families.written_variants import X4_SCHEDULE, images

REFINER_BIG_G, VISION_KEY = "conditioner.embedders.0.model.", "embedder.model.visual."
# The widths of the image's embedding and of heads are the published ones: of another width it is unCLIP-l's.
TOWER = {
    "image_size": 28, "patch_size": 14, "width": 64, "layers": 2, "heads": 16, "mlp_ratio": 4.0, "output_dim": 1024,
}  # fmt: skip
UNCLIP_UNET = {**SD2_UNET, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}
X4_UNET = {
    **UNET, "in_channels": 7, "block_out_channels": (64, 128, 128, 256), "cross_attention_dim": 256,
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3, "attention_head_dim": 8,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",), "use_linear_projection": True,
    "only_cross_attention": (True, True, True, False), "num_class_embeds": 1000,
}  # fmt: skip
X4_VAE = {
    **VAE, "block_out_channels": (32, 64, 128), "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
}  # fmt: skip
REFINER_UNET = {
    **XL_UNET, "block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 128,
    "attention_head_dim": (1, 2, 4, 4),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 2, "projection_class_embeddings_input_dim": 128 + 5 * 256,
}  # fmt: skip


def louder(tensors: Mapping[str, Tensor], part: str, by: float) -> dict[str, Tensor]:
    """Tensors of matrices with `part` in their names times `by`, so that what they carry shows in an image."""
    return {n: by * t if part in n and t.ndim > 1 else t for n, t in tensors.items()}


def depth() -> dict[str, Tensor]:
    """Stable Diffusion 2's depth model, with a tensor of the network that estimates depth."""
    return stable_diffusion_2("v2-midas-inference") | {"depth_model.model.scratch.layer1_rn.weight": torch.ones(2, 2)}


def upscaler() -> dict[str, Tensor]:
    """The x4 upscaler."""
    shapes = scaled(key_list("sd2_unet", "sd2_unet/x4-upscaling"), by=4, of=256, fixed={})
    kl = scaled(key_list("autoencoder_kl", "original/x4-upscaler"), by=4, of=128, fixed={})
    return (
        prefixed(drawn(shapes, 1), UNET_KEY) | prefixed(drawn(kl, 2), VAE_KEY)
        | open_clip(SD2_CLIP, layers=4, seed=3, width=256) | {"low_scale_model.betas": torch.zeros(1000)}
    )  # fmt: skip


def unclip() -> dict[str, Tensor]:
    """Stable unCLIP of OpenCLIP-H's images."""
    with torch.device("meta"):
        tower = VisionTransformer(**TOWER)
    made = drawn({name: tuple(tensor.shape) for name, tensor in tower.state_dict().items()}, 4)
    norms = {n: tensor + 1.0 for n, tensor in made.items() if "ln_" in n and n.endswith("weight")}
    tensors = louder({**made, **norms}, ".mlp.", 2.0) | {"proj": 8.0 * made["proj"]}
    state = louder(stable_diffusion_2("v2-1-stable-unclip-h-inference"), "label_emb", 8.0)
    return state | prefixed(tensors, VISION_KEY) | {"noise_augmentor.betas": torch.zeros(1000)}


def refiner() -> dict[str, Tensor]:
    """SDXL's refiner, with transformers of two blocks in place of four."""
    listed = two_blocks(key_list("sdxl_unet", "sdxl_unet/sd_xl_refiner"))
    shapes = scaled(listed, by=6, of=384, fixed={1280: 128, 2560: 128 + 5 * 256})
    unet = louder(drawn(shapes, 6), "label_emb", 3.0)
    return prefixed(unet, UNET_KEY) | autoencoder() | open_clip(REFINER_BIG_G, layers=3, seed=7)


class ImageTower(nn.Module):
    """open_clip's own tower, which the original code calls, as transformers' class is called."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tower = VisionTransformer(**TOWER).eval()
        self.tower.load_state_dict({n.removeprefix(VISION_KEY): t for n, t in state.items() if VISION_KEY in n})

    def forward(self, image: Tensor) -> Any:
        return SimpleNamespace(image_embeds=self.tower(image))


def converted_unclip(state: Mapping[str, Tensor]) -> Any:
    """diffusers' pipeline of a stable unCLIP checkpoint."""
    return quiet(StableUnCLIPImg2ImgPipeline(
        scheduler=DDIMScheduler.from_config({**SD_SCHEDULE, "prediction_type": "v_prediction"}),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=1024), feature_extractor=images(),
        image_encoder=ImageTower(state), image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        **converted_text_2(state), **converted_networks(state, UNCLIP_UNET, 0.18215),
    ))  # fmt: skip


def converted_upscaler(state: Mapping[str, Tensor]) -> Any:
    """diffusers' pipeline of an x4 upscaler's checkpoint."""
    return quiet(StableDiffusionUpscalePipeline(
        low_res_scheduler=DDPMScheduler.from_config({**X4_SCHEDULE, "prediction_type": "epsilon"}),
        scheduler=DDIMScheduler.from_config(X4_SCHEDULE),
        **converted_text_2(state, 256), **converted_networks(state, X4_UNET, 0.08333, X4_VAE),
    ))  # fmt: skip


def converted_refiner(state: Mapping[str, Tensor]) -> Any:
    """diffusers' pipeline of an SDXL refiner's checkpoint."""
    return quiet(StableDiffusionXLImg2ImgPipeline(
        text_encoder=None, tokenizer=None, text_encoder_2=converted_big_g(state, REFINER_BIG_G),
        tokenizer_2=tokenizer("!"), scheduler=EulerDiscreteScheduler.from_config(SD_SCHEDULE), add_watermarker=False,
        force_zeros_for_empty_prompt=False, requires_aesthetics_score=True,
        **converted_networks(state, REFINER_UNET, 0.13025),
    ))  # fmt: skip
