"""A LoRA draws what diffusers with peft draws with it: Stable Diffusion 1 and XL in small, every part, several at once.

peft adapts the networks that diffusers and transformers made; diffusers writes the files, or they are spelt as kohya's
scripts do, and both libraries read them. Each comparison fails at another scale.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.families.test_lora import CONVOLUTIONS, LINEAR, adapted, kohya, of_peft
from tests.families.test_stable_diffusion import NEGATIVE, NOISE, STEPS
from tests.families.written import SAME, grey_levels, stable_diffusion, stable_diffusion_xl
from zoo.schema.files import sha256_of

peft = pytest.importorskip("peft", reason="peft isn't installed; pip install peft")
pytestmark = [pytest.mark.peer, pytest.mark.slow]

PROMPT, SCALE = "a red apple on a table, 3d style", 5.0
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
LAYERS = {"unet": LINEAR, "text_encoder": TEXT, "text_encoder_2": TEXT}
KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function of a pipeline's kind: diffusers' own and the folder that it wrote."""
    known = {}

    def one(kind):
        if kind not in known:
            pipe = {"sd": stable_diffusion, "xl": stable_diffusion_xl}[kind]()
            place = tmp_path_factory.mktemp(kind)
            pipe.save_pretrained(place)
            known[kind] = (pipe, place)
        return known[kind]

    return one


def parts_of(kind):
    return ("unet", "text_encoder", *(["text_encoder_2"] if kind == "xl" else []))


def loras(pipe, parts, **config):
    """Each part with a random LoRA of peft's in it; small, so that images stay images."""
    found = {part: adapted(getattr(pipe, part), **{"target_modules": LAYERS[part], **config}) for part in parts}
    for model in found.values():
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter *= 0.25
    return found


def saved(pipe, models, folder):
    """The file that diffusers writes, with PEFT's settings in its metadata."""
    settings = {
        f"{part}_lora_adapter_metadata": json.loads(json.dumps(m.peft_config["default"].to_dict(), default=list))
        for part, m in models.items()
    }
    layers = {f"{part}_lora_layers": of_peft(m) for part, m in models.items()}
    type(pipe).save_lora_weights(folder, **layers, **settings)
    return folder / "pytorch_lora_weights.safetensors"


def in_kohya(models, kind, alpha=6):
    """As kohya's scripts write it; one text encoder is `te`, of two they are `te1` and `te2`."""
    out = {}
    for part, model in models.items():
        prefix = "lora_te_" if part == "text_encoder" and kind == "sd" else KOHYA[part]
        before = "" if part == "unet" else "text_model."
        out |= kohya(of_peft(model), alpha, lambda p, before=before: before + p.removeprefix(before), prefix)
    return {name: tensor.contiguous() for name, tensor in out.items()}


def by_diffusers(pipe, files, weights):
    """diffusers' image with files loaded; the pipeline is as before after it."""
    names = [f"lora{i}" for i in range(len(files))]
    for file, name in zip(files, names, strict=True):
        pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)
    pipe.set_adapters(names, adapter_weights=list(weights))
    try:
        return pipe(
            PROMPT, negative_prompt=NEGATIVE, latents=NOISE.clone(), num_inference_steps=STEPS, guidance_scale=SCALE,
            output_type="pt",
        ).images  # fmt: skip
    finally:
        pipe.unload_lora_weights()


def by_zoo(pipe):
    return pipe(PROMPT, negative=NEGATIVE, noise=NOISE, steps=STEPS, guidance=SCALE).tensor


def check(pipe, place, files, weights):
    """zoo draws diffusers' image, and another one without the LoRAs and at another scale."""
    expected = by_diffusers(pipe, files, weights)
    assert expected.std() > 0.05
    mapped = [place / "unet/diffusion_pytorch_model.safetensors", place / "text_encoder/model.safetensors"]
    before = [sha256_of(path) for path in mapped]
    found = zoo.load(place, adapters=[f"{file}:{weight}" for file, weight in zip(files, weights, strict=True)])
    assert grey_levels(by_zoo(found), expected) <= SAME
    assert [sha256_of(path) for path in mapped] == before  # whose weights were changed in place
    found.adapters.set([f"{file}:{weight * 0.9}" for file, weight in zip(files, weights, strict=True)])
    assert grey_levels(by_zoo(found), expected) > SAME
    found.adapters.set([])
    assert grey_levels(by_zoo(found), expected) > SAME
    assert torch.equal(by_zoo(found), by_zoo(zoo.load(place)))


CONFIGS = {
    "alpha": {"r": 4, "lora_alpha": 6},
    "rank-stabilized": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 6, "use_dora": True},
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_a_file_of_diffusers_draws_diffusers_image(made, kind, config, tmp_path):
    pipe, place = made(kind)
    # diffusers loads no magnitudes of a text encoder's DoRA, and scales a DoRA otherwise: docs/loras.md.
    parts, weight = (("unet",), 1.0) if config == "dora" else (parts_of(kind), 0.8)
    check(pipe, place, [saved(pipe, loras(pipe, parts, **CONFIGS[config]), tmp_path)], [weight])


@pytest.mark.parametrize("kind", ["sd", "xl"])
@pytest.mark.parametrize("layers", ["linear", "convolutions"])
def test_a_file_of_kohyas_draws_diffusers_image(made, kind, layers, tmp_path):
    pipe, place = made(kind)
    parts = parts_of(kind) if layers == "linear" else ("unet",)
    more = {} if layers == "linear" else {"target_modules": [*LINEAR, *CONVOLUTIONS]}
    save_file(in_kohya(loras(pipe, parts, **more), kind), tmp_path / "kohya.safetensors")
    check(pipe, place, [tmp_path / "kohya.safetensors"], [0.7])


def test_several_at_once_draw_diffusers_image(made, tmp_path):
    pipe, place = made("sd")
    files = []
    for i, part in enumerate(parts_of("sd")):
        folder = tmp_path / part
        folder.mkdir()
        files.append(saved(pipe, loras(pipe, (part,), r=2 + 2 * i, lora_alpha=3), folder))
    check(pipe, place, files, [0.6, -0.5])


def test_ranks_and_alphas_by_module_are_diffusers(made, tmp_path):
    pipe, place = made("sd")
    patterns = {"alpha_pattern": {"attn2.to_q": 3}, "rank_pattern": {"to_v": 2}}
    models = loras(pipe, ("unet",), r=4, lora_alpha=6, **patterns)
    check(pipe, place, [saved(pipe, models, tmp_path)], [1.0])
