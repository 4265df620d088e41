"""What `zoo export` writes is a pipeline of zoo's again: as a folder, and its parts as weights."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import zoo
from tests.checkpoints.test_export import PROMPTS, SYSTEMS, make, ours
from tests.refusals import refused
from zoo.cli.main import run
from zoo.config.cards import read_card
from zoo.families.diffusers.export import export_diffusers
from zoo.schema.errors import ConfigError, WeightsError


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_folder_draws_what_was_exported(name, tmp_path):
    """From the configurations alone: a pipeline made of parts has no config to write beside them."""
    pipeline = make(**SYSTEMS[name])
    pipeline.stages[0].denoiser.initial_scale = "unit"  # as StableDiffusionPipeline starts
    folder = export_diffusers(pipeline, tmp_path / "exported")
    assert not (folder / "zoo.yaml").exists()
    again = zoo.build(folder, steps=10)
    assert again.stages[0].denoiser.schedule.T == pipeline.stages[0].denoiser.schedule.T
    # Another tower's padding, layer or activation, another grid or schedule, would each change the image.
    expected, found = (ours(p, PROMPTS, steps=10, guidance=3.0) for p in (pipeline, again))
    assert expected.std() > 20.0
    assert np.abs(found - expected).max() <= 1.0


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "emoji"
    assert run(["export", str(folder), "--set", "stages.0.guidance.0.scale=3.5"]) == 0
    return folder


@pytest.mark.slow
def test_the_command_line_takes_what_it_exported(exported, tmp_path, capsys):
    for model, more in ((str(exported), []), ("latent-text2img", ["--guidance", "3.5"])):
        file = tmp_path / f"{len(more)}.png"
        command = ["generate", "red apple", "--steps", "2", "--model", model, "-o", str(file), *more]
        assert run(command) == 0, capsys.readouterr().err
    found, expected = (np.asarray(Image.open(tmp_path / f"{i}.png")) for i in (0, 2))
    assert np.array_equal(found, expected)


@pytest.mark.slow
def test_the_words_go_with_the_weights(exported, capsys):
    assert run(["generate", "red appel", "--model", str(exported)]) == 2
    assert "did you mean apple" in capsys.readouterr().err


@pytest.mark.slow
def test_the_parts_are_weights(exported):
    config = {
        "schema": "zoo.pipeline/1",
        "conditioners": {"text": {"weights": "emoji-base-32-text"}},
        "stages": [
            {"listens": ["text"], "size": 64, "sampler": "heun", "denoiser": {"weights": str(exported / "unet")},
             "autoencoder": {"weights": str(exported / "vae")}}
        ],
    }  # fmt: skip
    assert zoo.check(config)["stages"][0]["denoiser"] == {"weights": str(exported / "unet")}
    mine, shipped = zoo.load(str(exported / "unet")).network, zoo.load("emoji-latent-64").network
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), shipped.parameters(), strict=True))


def edited(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("name", "changes", "code", "said"),
    [
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler"}, "sampler-unmatched", "PNDMScheduler"),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "odd"}, "sampler-unmatched", "timestep_spacing"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "model-switch-unfit", "type 'flow'"),
        (
            "scheduler/scheduler_config.json", {"beta_schedule": "own", "trained_betas": None}, "model-switch-unfit",
            "beta_schedule 'own'",
        ),
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "model-switch-unfit", "UNet2DModel"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "model-switch-unfit", "class_embed_type 'timestep'"),
        (
            "unet/config.json", {"down_block_types": ["SimpleCrossAttnDownBlock2D"]}, "model-switch-unfit",
            "SimpleCrossAttnDownBlock2D",
        ),
        ("unet/config.json", {"attention_head_dim": [3, 5]}, "width-indivisible", "heads is 5"),
        ("unet/config.json", {"flip_sin_to_cos": False}, "model-switch-unfit", "flip_sin_to_cos False"),
        ("unet/config.json", {"block_out_channels": ["wide", 32]}, "model-switch-unfit", "whole numbers"),
        ("vae/config.json", {"mid_block_add_attention": False}, "model-switch-unfit", "no autoencoder"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "model-switch-unfit", "hidden_act 'relu'"),
    ],
)  # fmt: skip
def test_what_zoo_has_no_module_for_is_refused(name, changes, code, said, tmp_path):
    folder = edited(export_diffusers(make(), tmp_path / "exported"), name, **changes)
    with refused(code, ConfigError, naming=said):
        zoo.check(folder)


def test_damage_is_named(tmp_path):
    folder = export_diffusers(make(), tmp_path / "exported")
    (folder / "vae" / "config.json").write_text("{")
    with refused("index-damaged", WeightsError, naming="config.json"):
        zoo.check(folder)
    (folder / "vae" / "config.json").unlink()
    with refused("weights-unreadable", WeightsError, naming="config.json"):
        zoo.check(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with refused("weights-missing", WeightsError, naming="diffusion_pytorch_model.safetensors"):
        read_card(str(folder / "unet"))
    edited(folder, "model_index.json", _class_name="FluxPipeline")
    with refused("model-unread", WeightsError):
        zoo.check(folder)
    with refused("pipeline-unknown", ConfigError):
        zoo.check(str(tmp_path))


def test_a_tensor_too_many_is_refused(tmp_path):
    folder = export_diffusers(make(), tmp_path / "exported")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "stray": torch.zeros(1)}, file)
    with refused("tensors-unfit", WeightsError, naming="stray"):
        zoo.load(folder)


@pytest.mark.slow
def test_a_preset_comes_before_a_folder_of_its_name(exported, tmp_path, monkeypatch):
    (tmp_path / "pixel-ddpm-32").symlink_to(exported)
    monkeypatch.chdir(tmp_path)
    assert zoo.check("pixel-ddpm-32")["stages"][0]["size"] == 32
    assert zoo.check(tmp_path / "pixel-ddpm-32")["stages"][0]["size"] == 64


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "stages:", "stages: 5", "stages: [5]", "stages: {a: 1}", "stages: []"])
def test_a_folder_whose_own_config_has_no_stages_is_refused(exported, tmp_path, text):
    whole = shutil.copytree(exported, tmp_path / "edited", copy_function=os.link)
    (whole / "zoo.yaml").unlink()
    (whole / "zoo.yaml").write_text(f"schema: zoo.pipeline/1\n{text}\n")
    with refused("stages-missing", ConfigError):
        zoo.check(str(whole))
