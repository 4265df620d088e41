"""Full-size files, by their key lists: every tensor has its place in the network that is made from the file's shapes.

Nothing is allocated: networks and tensors are on torch's meta device. The original U-Nets' and autoencoders' lists are
in tests/golden/manifests, text towers and diffusers' layout are listed by the libraries' own classes.
"""

import json
import math

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from open_clip.transformer import TextTransformer, VisionTransformer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.families.original import CLIP_KEY, UNET_KEY, VAE_KEY, key_list
from tests.refusals import refused
from zoo.assemble import component
from zoo.families.key_lists import key_lists
from zoo.families.stable_diffusion.checkpoint import AutoencoderFile, Checkpoint
from zoo.families.stable_diffusion.folder import Folder
from zoo.schema.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.peer]
XL_CLIP_L, XL_BIG_G, REFINER_BIG_G = (
    "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model.",
    "conditioner.embedders.0.model.",
)  # fmt: skip
H, BIG_G = {"width": 1024, "heads": 16, "layers": 24}, {"width": 1280, "heads": 20, "layers": 32}
UNETS = {
    "sd-1": ("stable_diffusion", "original/unet", 859_520_964),
    "sd-1-inpainting": ("stable_diffusion", "original/unet-inpainting", 859_535_364),
    "sd-2": ("sd2_unet", "sd2_unet/v2-inference", 865_910_724),
    "sd-2-inpainting": ("sd2_unet", "sd2_unet/v2-inpainting-inference", 865_925_124),
    "sdxl-base": ("sdxl_unet", "sdxl_unet/sd_xl_base", 2_567_463_684),
    "sdxl-refiner": ("sdxl_unet", "sdxl_unet/sd_xl_refiner", 2_259_526_660),
    "sdxl-base-inpainting": (None, "sdxl_unet/sd_xl_inpainting", 2_567_478_084),
    "sd-2-depth": ("sd2_unet", "sd2_unet/v2-midas-inference", 865_913_604),
    "sd-2-unclip": ("sd2_unet", "sd2_unet/v2-1-stable-unclip-h-inference", 870_173_124),
    "sd-2-x4": ("sd2_unet", "sd2_unet/x4-upscaling", 473_398_020),
}
VISION_H = {"image_size": 224, "patch_size": 14, "width": 1280, "layers": 32, "heads": 16, "mlp_ratio": 4.0}


class OnMeta:
    """A container of tensors without memory."""

    metadata = {}  # noqa: RUF012 - there is none

    def __init__(self, file, shapes):
        file.touch()
        self.files, self.shapes = (file,), shapes

    def tensors(self, names):
        return {name: torch.empty(self.shapes[name], device="meta") for name in names}


def shapes_of(module, prefix=""):
    return {prefix + name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def open_clip(prefix, tower):
    """open_clip's text tower, its mask and the temperature as files of a whole CLIP have them."""
    with torch.device("meta"):
        shapes = shapes_of(TextTransformer(**tower, output_dim=tower["width"]), prefix)
    return shapes | {f"{prefix}logit_scale": (), f"{prefix}attn_mask": (77, 77)}


def prefixed(shapes, prefix):
    return {prefix + name: shape for name, shape in shapes.items()}


def original(name):
    file, layout, _ = UNETS[name]
    unet = key_lists()[layout] if file is None else key_list(file, layout)
    vae = key_list("autoencoder_kl", "original/x4-upscaler" if name == "sd-2-x4" else "original/kl-f8")
    shapes = prefixed(unet, UNET_KEY) | prefixed(vae, VAE_KEY)
    clip = key_list("stable_diffusion", "transformers/clip-text")
    if name.startswith("sd-1"):
        shapes |= prefixed(clip, CLIP_KEY) | {f"{CLIP_KEY}embeddings.position_ids": (1, 77), "betas": (1000,)}
        average = {f"model_ema.diffusion_model{n.replace('.', '')}": s for n, s in key_list(file, layout).items()}
        return shapes | average | {"model_ema.decay": (), "model_ema.num_updates": ()}
    if name == "sd-2-unclip":
        with torch.device("meta"):
            shapes |= shapes_of(VisionTransformer(**VISION_H, output_dim=1024), "embedder.model.visual.")
        shapes |= {"noise_augmentor.betas": (1000,)}
    if name.startswith("sd-2"):
        return shapes | open_clip("cond_stage_model.model.", H)
    if name.startswith("sdxl-base"):
        return shapes | prefixed(clip, XL_CLIP_L) | open_clip(XL_BIG_G, BIG_G)
    return shapes | open_clip(REFINER_BIG_G, BIG_G)


def assert_strict(card):
    """A part's tensors are those of the network that its card makes, by name and by shape, and no others."""
    with torch.device("meta"):
        module = component(card.kind, card.block)
    given = {name: tuple(tensor.shape) for name, tensor in card.source.tensors(module).items()}
    assert given == shapes_of(module)
    return module


@pytest.mark.parametrize("name", UNETS)
def test_an_original_file_of_full_size_has_a_place_for_every_tensor(name, tmp_path):
    container = OnMeta(tmp_path / f"{name}.safetensors", original(name))
    checkpoint = Checkpoint(tmp_path / f"{name}.safetensors", container)  # type: ignore[arg-type]
    assert checkpoint.key == name
    prediction = {"prediction": checkpoint.variant.prediction or "eps"}
    parts = ["unet", "vae", *checkpoint.variant.texts, *(["image"] if checkpoint.variant.image else [])]
    made = {part: assert_strict(checkpoint.card(part, prediction if part == "unet" else {}, part)) for part in parts}
    assert sum(p.numel() for p in made["unet"].parameters()) == UNETS[name][2]
    shown = {"-inpainting": "masked", "-depth": "depth"}.get(name[name.rindex("-") :])
    denoiser = checkpoint.card("unet", prediction, "unet").denoiser
    assert (denoiser.get("image_condition"), "low_res" in denoiser) == (shown, name == "sd-2-x4")
    # A tensor more, one less or another shape is seen.
    for change in ({"model.diffusion_model.more": (3,)}, {"model.diffusion_model.out.2.bias": (7,)}):
        changed = OnMeta(tmp_path / "changed.safetensors", {**container.shapes, **change})
        plain = {**prediction, "copy": "plain"}
        with pytest.raises(AssertionError):
            assert_strict(Checkpoint(tmp_path / "changed.safetensors", changed).card("unet", plain, "unet"))  # type: ignore[arg-type]


def test_which_prediction_a_file_of_stable_diffusion_2_holds_has_to_be_said(tmp_path):
    container = OnMeta(tmp_path / "v2.safetensors", original("sd-2"))
    checkpoint = Checkpoint(tmp_path / "v2.safetensors", container)  # type: ignore[arg-type]
    with refused("model-ambiguous", ConfigError, naming="eps"):
        checkpoint.config({})
    with refused("model-ambiguous", ConfigError):
        checkpoint.card("unet", {}, "unet")
    for prediction, size in (("eps", 512), ("v", 768)):
        config = checkpoint.config({"prediction": prediction})
        assert config["stages"][0]["size"] == size
        assert config["stages"][0]["denoiser"]["weights"].endswith(f"#unet?prediction={prediction}")
        assert checkpoint.card("unet", {"prediction": prediction}, "u").denoiser["parameterization"] == prediction
    container.metadata = {"modelspec.prediction_type": "v"}
    assert checkpoint.config({})["stages"][0]["size"] == 768
    with refused("model-contradicted", ConfigError):
        checkpoint.config({"prediction": "eps"})


CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def unet_config(attended, **more):
    downs = [(CROSS if a else PLAIN)[0] for a in attended]
    ups = [(CROSS if a else PLAIN)[1] for a in reversed(attended)]
    return {"down_block_types": downs, "up_block_types": ups, "layers_per_block": 2, "sample_size": 64, **more}


XL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "use_linear_projection": True}
SD1 = unet_config(
    (1, 1, 1, 0), block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8, cross_attention_dim=768
)
SD2 = {**SD1, "attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True}
SDXL = unet_config(
    (0, 1, 1), block_out_channels=(320, 640, 1280), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
    transformer_layers_per_block=(1, 2, 10), projection_class_embeddings_input_dim=2816, **XL,
)  # fmt: skip
# A variant -> its U-Net's configuration, and the list of its tensors' names and shapes in diffusers' layout.
FOLDERS = {
    "sd-1": (SD1, "sd15/unet"),
    "sd-1-inpainting": ({**SD1, "in_channels": 9}, "sd15-inpainting/unet"),
    "sd-1-lcm": ({**SD1, "time_cond_proj_dim": 256}, None),
    "sd-2": (SD2, "sd21/unet"),
    "sd-2-inpainting": ({**SD2, "in_channels": 9}, "sd2-inpainting/unet"),
    "sd-2-depth": ({**SD2, "in_channels": 5}, "sd2-depth/unet"),
    "sd-2-unclip": (
        {**SD2, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}, "sd21-unclip-h/unet"
    ),
    "sd-2-x4": (
        {
            **unet_config((0, 1, 1, 1), block_out_channels=(256, 512, 512, 1024), attention_head_dim=8),
            "cross_attention_dim": 1024, "use_linear_projection": True, "in_channels": 7, "num_class_embeds": 1000,
            "only_cross_attention": (True, True, True, False),
        },
        "sdx4/unet",
    ),
    "sdxl-base": (SDXL, "sdxl-base/unet"),
    "sdxl-base-inpainting": ({**SDXL, "in_channels": 9}, "sdxl-inpainting/unet"),
    "sdxl-refiner": (
        unet_config(
            (0, 1, 1, 0), block_out_channels=(384, 768, 1536, 1536), attention_head_dim=(6, 12, 24, 24),
            cross_attention_dim=1280, transformer_layers_per_block=4, projection_class_embeddings_input_dim=2560, **XL,
        ),
        "sdxl-refiner/unet",
    ),
}  # fmt: skip
KL = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


def tower(width, layers, heads, act):
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        hidden_act=act, projection_dim=width, vocab_size=49408,
    )  # fmt: skip


TEXTS = {
    "sd-1": {"text_encoder": (CLIPTextModel, (768, 12, 12, "quick_gelu"))},
    "sd-2": {"text_encoder": (CLIPTextModel, (1024, 23, 16, "gelu"))},
    "sdxl-base": {
        "text_encoder": (CLIPTextModel, (768, 12, 12, "quick_gelu")),
        "text_encoder_2": (CLIPTextModelWithProjection, (1280, 32, 20, "gelu")),
    },
    "sdxl-refiner": {"text_encoder_2": (CLIPTextModelWithProjection, (1280, 32, 20, "gelu"))},
}


KL4 = {**{key: value[:3] if isinstance(value, tuple) else value for key, value in KL.items()},
       "block_out_channels": (128, 256, 512)}  # fmt: skip
VISION = CLIPVisionConfig(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
    projection_dim=1024, hidden_act="gelu",
)  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_full_size_has_a_place_for_every_tensor(name, tmp_path, monkeypatch):
    line = next(key for key in TEXTS if name.startswith(key))
    config, listed = FOLDERS[name]
    with torch.device("meta"):
        models = {"unet": UNet2DConditionModel(**config), "vae": AutoencoderKL(**(KL4 if name == "sd-2-x4" else KL))}
        models |= {where: kind(tower(*sizes)) for where, (kind, sizes) in TEXTS[line].items()}
        if name == "sd-2-unclip":
            models["image_encoder"] = CLIPVisionModelWithProjection(VISION)
            models["image_normalizer"] = StableUnCLIPImageNormalizer(embedding_dim=1024)
    if listed is not None:  # the class is the published file's
        assert shapes_of(models["unet"]) == key_lists()[listed]
    for where, model in models.items():
        (tmp_path / where).mkdir()
        said = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
        (tmp_path / where / "config.json").write_text(json.dumps(said))
    parts = {
        "_class_name": f"StableDiffusion{'XL' if 'xl' in name else ''}Pipeline",
        "text_encoder": ["transformers", "CLIPTextModel"] if "text_encoder" in models else [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    schedule = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}
    for where in ("scheduler", "low_res_scheduler", "image_noising_scheduler"):
        (tmp_path / where).mkdir()
        (tmp_path / where / "scheduler_config.json").write_text(json.dumps(schedule))
    containers = {where: OnMeta(tmp_path / where / "w", shapes_of(model)) for where, model in models.items()}
    monkeypatch.setattr(Folder, "_weights", lambda self, part, stem: containers[part])
    folder = Folder(tmp_path)
    assert folder.key == name
    for part in ("unet", "vae", *folder.variant.texts, *(["image"] if folder.variant.image else [])):
        made = assert_strict(folder.card(part, {}, part))
        if part == "unet":
            count = sum(math.prod(shape) for shape in containers["unet"].shapes.values())
            assert sum(p.numel() for p in made.parameters()) == count
            assert name not in UNETS or UNETS[name][2] == count


def test_taesd_of_full_size_has_a_place_for_every_tensor(tmp_path):
    lists = key_lists()
    author = {f"{half}.{n}": s for half in ("encoder", "decoder") for n, s in lists[f"taesd/{half}"].items()}
    for shapes in (author, lists["taesd"]):
        container = OnMeta(tmp_path / "taesd.safetensors", shapes)
        made = assert_strict(AutoencoderFile(tmp_path / "taesd.safetensors", container, "").card("vae", {}, "taesd"))  # type: ignore[arg-type]
        assert sum(p.numel() for p in made.parameters()) == 2_445_063
