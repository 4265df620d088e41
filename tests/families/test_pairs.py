"""Parts that don't belong together are refused by a rule with a name; what nothing shows is asked for, not guessed."""

from __future__ import annotations

import pytest

from tests.weight_files import under
from zoo.families.key_lists import key_lists
from zoo.families.stable_diffusion.pairs import Given, fit

UNETS = {
    "sd1": "ldm_unet/v1-inference", "sd1 diffusers": "sd15/unet", "sd2": "sd2_unet/v2-inference",
    "sd2 diffusers": "sd21/unet", "xl": "sdxl_unet/sd_xl_base", "refiner": "sdxl_unet/sd_xl_refiner",
    "x4": "sd2_unet/x4-upscaling", "faces": "ldm_unet/ffhq256", "adm": "adm/256x256_diffusion",
}  # fmt: skip
PARTS = {
    "vae": "ldm_ae/kl-f8", "vae diffusers": "sd/vae-kl-f8", "f4": "sd2_ae/x4-upscaler", "vae16": "flux1/ae",
    "vae32": "flux2/ae", "f16": "ldm_ae/kl-f16", "taesd": "taesd", "taesd decoder": "taesd/decoder",
    "clip-l": "clip-vit-l-14/text", "clip-h": "openclip-h/text", "clip-h 23": "openclip-h/text(23L)",
    "clip-g": "openclip-bigG/text", "t5": "t5-v1_1-xxl/encoder", "dit": "dit/DiT-XL-2-256", "sd1 unet": "sd15/unet",
    "classifier": "adm/256x256_classifier",
}  # fmt: skip


def lora(width, extra=None, prefix="lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"):
    return {f"{prefix}.lora_down.weight": (8, width), f"{prefix}.lora_up.weight": (640, 8), **(extra or {})}


FLUX = {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072),
        "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight": (3072, 4)}  # fmt: skip
CONTROL = {"control_model.input_hint_block.0.weight": (16, 3, 3, 3),
           "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)}  # fmt: skip
IP = {"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (640, 2048)}
NO_WIDTH = {"lora_unet_mid_block_resnets_0_conv1.lora_down.weight": (4, 1280, 3, 3),
            "lora_unet_mid_block_resnets_0_conv1.lora_up.weight": (1280, 4, 1, 1)}  # fmt: skip
XL = {"ss_base_model_version": "sdxl_base_v1-0"}


def given(name, **known):
    shapes = key_lists()[(UNETS | PARTS)[name]] if isinstance(name, str) else name
    return Given(shapes, "x.safetensors", **known)


# unet, other part, what is known of it, verdict, rule
PAIRS = [
    ("sd1", "f4", {}, "refused", "latent size"),
    ("sd2", "f4", {}, "refused", "latent size"),
    ("x4", "vae", {}, "refused", "latent size"),
    ("xl", "vae16", {}, "refused", "latent channels"),
    ("sd1", "vae32", {}, "refused", "latent channels"),
    ("sd2", "f16", {}, "refused", "latent channels"),
    ("faces", "vae", {}, "refused", "latent channels"),
    ("xl", "vae", {"config": {"scaling_factor": 0.18215}}, "refused", "config's scale"),
    ("sd1", "vae diffusers", {"config": {"scaling_factor": 0.13025}}, "refused", "config's scale"),
    ("xl", "vae", {"metadata": {"modelspec.architecture": "stable-diffusion-v1/vae"}}, "refused", "metadata"),
    ("xl", "vae", {}, "ambiguous", "same tensors"),
    ("sd1", "vae diffusers", {}, "ambiguous", "same tensors"),
    ("sd1", "taesd", {}, "ambiguous", "same tensors"),
    ("sd1", "taesd decoder", {}, "refused", "half an autoencoder"),
    ("sd1", "clip-h", {}, "refused", "token width"),
    ("sd1", "clip-g", {}, "refused", "token width"),
    ("sd2", "clip-l", {}, "refused", "token width"),
    ("xl", "clip-h", {}, "refused", "token width"),
    ("refiner", "clip-l", {}, "refused", "token width"),
    ("sd1", "t5", {}, "refused", "token width"),
    ("adm", "clip-l", {}, "refused", "no text"),
    ("sd2", "clip-h", {}, "ambiguous", "which layer"),
    ("sd1", "clip-l", {"config": {"hidden_act": "gelu"}}, "refused", "config's activation"),
    ("sd1", "dit", {}, "refused", "kind"),
    ("sd1", "classifier", {}, "refused", "kind"),
    ("vae", "clip-l", {}, "refused", "no denoiser"),
    ("sd1", {"a": (1,)}, {}, "refused", "unknown part"),
    ("sd1", lora(1024), {}, "refused", "LoRA's family"),
    ("sd2", lora(768), {}, "refused", "LoRA's family"),
    ("xl", lora(768), {}, "refused", "LoRA's family"),
    ("sd1", lora(2048), {}, "refused", "LoRA's family"),
    ("xl", FLUX, {}, "refused", "LoRA's family"),
    ("refiner", lora(2048), {}, "refused", "LoRA's family"),
    ("sd1", lora(768), {"metadata": XL}, "refused", "metadata"),
    ("sd1", NO_WIDTH, {"metadata": XL}, "refused", "LoRA's family"),
    ("sd1", NO_WIDTH, {}, "ambiguous", "no width"),
    ("sd1", {**lora(768), "something": (1,)}, {}, "refused", "unknown names"),
    ("sd1", {**lora(768), "lora_unet_conv_in.lora_down.weight": (4, 4, 3, 3)}, {}, "refused", "half a LoRA"),
    ("sd1", CONTROL, {}, "refused", "ControlNet's family"),
    ("sd1", IP, {}, "refused", "IP-Adapter's family"),
    ("sd1", {"emb_params": (2, 1024)}, {}, "refused", "textual inversion's family"),
    ("sd1", "vae", {"sha256": "31e35c80" + "0" * 56}, "refused", "known hash"),
]  # fmt: skip
FITTING = [
    ("sd1", "vae", {"config": {"scaling_factor": 0.18215}}),
    ("xl", "vae diffusers", {"config": {"scaling_factor": 0.13025}}),
    ("x4", "f4", {}),
    ("sd1", "clip-l", {}),
    ("sd2", "clip-h 23", {}),
    ("xl", "clip-l", {}),
    ("xl", "clip-g", {}),
    ("refiner", "clip-g", {}),
    ("sd1 diffusers", lora(768), {}),
    ("sd2 diffusers", CONTROL, {}),
    ("xl", IP, {}),
    ("xl", lora(2048), {"metadata": XL}),
]


@pytest.mark.parametrize("pair", range(len(PAIRS)))
def test_a_wrong_pair_is_caught_by_its_rule(pair):
    unet, other, known, verdict, rule = PAIRS[pair]
    found = fit(given(unet), given(other, **known))
    assert (found.verdict, found.rule) == (verdict, rule), found.reason
    assert (found.argument is not None) == (verdict == "ambiguous")
    if found.argument:
        assert f"{found.argument}=" in found.reason


@pytest.mark.parametrize("pair", range(len(FITTING)))
def test_a_right_pair_is_not_refused(pair):
    unet, other, known = FITTING[pair]
    found = fit(given(unet), given(other, **known))
    assert found.verdict == "fits", found.reason


def test_an_answer_settles_what_was_ambiguous():
    for unet, other, answers in (("xl", "vae", {"scale": "0.13025"}), ("sd1", "taesd", {"family": "sd"}),
                                 ("sd2", "clip-h", {"layer": "2"})):  # fmt: skip
        assert fit(given(unet), given(other)).verdict == "ambiguous"
        assert fit(given(unet), given(other), answers=answers).verdict == "fits"


def test_a_whole_checkpoint_is_paired_by_its_unet():
    whole = Given(under("model.diffusion_model.", key_lists()["ldm_unet/v1-inference"]), "whole.safetensors")
    assert fit(whole, given(lora(768))).verdict == "fits"
    assert fit(whole, given(lora(1024))).verdict == "refused"


def test_there_are_enough_pairs():
    assert len(PAIRS) >= 25
