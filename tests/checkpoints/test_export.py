"""A pipeline exported to a diffusers folder is drawn by StableDiffusionPipeline as zoo draws it."""

import json

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open

from tests.networks.random_weights import randomise
from tests.refusals import refused
from zoo.autoencoders.identity import Identity
from zoo.autoencoders.kl import AutoencoderKL
from zoo.conditioners import vocabulary
from zoo.conditioners.clip_text import ClipText
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.noise import AddressedNoise
from zoo.diffusion.parameterization import X0, Eps, V
from zoo.diffusion.schedules import CosineSchedule, LinearSchedule, ScaledLinearSchedule
from zoo.families.diffusers import export
from zoo.families.diffusers.config import kl_config, scheduler_config, unet_config
from zoo.families.diffusers.export import export_diffusers
from zoo.guidance.classifier_free import ClassifierFree
from zoo.images.space import Images
from zoo.networks.unet import UNet
from zoo.pipeline.pipeline import Pipeline, Stage
from zoo.samplers.ddim import DDIM
from zoo.samplers.dpmpp import DPMpp2M
from zoo.samplers.grid import Karras, Leading, Linspace, Trailing
from zoo.schema.errors import ConfigError, UsageError, ZooError

PROMPTS = ["red apple, 3d style", "wow! a fox"]


def make(
    *, schedule=None, parameterization=None, grid=None, final="clean", unet=None, autoencoder=None, text=None,
    time="index", sampler=None,
):  # fmt: skip
    compact = {"activation": "gelu", "pad": "zero", "compact": True} if text is None else text
    conditioner = ClipText(width=20, heads=5, layers=3, context_length=16, embed_dim=8, **compact)
    full = randomise(ClipText(width=20, heads=5, layers=3, context_length=16, embed_dim=8)).float().state_dict()
    if conditioner.compact:
        full["token_ids"] = vocabulary.used_ids(["red apple , 3d style wow ! a fox"])
        full["token_embedding.weight"] = vocabulary.compact(full["token_embedding.weight"], full["token_ids"])
    conditioner.load_state_dict(full)
    shape = {"width": 16, "mult": (1, 3), "blocks": 1, "attention_levels": (1,), "heads": 3, "groups": 8}
    network = randomise(UNet(context_width=20, **(shape if unet is None else unet)), seed=4).float()
    shape = {"width": 8, "mult": (1, 2, 3), "blocks": 1, "groups": 4, **(autoencoder or {})}
    images = randomise(AutoencoderKL(**shape), seed=5).float()
    stage = Stage(
        name="base", listens=("text",), space=Images(32), autoencoder=images, guidance=(ClassifierFree(scale=3.0),),
        denoiser=Denoiser(
            network=network, schedule=schedule or CosineSchedule(), parameterization=parameterization or V(),
            time_input=time,
        ),
        sampler=sampler or DDIM(steps=10, grid=grid or Trailing(), final=final),
    )  # fmt: skip
    return Pipeline(conditioners={"text": conditioner.eval()}, stages=[stage])


def theirs(folder, pipeline, prompts, *, steps, guidance):
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    stage = pipeline.stages[0]
    start = stage.sampler.plan(stage.denoiser.schedule, steps).start
    eps = AddressedNoise(7)((4, 8, 8), purpose="start", samples=range(len(prompts)))
    # zoo begins at the noise the schedule ends with; diffusers always at 1.
    out = loaded(
        prompts,
        latents=eps * start.sigma,
        num_inference_steps=steps,
        guidance_scale=guidance,
        eta=0.0,
        output_type="np",
    )
    return np.round(out.images * 255.0)


def ours(pipeline, prompts, *, steps, guidance):
    tensor = pipeline(prompts, seed=7, steps=steps, guidance=guidance).tensor
    return np.round(tensor.permute(0, 2, 3, 1).numpy() * 255.0)


SYSTEMS = {
    "as shipped": {},
    "as Stable Diffusion 1": {
        "schedule": ScaledLinearSchedule(), "parameterization": Eps(), "grid": Leading(), "final": "first",
        "text": {"activation": "quick-gelu", "pad": "end"}, "autoencoder": {"scale": 0.3},
    },
    "as Stable Diffusion 2": {
        "schedule": ScaledLinearSchedule(), "text": {"activation": "gelu", "pad": "zero", "layer": 2},
        "unet": {"width": 16, "mult": (1, 2), "blocks": 2, "attention_levels": (0, 1), "head_width": 8, "groups": 8,
                 "projection": "linear"},
    },
    "x0, other cosine, shifted latents": {
        "schedule": CosineSchedule(offset=0.02, beta_cap=0.99), "parameterization": X0(),
        "autoencoder": {"scale": 0.7, "shift": 0.4},
    },
    "linear, deep": {
        "schedule": LinearSchedule(),
        "unet": {"width": 16, "mult": (1, 2), "blocks": 1, "attention_levels": (0,), "heads": 2, "groups": 4,
                 "depth": 2},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("name", SYSTEMS)
def test_exported_pipeline_draws_the_same_pictures_within_one_grey_level(name, tmp_path):
    pipeline = make(**SYSTEMS[name])
    folder = export_diffusers(pipeline, tmp_path / "exported")
    expected = ours(pipeline, PROMPTS, steps=10, guidance=3.0)
    found = theirs(folder, pipeline, PROMPTS, steps=10, guidance=3.0)
    assert expected.std() > 20.0  # there is something to compare
    assert np.abs(found - expected).max() <= 1.0


def edit(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("unet/config.json", {"attention_head_dim": 6}),
        ("unet/config.json", {"flip_sin_to_cos": False}),
        ("unet/config.json", {"downsample_padding": 0}),
        ("vae/config.json", {"scaling_factor": 1.1}),
        ("text_encoder/config.json", {"hidden_act": "relu"}),
        ("tokenizer/tokenizer_config.json", {"pad_token": "<|endoftext|>"}),
        ("tokenizer/tokenizer_config.json", {"pad_token": "!"}),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "leading"}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_comparison_of_pictures_fails_when_one_line_of_the_folder_is_changed(name, changes, exported):
    pipeline, folder, expected = exported
    path = folder / name
    before = path.read_text()
    edit(folder, name, **changes)
    try:
        found = theirs(folder, pipeline, PROMPTS, steps=10, guidance=3.0)
    finally:
        path.write_text(before)
    assert np.abs(found - expected).max() > 1.0


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pipeline = make()
    folder = export_diffusers(pipeline, tmp_path_factory.mktemp("export") / "folder")
    return pipeline, folder, ours(pipeline, PROMPTS, steps=10, guidance=3.0)


@pytest.mark.slow
@pytest.mark.peer
def test_every_tensor_is_taken_up_and_none_left_to_chance(exported):
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    pipeline, folder, _ = exported
    loaded, report = CLIPTextModel.from_pretrained(folder / "text_encoder", output_loading_info=True)
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    table = pipeline.conditioners["text"].token_embedding.weight
    assert torch.equal(loaded.get_input_embeddings().weight, table)
    pipe, counts = StableDiffusionPipeline.from_pretrained(folder), {}
    for part in ("unet", "vae", "text_encoder"):
        (path,) = (folder / part).glob("*.safetensors")
        with safe_open(path, "pt") as file:
            counts[part] = len(list(file.keys()))
        assert counts[part] == len(getattr(pipe, part).state_dict())
    assert pipe.vae_scale_factor * pipe.unet.config.sample_size == pipeline.stages[0].size


@pytest.mark.peer
def test_exported_tokenizer_reads_prompts_as_zoo_does(exported):
    from transformers import CLIPTokenizer

    pipeline, folder, _ = exported
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    prompts = ["", "Red  apple, 3d style", "wow! it's !! a !", "cafés 日本 🍎 100%"]
    found = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(found, pipeline.conditioners["text"].tokenize(prompts))


@pytest.mark.slow
@pytest.mark.peer
def test_exported_schedule_has_the_same_betas():
    from diffusers import DDIMScheduler

    for schedule in (
        CosineSchedule(), LinearSchedule(), ScaledLinearSchedule(beta_end=0.01), CosineSchedule(steps=500),
        CosineSchedule(offset=0.1),
    ):  # fmt: skip
        config = scheduler_config(make(schedule=schedule).stages[0])
        assert np.allclose(DDIMScheduler.from_config(config).betas, schedule.betas, rtol=1e-4, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"grid": Karras()}, "export-unfit: 'trailing'"),
        ({"grid": Linspace()}, "export-unfit: 'trailing'"),
        ({"grid": Leading(offset=0)}, "export-unfit"),
        ({"sampler": DPMpp2M()}, "export-unfit: 'ddim'"),
        ({"time": "t999"}, "export-unfit: 't999'"),
        ({"text": {"activation": "gelu", "final_norm": False}}, "export-unfit"),
        ({"autoencoder": {"z_channels": 8}}, "export-unfit: z_channels"),
    ],
)
def test_what_the_format_cant_say_is_refused_and_nothing_is_written(change, refusal, tmp_path):
    with refused(refusal):
        export_diffusers(make(**change), tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_a_pipeline_of_another_kind_is_refused(tmp_path):
    whole = make()
    stage = whole.stages[0]
    pixels = Stage(
        name="base", listens=("text",), denoiser=stage.denoiser, autoencoder=Identity(), sampler=stage.sampler
    )
    for stages, conditioners, sentence in (
        ([stage, stage], whole.conditioners, "export-unfit"),
        ([pixels], whole.conditioners, "export-unfit: kl"),
        ([stage], {"text": lambda prompts: None}, "export-unfit: clip-text"),
    ):
        with refused(sentence, ConfigError):
            export_diffusers(Pipeline(conditioners=conditioners, stages=stages), tmp_path / "folder")
    for model, convert, sentence in (
        (
            UNet(width=16, mult=(1,), blocks=1, heads=2, groups=8, attention_levels=(0,), middle_attention=False),
            unet_config,
            "export-unfit",
        ),
        (
            UNet(width=16, mult=(2,), blocks=1, heads=2, groups=8, attention_levels=(0,)),
            unet_config,
            "export-unfit",
        ),
        (AutoencoderKL(width=16, mult=(2,), groups=8), kl_config, "export-unfit"),
    ):
        with refused(sentence, ConfigError):
            convert(model)


def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with refused("output-taken"):
        export_diffusers(make(), tmp_path)
    with refused("output-unwritable", UsageError):
        export_diffusers(make(), tmp_path / "mine.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_an_empty_folder_is_filled_and_a_crash_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "deep" / "folder"
    target.mkdir(parents=True)

    def crash(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export, "_write_tokenizer", crash)
        with pytest.raises(KeyboardInterrupt):
            export_diffusers(make(), target)
    assert [p.name for p in target.parent.iterdir()] == ["folder"]
    assert not list(target.iterdir())
    export_diffusers(make(), target)
    assert {p.name for p in target.iterdir()} == {
        "README.md", "model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae",
    }  # fmt: skip


@pytest.mark.parametrize("error", [SafetensorError("I/O error: No space left on device"), OSError(28, "No space left")])
def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(error, tmp_path, monkeypatch):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(export, "save_file", full)
    with refused("output-unwritable", ZooError):
        export_diffusers(make(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
