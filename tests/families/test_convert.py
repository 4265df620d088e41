"""`zoo convert` copies every bit, both ways; diffusers reads what it writes and converts to the same."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from tests.refusals import refused
from zoo.autoencoders.kl import AutoencoderKL
from zoo.checkpoints.headers import TensorEntry
from zoo.cli.main import run
from zoo.conditioners.clip_text import ClipText
from zoo.families.explain import explain
from zoo.families.key_lists import key_lists
from zoo.families.stable_diffusion import folder_configs as configs
from zoo.families.stable_diffusion.convert import KEPT, convert
from zoo.families.stable_diffusion.layouts import (
    kl_to_diffusers,
    kl_to_original,
    text_to_diffusers,
    text_to_original,
    unet_to_diffusers,
    unet_to_original,
)
from zoo.networks.unet import UNet
from zoo.schema.errors import ConfigError, UsageError, WeightsError, ZooError

UNET, VAE = "model.diffusion_model.", "first_stage_model."


def entries(shapes, prefix="", dtype="F16"):
    """Tensors without a file: what is planned is looked at, nothing is copied."""
    return {prefix + n: TensorEntry(dtype, tuple(s), None, 0, 0) for n, s in shapes.items()}  # type: ignore[arg-type]


def shapes(copies, prefix=""):
    return {n.removeprefix(prefix): c.shape for n, c in copies.items()}


# -- full-size names and shapes, by the lists

UNETS = {
    "ldm_unet/v1-inference": "sd15/unet", "sd2_unet/v2-inference": "sd21/unet",
    "sdxl_unet/sd_xl_base": "sdxl-base/unet",
    "sdxl_unet/sd_xl_refiner": "sdxl-refiner/unet", "sd2_unet/x4-upscaling": "sdx4/unet",
}  # fmt: skip
HEADS = {"ldm_unet/v1-inference": 8, "sd2_unet/x4-upscaling": 8}


@pytest.mark.parametrize("name", UNETS)
def test_a_published_unet_has_the_published_names_in_the_other_layout(name):
    ours, theirs = key_lists()[name], key_lists()[UNETS[name]]
    used: set[str] = set()
    there = unet_to_diffusers(entries(ours), used, names={n: UNET + n for n in ours})
    assert shapes(there) == theirs
    assert used == {UNET + n for n in ours}
    assert shapes(unet_to_original(entries(theirs), averaged=False), UNET) == ours


@pytest.mark.parametrize(
    ("ours", "theirs"), [("ldm_ae/kl-f8", "sd/vae-kl-f8"), ("sd2_ae/x4-upscaler", "sdx4/vae-kl-f4")]
)
def test_a_published_autoencoder_has_the_published_names_in_the_other_layout(ours, theirs):
    ours, theirs = key_lists()[ours], key_lists()[theirs]
    assert shapes(kl_to_diffusers(entries(ours, VAE), VAE, set())) == theirs
    assert shapes(kl_to_original(entries(theirs), VAE), VAE) == ours
    old = {n.replace("to_q", "query").replace("to_out.0", "proj_attn"): s for n, s in theirs.items()}
    assert shapes(kl_to_original(entries(old), VAE), VAE) == ours


def test_published_text_towers_have_the_published_names_in_the_other_layout():
    big, huge = key_lists()["openclip-bigG/text"], key_lists()["openclip-h/text"]
    prefix = "conditioner.embedders.1.model."
    there = text_to_diffusers(entries(big, prefix), prefix, set(), drop=0, projected=True)
    assert shapes(there) == key_lists()["openclip-bigG/text+proj"]
    assert shapes(text_to_original(entries(shapes(there)), prefix, projected=True), prefix) == {
        n: s for n, s in big.items() if n != "logit_scale"
    }  # fmt: skip
    prefix = "cond_stage_model.model."
    there = text_to_diffusers(entries(huge, prefix), prefix, set(), drop=1, projected=False)
    assert shapes(there, "text_model.") == key_lists()["openclip-h/text(23L)"]


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("name", [*UNETS, "sd2_unet/v2-1-stable-unclip-h-inference"])
def test_the_configuration_is_the_class_with_the_published_tensors(name):
    from diffusers import UNet2DConditionModel

    theirs = key_lists()[UNETS.get(name, "sd21-unclip-h/unet")]
    config = configs.unet_config(theirs, heads=HEADS.get(name), sample_size=64)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    assert {n: tuple(t.shape) for n, t in unet.state_dict().items()} == theirs
    heads = [b.attentions[0].transformer_blocks[0].attn1.heads for b in unet.down_blocks if hasattr(b, "attentions")]
    assert heads == {
        "ldm_unet/v1-inference": [8] * 3, "sdxl_unet/sd_xl_base": [10, 20], "sd2_unet/v2-inference": [5, 10, 20],
        "sdxl_unet/sd_xl_refiner": [12, 24], "sd2_unet/x4-upscaling": [8] * 3,
        "sd2_unet/v2-1-stable-unclip-h-inference": [5, 10, 20],
    }[name]  # fmt: skip


@pytest.mark.peer
@pytest.mark.slow
def test_the_other_configurations_are_classes_with_the_published_tensors():
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    theirs = key_lists()["sd/vae-kl-f8"]
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL.from_config(configs.vae_config(theirs, scale=0.18215, sample_size=512))
        assert {n: tuple(t.shape) for n, t in vae.state_dict().items()} == theirs
        for name, kind, open_clip in (("clip-vit-l-14/text", CLIPTextModel, False),
                                      ("openclip-h/text(23L)", CLIPTextModel, True),
                                      ("openclip-bigG/text+proj", CLIPTextModelWithProjection, True)):  # fmt: skip
            bare = {n.removeprefix("text_model."): s for n, s in key_lists()[name].items()}
            config = configs.text_config(bare, open_clip=open_clip, projected="proj" in name)
            tower = kind(CLIPTextConfig(**config))
            found = {n.removeprefix("text_model."): tuple(t.shape) for n, t in tower.state_dict().items()}
            assert {n: s for n, s in found.items() if "position_ids" not in n} == bare


# -- tiny models

TINY = {"width": 32, "mult": (1, 2), "blocks": 1, "attention_levels": (0,), "heads": 4, "context_width": 32}


def randomly(module, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        n: torch.randn(t.shape, generator=generator) for n, t in module.state_dict().items() if t.is_floating_point()
    }


def original(line, *, average=True, dtype=torch.float16):
    """A checkpoint's tensors in the original layout, by zoo's networks, whose names those are."""
    linear = line != "sd-1"
    unet = randomly(UNet(**TINY, projection="linear" if linear else "conv"), 0)
    vae = randomly(AutoencoderKL(width=32, mult=(1, 2), blocks=1, z_channels=4), 1)
    tower = randomly(ClipText(width=32, heads=4, layers=3, embed_dim=32), 2)
    out = {UNET + n: t for n, t in unet.items()} | {VAE + n: t for n, t in vae.items()}
    if line == "sd-1":
        names = text_to_diffusers(entries({n: t.shape for n, t in tower.items()}, ".model."), ".model.", set(), drop=0,
                                  projected=False)  # fmt: skip
        for i, (name, copied) in enumerate(names.items()):
            generator = torch.Generator().manual_seed(i)
            out["cond_stage_model.transformer." + name] = torch.randn(copied.shape, generator=generator)
    else:
        out |= {"cond_stage_model.model." + n: t for n, t in tower.items()}
        out["cond_stage_model.model.logit_scale"] = torch.tensor(4.6)
    if average:
        out |= {"model_ema.diffusion_model" + n.replace(".", ""): t + 1 for n, t in unet.items()}
    out |= {"betas": torch.linspace(0, 1, 10), "model_ema.decay": torch.tensor(0.99)}
    return {n: t.to(dtype) if n.startswith(UNET) else t.contiguous() for n, t in out.items()}


def same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("line", ["sd-1", "sd-2"])
@pytest.mark.parametrize("copy", ["ema", "plain"])
@pytest.mark.parametrize("container", ["safetensors", "ckpt"])
def test_a_file_comes_back_from_a_folder_bit_by_bit(tmp_path, line, copy, container):
    tensors = original(line)
    path = tmp_path / f"x.{container}"
    if container == "ckpt":
        torch.save({"state_dict": tensors, "global_step": 3}, path)
    else:
        save_file(tensors, path, metadata={"modelspec.title": "tiny", "recipe": "seed 0"})
    convert(path, tmp_path / "folder", copy=copy, prediction="eps", heads=4)
    convert(tmp_path / "folder", tmp_path / "back.safetensors")
    same(load_file(tmp_path / "back.safetensors"), tensors)
    if container == "safetensors":
        with safe_open(tmp_path / "back.safetensors", framework="pt") as file:
            assert file.metadata()["recipe"] == "seed 0"
    unet = load_file(tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors")
    taken = "model_ema.diffusion_modeltime_embed0weight" if copy == "ema" else f"{UNET}time_embed.0.weight"
    assert torch.equal(unet["time_embedding.linear_1.weight"], tensors[taken])


def test_a_schedulers_infinity_is_read_and_comes_back(tmp_path):
    """diffusers writes `"lambda_min_clipped": -Infinity` into a DPM-Solver's configuration."""
    save_file(original("sd-1"), tmp_path / "x.safetensors")
    convert(tmp_path / "x.safetensors", tmp_path / "folder", heads=4)
    place = tmp_path / "folder" / "scheduler" / "scheduler_config.json"
    said = {**json.loads(place.read_text()), "lambda_min_clipped": -math.inf, "sigma_max": math.nan}
    place.write_text(json.dumps(said))
    assert "-Infinity" in place.read_text()
    assert explain(tmp_path / "folder").family is not None
    assert run(["explain", str(tmp_path / "folder"), "--json"]) == 0
    assert run(["convert", str(tmp_path / "folder"), str(tmp_path / "y.safetensors")]) == 0
    assert run(["convert", str(tmp_path / "y.safetensors"), str(tmp_path / "again")]) == 0
    found = json.loads((tmp_path / "again" / "scheduler" / "scheduler_config.json").read_text())
    assert found["lambda_min_clipped"] == -math.inf
    assert math.isnan(found["sigma_max"])


ODD = (None, 0, -1, 2.5, "x", [], [0], [[1]], {}, {"a": 1}, True, 10**30, [None, None], "\ud800")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
                                  "scheduler/scheduler_config.json"])  # fmt: skip
def test_any_value_in_a_folders_json_is_read_or_refused_in_a_sentence(tmp_path, file):
    save_file(original("sd-1", average=False), tmp_path / "x.safetensors")
    convert(tmp_path / "x.safetensors", tmp_path / "folder", heads=4)
    place = tmp_path / "folder" / file
    usual = json.loads(place.read_text())
    refusals = 0
    for key in (*usual, "unheard of"):
        for value in ODD:
            place.write_text(json.dumps({**usual, key: value}))
            for use in (explain, zoo.check, lambda folder: convert(folder, tmp_path / "out.safetensors")):
                try:
                    use(tmp_path / "folder")
                except ZooError:
                    refusals += 1
            (tmp_path / "out.safetensors").unlink(missing_ok=True)
    assert refusals > 20


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("line", ["sd-1", "sd-2"])
def test_diffusers_converts_to_the_same_tensors_and_loads_the_folder(tmp_path, line):
    from diffusers import StableDiffusionPipeline
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    tensors = original(line, average=False, dtype=torch.float32)
    save_file(tensors, tmp_path / "x.safetensors")
    convert(tmp_path / "x.safetensors", tmp_path / "folder", prediction="v" if line == "sd-2" else None, heads=4)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert pipe.scheduler.config.prediction_type == ("v_prediction" if line == "sd-2" else "epsilon")
    same(dict(pipe.unet.state_dict()), convert_ldm_unet_checkpoint(dict(tensors), dict(pipe.unet.config)))
    same(dict(pipe.vae.state_dict()), convert_ldm_vae_checkpoint(dict(tensors), dict(pipe.vae.config)))
    assert pipe.text_encoder.config.num_hidden_layers == (2 if line == "sd-2" else 3)
    ids = pipe.tokenizer("a cat!", padding="max_length").input_ids
    assert ids[-1] == (0 if line == "sd-2" else 49407)


def pipeline(line, folder):
    """A tiny pipeline that diffusers wrote."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    xl = line.startswith("sdxl")
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=64 if line == "sdxl-base" else 32,
        attention_head_dim=(2, 4) if xl else 4, use_linear_projection=line != "sd-1",
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D") if xl else ("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D") if xl else ("UpBlock2D", "CrossAttnUpBlock2D"),
        transformer_layers_per_block=(1, 2) if xl else 1, addition_embed_type="text_time" if xl else None,
        addition_time_embed_dim=8 if xl else None, projection_class_embeddings_input_dim=80 if xl else None,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(block_out_channels=(32, 64), down_block_types=["DownEncoderBlock2D"] * 2,
                                  up_block_types=["UpDecoderBlock2D"] * 2, scaling_factor=0.5)  # fmt: skip
    text = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
            "vocab_size": 99, "projection_dim": 32, "bos_token_id": 0, "eos_token_id": 2}  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction")
    parts = {"unet": unet, "vae": vae, "scheduler": scheduler, "tokenizer": None}
    if xl:
        first = CLIPTextModel(CLIPTextConfig(**text)) if line == "sdxl-base" else None
        second = CLIPTextModelWithProjection(CLIPTextConfig(**text))
        parts |= {"text_encoder": first, "text_encoder_2": second, "tokenizer_2": None}
        made = diffusers.StableDiffusionXLPipeline(**parts)
    else:
        parts |= {"text_encoder": CLIPTextModel(CLIPTextConfig(**text)), "safety_checker": None}
        made = diffusers.StableDiffusionPipeline(**parts, feature_extractor=None, requires_safety_checker=False)
    for module in (made.unet, made.vae):
        module.half()
    made.save_pretrained(folder, max_shard_size="100KB")
    return made


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("line", ["sd-1", "sd-2", "sdxl-base", "sdxl-refiner"])
def test_a_folder_of_diffusers_comes_back_bit_by_bit(tmp_path, line):
    from diffusers import DiffusionPipeline

    pipeline(line, tmp_path / "theirs")
    done = convert(tmp_path / "theirs", tmp_path / "x.safetensors")
    assert len(done.notes) == (line == "sd-2")
    convert(tmp_path / "x.safetensors", tmp_path / "back", shard_bytes=100_000)
    assert len(list((tmp_path / "back" / "unet").glob("*.safetensors"))) > 1
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if not (tmp_path / "theirs" / part).is_dir():
            continue
        one, other = (
            {n.removeprefix("text_model."): t for p in (tmp_path / side / part).glob("*.safetensors")
             for n, t in load_file(p).items()}
            for side in ("theirs", "back")
        )  # fmt: skip
        same({n: t for n, t in one.items() if "position_ids" not in n}, other)
        ours, theirs = (json.loads((tmp_path / s / part / "config.json").read_text()) for s in ("back", "theirs"))
        assert ours == theirs
    assert json.loads((tmp_path / "back" / "scheduler" / "scheduler_config.json").read_text()) == json.loads(
        (tmp_path / "theirs" / "scheduler" / "scheduler_config.json").read_text()
    )
    again = DiffusionPipeline.from_pretrained(tmp_path / "back", tokenizer=None, tokenizer_2=None)
    assert again.unet.config.attention_head_dim == ([2, 4] if line.startswith("sdxl") else 4)


# -- requests that can't be met, and files that aren't whole


def test_what_cannot_be_told_is_not_guessed(tmp_path):
    save_file(original("sd-2"), tmp_path / "x.safetensors")
    with refused("prediction-unstated", ConfigError):
        convert(tmp_path / "x.safetensors", tmp_path / "folder", heads=4)
    with refused("heads-unstated", ConfigError):
        convert(tmp_path / "x.safetensors", tmp_path / "folder", prediction="v")
    assert not (tmp_path / "folder").exists()
    save_file(original("sd-2") | {"v_pred": torch.zeros(0)}, tmp_path / "y.safetensors")
    convert(tmp_path / "y.safetensors", tmp_path / "folder", heads=4)
    said = json.loads((tmp_path / "folder" / "scheduler" / "scheduler_config.json").read_text())
    assert said["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("change", "copy", "code"),
    [
        ({f"{UNET}out.2.extra": torch.zeros(1)}, "plain", "layout-wrong: out.2.extra"),
        ({"first_stage_model.encoder.other.weight": torch.zeros(1)}, None, ""),
        ({"low_scale_model.x": torch.zeros(1)}, None, "conversion-unfit"),
        ({"model_ema.diffusion_modelout2bias": None}, "ema", "average-unfit: 'out.2.bias'"),
        (
            {n: None for n in original("sd-1") if n.startswith("cond_stage")},
            None,
            "conversion-unfit: model.diffusion_model.",
        ),
        ({n: None for n in original("sd-1") if n.startswith(VAE)}, None, "tensor-missing"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_and_leaves_nothing(tmp_path, change, copy, code):
    tensors = {n: t for n, t in (original("sd-1") | change).items() if t is not None}
    save_file(tensors, tmp_path / "x.safetensors")
    before = set(tmp_path.iterdir())
    if "encoder.other" in str(change):  # a name that both layouts keep as it is: it goes and comes back
        convert(tmp_path / "x.safetensors", tmp_path / "folder", copy=copy, heads=4)
        convert(tmp_path / "folder", tmp_path / "back.safetensors")
        same(load_file(tmp_path / "back.safetensors"), tensors)
        return
    with refused(code):
        convert(tmp_path / "x.safetensors", tmp_path / "folder", copy=copy, heads=4)
    assert set(tmp_path.iterdir()) == before


def test_nothing_is_written_over(tmp_path):
    save_file(original("sd-1"), tmp_path / "x.safetensors")
    (tmp_path / "there").mkdir()
    with refused("output-taken", UsageError):
        convert(tmp_path / "x.safetensors", tmp_path / "there")
    with refused("output-format-unknown", UsageError):
        convert(tmp_path / "there", tmp_path / "y.ckpt")
    with refused("choice-unknown", UsageError):
        convert(tmp_path / "x.safetensors", tmp_path / "f", copy="both")


@pytest.mark.parametrize("said", ["[]", '{"../x": {}}', '{"unet/config.json": 1}', "{" * 1000])
def test_a_folders_json_in_a_file_stays_inside_the_folder(tmp_path, said):
    save_file(original("sd-1"), tmp_path / "x.safetensors", metadata={"zoo.folder": said})
    with refused("metadata-unreadable", WeightsError):
        convert(tmp_path / "x.safetensors", tmp_path / "folder", heads=4)


def test_the_command_says_what_it_kept(tmp_path, capsys):
    save_file(original("sd-1"), tmp_path / "x.safetensors")
    assert run(["convert", str(tmp_path / "x.safetensors"), str(tmp_path / "folder"), "--heads", "4"]) == 0
    assert KEPT in capsys.readouterr().out
    assert run(["convert", str(tmp_path / "folder"), str(tmp_path / "y.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tensors"] == len(original("sd-1"))
    assert run(["convert", str(tmp_path / "folder"), str(tmp_path / "y.safetensors")]) == 2
