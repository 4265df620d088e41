"""Full-size files, by their key lists: every tensor has its place in the network that is made from the file's shapes.

Nothing is allocated: networks and tensors are on torch's meta device. The original U-Nets' and autoencoders' lists are
in tests/golden/manifests, text towers and diffusers' layout are listed by the libraries' own classes.
"""

import json
import math

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip.transformer import TextTransformer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.families.original import CLIP_KEY, UNET_KEY, VAE_KEY, key_list
from tests.refusals import refused
from zoo.assemble import component
from zoo.families.stable_diffusion.checkpoint import Checkpoint
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
}


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
    shapes = prefixed(key_list(file, layout), UNET_KEY) | prefixed(
        key_list("autoencoder_kl", "original/kl-f8"), VAE_KEY
    )
    clip = key_list("stable_diffusion", "transformers/clip-text")
    if name.startswith("sd-1"):
        shapes |= prefixed(clip, CLIP_KEY) | {f"{CLIP_KEY}embeddings.position_ids": (1, 77), "betas": (1000,)}
        average = {f"model_ema.diffusion_model{n.replace('.', '')}": s for n, s in key_list(file, layout).items()}
        return shapes | average | {"model_ema.decay": (), "model_ema.num_updates": ()}
    if name.startswith("sd-2"):
        return shapes | open_clip("cond_stage_model.model.", H)
    if name == "sdxl-base":
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
    assert checkpoint.key == name.removesuffix("-inpainting")
    prediction = {"prediction": "eps"}
    parts = ["unet", "vae", *checkpoint.variant.texts]
    made = {part: assert_strict(checkpoint.card(part, prediction if part == "unet" else {}, part)) for part in parts}
    assert sum(p.numel() for p in made["unet"].parameters()) == UNETS[name][2]
    if "-inpainting" in name:
        assert checkpoint.card("unet", prediction, "unet").denoiser["image_condition"] == "masked"
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
FOLDERS = {
    "sd-1": unet_config(
        (1, 1, 1, 0), block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8, cross_attention_dim=768
    ),
    "sd-2": unet_config(
        (1, 1, 1, 0), block_out_channels=(320, 640, 1280, 1280), attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024, use_linear_projection=True,
    ),
    "sdxl-base": unet_config(
        (0, 1, 1), block_out_channels=(320, 640, 1280), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
        transformer_layers_per_block=(1, 2, 10), projection_class_embeddings_input_dim=2816, **XL,
    ),
    "sdxl-refiner": unet_config(
        (0, 1, 1, 0), block_out_channels=(384, 768, 1536, 1536), attention_head_dim=(6, 12, 24, 24),
        cross_attention_dim=1280, transformer_layers_per_block=4, projection_class_embeddings_input_dim=2560, **XL,
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


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_full_size_has_a_place_for_every_tensor(name, tmp_path, monkeypatch):
    with torch.device("meta"):
        models = {"unet": UNet2DConditionModel(**FOLDERS[name]), "vae": AutoencoderKL(**KL)}
        models |= {where: kind(tower(*sizes)) for where, (kind, sizes) in TEXTS[name].items()}
    for where, model in models.items():
        (tmp_path / where).mkdir()
        config = dict(model.config) if where in ("unet", "vae") else model.config.to_dict()
        (tmp_path / where / "config.json").write_text(json.dumps(config))
    parts = {
        "_class_name": f"StableDiffusion{'XL' if 'xl' in name else ''}Pipeline",
        "text_encoder": ["transformers", "CLIPTextModel"] if "text_encoder" in models else [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    (tmp_path / "scheduler").mkdir()
    schedule = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    containers = {where: OnMeta(tmp_path / where / "w", shapes_of(model)) for where, model in models.items()}
    monkeypatch.setattr(Folder, "_weights", lambda self, part, stem: containers[part])
    folder = Folder(tmp_path)
    assert folder.key == name
    for part in ("unet", "vae", *folder.variant.texts):
        made = assert_strict(folder.card(part, {}, part))
        if part == "unet":
            count = sum(math.prod(shape) for shape in containers["unet"].shapes.values())
            assert sum(p.numel() for p in made.parameters()) == UNETS[name][2] == count
