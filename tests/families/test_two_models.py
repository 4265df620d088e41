"""Parts of two models in one file or folder are refused by what tells it, before a weight is read."""

import shutil

import pytest
from safetensors.torch import save_file

import zoo
from tests.families import original, original_variants
from tests.families.written import stable_diffusion, stable_diffusion_xl
from tests.refusals import refused

pytestmark = [pytest.mark.peer, pytest.mark.slow]
UNET, SD2_TEXT = original.UNET_KEY, original_variants.SD2_CLIP
WIDE = {
    "text": {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2},
    "unet": {"cross_attention_dim": 128},
}  # fmt: skip


@pytest.fixture(autouse=True)
def unread(monkeypatch):
    monkeypatch.setattr("zoo.assemble.load_strict", lambda *_, **__: pytest.fail("weights were read"))


@pytest.fixture(scope="module")
def files():
    return {
        "sd-1": original.stable_diffusion_1(), "sd-2": original_variants.stable_diffusion_2(),
        "sdxl": original_variants.sdxl(),
    }  # fmt: skip


# Whose U-Net, whose other parts, and what catches it.
FILES = [
    ("sd-2", "sd-1", "condition-width-unfit"), ("sd-1", "sd-2", "width-indivisible"),
    ("sdxl", "sd-1", "condition-width-unfit"), ("sd-1", "sdxl", "width-indivisible"),
    ("sd-2", "sdxl", "condition-width-unfit"), ("sdxl", "sd-2", "layout-wrong"),
]  # fmt: skip


@pytest.mark.parametrize(("unet", "rest", "rule"), FILES)
def test_a_file_with_a_unet_of_another_model_is_refused(unet, rest, rule, files, tmp_path):
    state = {n: t for n, t in files[unet].items() if n.startswith(UNET)}
    state |= {n: t for n, t in files[rest].items() if not n.startswith(UNET)}
    save_file(state, tmp_path / "mixed.safetensors")
    with refused(rule, naming="mixed.safetensors"):
        zoo.load(tmp_path / "mixed.safetensors", prediction="eps")


def test_a_file_with_text_encoders_of_two_models_is_refused(files, tmp_path):
    other = {n: t for n, t in files["sd-2"].items() if n.startswith(SD2_TEXT)}
    save_file(files["sd-1"] | other, tmp_path / "both.safetensors")
    with refused("model-contradicted", naming="Stable Diffusion 1 and of Stable Diffusion 2"):
        zoo.load(tmp_path / "both.safetensors")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("folders")
    for name, pipe in (("a", stable_diffusion()), ("wide", stable_diffusion(**WIDE)), ("xl", stable_diffusion_xl())):
        pipe.save_pretrained(place / name)
    return place


# A part, the folder that it is from, the folder that it is put into, and what catches it.
PUT = [
    ("unet", "wide", "a", "condition-width-unfit"), ("text_encoder", "wide", "a", "condition-width-unfit"),
    ("text_encoder", "xl", "wide", "condition-width-unfit"), ("unet", "a", "xl", "condition-width-unfit"),
    ("text_encoder_2", "a", "xl", "condition-field-missing"), ("vae", "xl", "a", "model-contradicted"),
    ("vae", "a", "xl", "model-contradicted"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "source", "target", "rule"), PUT)
def test_a_folder_with_a_part_of_another_is_refused(part, source, target, rule, folders, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(folders / target, mixed)
    shutil.rmtree(mixed / part)
    shutil.copytree(folders / source / part.removesuffix("_2"), mixed / part)
    with refused(rule, naming="mixed"):
        zoo.load(mixed)
