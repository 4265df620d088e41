"""Reading a model's files: shards, variants, hostile headers and indices, schedulers, names; torch isn't needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.refusals import refused
from zoo.checkpoints.folders import read_json
from zoo.config.models import model_names, read_model
from zoo.config.sources import is_source, reference, split
from zoo.families.stable_diffusion.containers import Safetensors, find_weights, open_container
from zoo.families.stable_diffusion.scheduler import read_scheduler
from zoo.families.stable_diffusion.shapes import unet_from_config
from zoo.families.stable_diffusion.variants import VARIANTS
from zoo.schema.errors import ConfigError, UsageError, WeightsError

SCALED = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading",
    "steps_offset": 1,
}  # fmt: skip


def test_shards_are_one_container_and_their_index_names_plain_files(tmp_path):
    one, two = tmp_path / "m-00001-of-00002.safetensors", tmp_path / "m-00002-of-00002.safetensors"
    save_file({"a": torch.ones(2, 3)}, one)
    save_file({"b": torch.zeros(4)}, two)
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": one.name, "b": two.name}}))
    found = find_weights(tmp_path, "m")
    held = open_container(*found)
    assert held.shapes == {"a": (2, 3), "b": (4,)}
    assert torch.equal(held.tensors(["b", "a"])["a"], torch.ones(2, 3))
    outside = dict.fromkeys(("../m.safetensors", "/etc/m.safetensors", "m\0.safetensors"), "file-outside-folder")
    for name, code in {**outside, "m.txt": "weights-missing", 5: "index-damaged"}.items():
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with refused(code, WeightsError):
            find_weights(tmp_path, "m")
    index.write_text(json.dumps({"weight_map": {"a": one.name, "c": "gone.safetensors"}}))
    with refused("weights-missing", WeightsError, naming=" of "):
        open_container(*find_weights(tmp_path, "m"))
    with refused("index-unfit", WeightsError, naming="a"):
        Safetensors(one, one)


def test_whole_precision_comes_before_half_and_safetensors_before_pickles(tmp_path):
    with refused("weights-missing", WeightsError, naming="model.safetensors"):
        find_weights(tmp_path, "model")
    order = ("pytorch_model.fp16.bin", "model.fp16.safetensors", "pytorch_model.bin", "model.safetensors")
    for name in order:
        (tmp_path / name).touch()
        assert find_weights(tmp_path, "model") == (tmp_path / name,)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "weights-format-unread"),
        ((2**40).to_bytes(8, "little") + b"{}", "weights-header-damaged"),
        ((4).to_bytes(8, "little") + b"{]]}", "weights-header-damaged"),
        ((2).to_bytes(8, "little") + b"[]", "weights-format-unread"),
        ((8).to_bytes(8, "little") + b'{"a":{}}', "weights-header-damaged"),
        (
            (56).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(56),
            "weights-header-damaged",
        ),
    ],
)
def test_a_header_that_is_no_header_is_refused(data, code, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(data)
    with refused(code, WeightsError, naming="x.safetensors"):
        Safetensors(tmp_path / "x.safetensors")
    with refused(code, WeightsError, naming="x.safetensors"):
        zoo.load(tmp_path / "x.safetensors")


def test_a_configuration_that_is_none_is_refused(tmp_path):
    for text, sentence in (("[]", "index-damaged"), ("{", "index-damaged"), ("[" * 9999, "index-damaged")):
        (tmp_path / "config.json").write_text(text)
        with refused(sentence, WeightsError):
            read_json(tmp_path / "config.json")
    with refused("weights-unreadable", WeightsError):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("config", "sampler"),
    [
        (
            {"_class_name": "DDIMScheduler", "set_alpha_to_one": False},
            {"name": "ddim", "grid": {"name": "leading", "offset": 1}, "final": "first"},
        ),
        ({"_class_name": "DDIMScheduler"}, {"name": "ddim", "grid": {"name": "leading", "offset": 1}}),
        (
            {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "timestep_spacing": "trailing"},
            {"name": "plms", "grid": {"name": "trailing"}, "final": "first"},
        ),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": None},
         {"name": "euler", "grid": {"name": "linspace"}}),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
         {"name": "euler", "grid": {"name": "karras"}}),
        (
            {"_class_name": "DPMSolverMultistepScheduler"},
            {"name": "dpmpp-2m", "grid": {"name": "leading", "offset": 1, "skip_cleanest": True}},
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
            {"name": "dpmpp-2m-sde", "grid": {"name": "leading", "offset": 1, "skip_cleanest": True}},
        ),
    ],
)  # fmt: skip
def test_a_schedulers_configuration_is_a_sampler(config, sampler):
    found = read_scheduler({**SCALED, **config}, what="it", offset=None)
    assert found.sampler is not None
    assert {key: value for key, value in found.sampler.items() if key != "steps"} == sampler
    assert found.prediction == "eps"
    # k-diffusion's own start is the largest noise; on a leading grid diffusers adds a sample's variance to it.
    euler = config["_class_name"].startswith("Euler")
    assert found.initial_scale == ("sigma_T" if euler else "unit")


def test_what_no_sampler_of_zoo_has_is_said_and_what_no_schedule_is_refused():
    for config, why in (
        ({"_class_name": "DEISMultistepScheduler"}, "for which zoo has no equal"),
        ({"_class_name": "DDIMScheduler", "thresholding": True}, "has thresholding 'True'"),
        ({"_class_name": "PNDMScheduler"}, "starts by Runge-Kutta steps"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, "has solver_order '3'"),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "odd"}, "its timestep_spacing is 'odd'"),
    ):
        found = read_scheduler({**SCALED, **config}, what="it", offset=1)
        assert found.sampler is None
        assert why in found.why
    with refused("model-switch-unfit", ConfigError, naming="odd"):
        read_scheduler({"_class_name": "DDIMScheduler", "beta_schedule": "odd"}, what="it", offset=1)
    with refused("model-switch-unfit", ConfigError, naming="flow"):
        read_scheduler({"_class_name": "DDIMScheduler", "prediction_type": "flow"}, what="it", offset=1)
    zero = read_scheduler(
        {**SCALED, "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, what="it", offset=1
    )
    assert zero.schedule["name"] == "zero-terminal-snr"
    assert zero.schedule["schedule"]["name"] == "scaled-linear"


def test_a_switch_that_zoos_network_has_not_is_refused_by_name():
    config = {
        "block_out_channels": (64, 128), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "cross_attention_dim": 8,
    }  # fmt: skip
    assert unet_from_config(config, what="it")["heads"] == 8
    for change, sentence in (
        ({"act_fn": "gelu"}, "model-switch-unfit: gelu"),
        ({"addition_embed_type": "image"}, "model-switch-unfit: image"),
        ({"down_block_types": ("KDownBlock2D", "DownBlock2D")}, "model-switch-unfit"),
        ({"attention_head_dim": (3, 8)}, "model-switch-unfit"),
        ({"layers_per_block": (1, 2)}, "model-switch-unfit"),
    ):  # fmt: skip
        with refused(sentence, ConfigError):
            unet_from_config({**config, **change}, what="it")


def test_a_parts_name_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "a #1 & more.safetensors"
    name = reference(path, "unet", {"copy": "ema", "prediction": None, "scale": 0.13025})
    assert split(name) == (path, "unet", {"copy": "ema", "scale": "0.13025"})
    assert split(str(path).replace("#", "")) == (Path(str(path).replace("#", "")), None, {})
    assert is_source(name)
    for other in ("latent-text2img", "", "a\0b", tmp_path, 5, "x.yaml"):
        assert not is_source(other)
    (tmp_path / "model_index.json").write_text("{}")
    assert is_source(tmp_path)
    with refused("model-part-unknown", UsageError):
        zoo.build(name)


def test_published_models_are_listed_and_described_and_refused_without_torch(tmp_path, monkeypatch, capsys):
    from zoo.cli.main import run

    for name in model_names():
        model = read_model(name)
        assert model.variant in VARIANTS
        assert run(["list", "model", name]) == 0
        assert run(["describe", name]) == 0
        assert model.files[0] in capsys.readouterr().out
        monkeypatch.setenv("ZOO_MODELS", str(tmp_path))
        assert run(["check", name]) == 1
        assert f"put {model.files[0]}" in capsys.readouterr().err
    assert run(["check", "latent-text2img", "--weights", "x.safetensors"]) == 2
    assert "weights= says which file a published model is read from" in capsys.readouterr().err
    code = (
        "import sys, zoo\nfrom zoo.config.models import model_names\n"
        "assert [str(zoo.describe(n)) for n in model_names()]\n"
        "try:\n    zoo.build('sd-1.5')\nexcept ValueError:\n    pass\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
