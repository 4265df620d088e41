"""A single file in the original layout is drawn as diffusers draws what its own conversion makes of it."""

import json
import os
import pickle
import shutil
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.families import original
from tests.families.written import SAME, grey_levels
from tests.refusals import refused
from zoo.schema.errors import ConfigError, RequestNote, UsageError, WeightsError

pytestmark = pytest.mark.slow
PROMPT, STEPS, SIDE = "a red apple on a table, 3d style!", 6, 64
NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))


def expected(pipe):
    return pipe(
        PROMPT, latents=NOISE.clone(), num_inference_steps=STEPS, guidance_scale=7.5, height=SIDE, width=SIDE,
        output_type="pt",
    ).images  # fmt: skip


def made(pipe):
    return pipe(PROMPT, noise=NOISE, steps=STEPS, size=SIDE).tensor


@pytest.fixture(scope="module")
def state():
    return original.stable_diffusion_1()


@pytest.fixture(scope="module")
def both():
    """A checkpoint with its U-Net twice, as trained and as a moving average."""
    return original.stable_diffusion_1(average=True)


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "tiny.safetensors"
    save_file(state, path)
    return path


@pytest.mark.peer
def test_a_safetensors_file_draws_what_diffusers_conversion_draws(state, file):
    wanted = expected(original.converted(state))
    loaded = zoo.load(file)
    assert wanted.std() > 0.05
    assert grey_levels(made(loaded), wanted) <= SAME
    assert type(loaded.stages[0].sampler).__name__ == "PLMS"
    assert loaded.record["weights"][f"{file}#unet"] == loaded.record["weights"][f"{file}#text"]
    for other in (
        {"stages.0.sampler.final": "clean"},
        {"stages.0.sampler.grid.offset": 0},
        {"stages.0.sampler.name": "ddim"},
    ):
        assert grey_levels(made(zoo.build(file, overrides=other)), wanted) > SAME
    assert grey_levels(made(zoo.load(file, prediction="v")), wanted) > SAME


@pytest.mark.peer
def test_of_two_copies_the_average_is_drawn_with_and_it_is_said(both, tmp_path):
    torch.save(original.lightning(both), tmp_path / "both.ckpt")
    averaged, plain = (expected(original.converted(both, ema=ema)) for ema in (True, False))
    assert grey_levels(averaged, plain) > 1
    with pytest.warns(RequestNote, match="holds its U-Net twice, and the moving average is drawn with"):
        loaded = zoo.load(tmp_path / "both.ckpt")
    assert grey_levels(made(loaded), averaged) <= SAME
    assert loaded.record["config"]["stages"][0]["denoiser"]["weights"].endswith("#unet?copy=ema")
    assert grey_levels(made(zoo.load(tmp_path / "both.ckpt", copy="plain")), plain) <= SAME


@pytest.mark.peer
def test_by_name_with_another_sampler_and_another_autoencoder(state, file, tmp_path):
    other = original.drawn({n: tuple(t.shape) for n, t in state.items() if n.startswith("first_stage_model.")}, 20)
    kl = {n.removeprefix("first_stage_model."): t for n, t in other.items()}
    save_file(kl, tmp_path / "vae.safetensors")
    pipe = original.converted({**state, **other})
    pipe.vae.save_pretrained(tmp_path / "vae-folder")
    wanted = expected(pipe)
    written = tmp_path / "vae-folder" / "diffusion_pytorch_model.safetensors"
    for place in (tmp_path / "vae.safetensors", tmp_path / "vae-folder", written):
        loaded = zoo.build("sd-1.5", weights=file, autoencoder=place)
        assert grey_levels(made(loaded), wanted) <= SAME
    assert grey_levels(made(zoo.build("sd-1.5", weights=file)), wanted) > SAME
    solver = zoo.build("sd-1.5", weights=str(file), sampler="dpmpp-2m", autoencoder=str(tmp_path / "vae.safetensors"))
    assert type(solver.stages[0].sampler).__name__ == "DPMpp2M"
    assert solver.stages[0].autoencoder.scale == 0.18215


def test_an_autoencoder_that_isnt_the_u_nets_is_refused_before_weights(state, file, tmp_path):
    kl = {n.removeprefix("first_stage_model."): t for n, t in state.items() if n.startswith("first_stage_model.")}
    save_file(kl, tmp_path / "vae.safetensors")
    zoo.check(file, autoencoder=tmp_path / "vae.safetensors")
    claims = {"modelspec.architecture": "stable-diffusion-xl-v1-base/vae"}
    save_file(kl, tmp_path / "xl.safetensors", metadata=claims)
    folder = tmp_path / "folder"
    shutil.copytree(converted_autoencoder(state, tmp_path), folder)
    config = json.loads((folder / "config.json").read_text())
    zoo.check(file, autoencoder=folder)
    (folder / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.13025}))
    wide = {n: torch.cat([t] * 4, 1) if n == "post_quant_conv.weight" else t for n, t in kl.items()}
    save_file(wide, tmp_path / "wide.safetensors")
    for place, why in (("xl.safetensors", "metadata"), ("folder", "0.13025"), ("wide.safetensors", "channels")):
        with refused("model-contradicted", ConfigError, naming=why):
            zoo.check(file, autoencoder=tmp_path / place)


def converted_autoencoder(state, folder):
    """The autoencoder of a checkpoint as diffusers saves it."""
    original.converted(state).vae.save_pretrained(folder / "as-diffusers")
    return folder / "as-diffusers"


def test_a_name_without_its_file_says_which_to_put_where(file, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_MODELS", str(tmp_path))
    with refused("weights-missing", WeightsError, naming="sd-1.5"):
        zoo.build("sd-1.5")
    os.symlink(file, tmp_path / "sd-1.5.safetensors")
    assert zoo.build("sd-1.5").record["config"]["name"] == "sd-1.5"


def test_a_record_builds_the_same_pipeline_again(file):
    loaded = zoo.load(file)
    again = zoo.build(loaded.record["config"])
    assert torch.equal(made(loaded), made(again))


def test_missing_left_over_and_misshapen_tensors_are_refused_by_name(state, tmp_path):
    unet = "model.diffusion_model."

    def refuse(change, code):
        changed = {**state, **{n: t for n, t in change.items() if t is not None}}
        kept = {n: t for n, t in changed.items() if n not in change or change[n] is not None}
        save_file(kept, tmp_path / "x.safetensors")
        with refused(code, WeightsError):
            zoo.load(tmp_path / "x.safetensors")

    refuse({f"{unet}middle_block.0.in_layers.2.bias": None}, "tensors-unfit: missing 'middle_block.0.in_layers.2.bias'")
    refuse({f"{unet}adapter.weight": torch.zeros(2, 2)}, "tensors-unfit: unexpected 'adapter.weight'")
    refuse({f"{unet}out.2.bias": torch.zeros(5)}, "tensors-unfit: 'out.2.bias' is (5) where (4) is needed")
    refuse({"first_stage_model.decoder.extra": torch.zeros(5)}, "tensors-unfit: unexpected 'decoder.extra'")
    text = "cond_stage_model.transformer.text_model.final_layer_norm"
    refuse({f"{text}.bias": None}, "tensors-unfit: missing 'ln_final.bias'")


def test_a_lightning_checkpoint_with_its_callbacks_class_is_read_without_the_class(state, tmp_path, monkeypatch):
    modules = ("pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint")
    for name in modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    kind = type("ModelCheckpoint", (), {"__module__": modules[-1]})
    monkeypatch.setattr(sys.modules[modules[-1]], "ModelCheckpoint", kind, raising=False)
    torch.save({**original.lightning(state), "callbacks": {kind: {"best": torch.ones(1)}}}, tmp_path / "a.ckpt")
    monkeypatch.undo()
    assert zoo.load(tmp_path / "a.ckpt").stages[0].size == 512


class _Payload:
    def __reduce__(self):
        return os.mkdir, ("/nowhere/ran",)


def test_a_pickle_is_never_run(state, tmp_path):
    torch.save({"state_dict": dict(state), "callbacks": _Payload()}, tmp_path / "evil.ckpt")
    with refused("weights-not-tensors", WeightsError, naming="posix.mkdir"):
        zoo.load(tmp_path / "evil.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(_Payload()))
    with refused("weights-not-tensors", WeightsError):
        zoo.load(tmp_path / "plain.ckpt")


def test_what_cant_be_drawn_is_said(state, file, tmp_path):
    kl = {n: t for n, t in state.items() if n.startswith("first_stage_model.")}
    save_file(kl, tmp_path / "vae.safetensors")
    with refused("model-part-missing", UsageError):
        zoo.load(tmp_path / "vae.safetensors")
    save_file({n: t for n, t in state.items() if n not in kl}, tmp_path / "bare.safetensors")
    with refused("model-part-missing", ConfigError):
        zoo.load(tmp_path / "bare.safetensors")
    assert zoo.load(tmp_path / "bare.safetensors", autoencoder=tmp_path / "vae.safetensors").stages
    unets = {n: t for n, t in state.items() if n.startswith("model.")}
    save_file(unets, tmp_path / "unet.safetensors")
    with refused("model-switch-unfit", WeightsError):
        zoo.load(tmp_path / "unet.safetensors")
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with refused("model-unread", WeightsError):
        zoo.load(tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-100])
    with refused("weights-header-damaged", WeightsError):
        zoo.load(tmp_path / "cut.safetensors")
