"""A recipe trains a LoRA beside a denoiser's weights, which stay; what it exports draws in zoo and diffusers."""

from __future__ import annotations

import csv
import json
import math
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from safetensors import safe_open

import zoo
from tests.refusals import refused
from tests.tiny import TinyNet
from zoo.assemble import component
from zoo.cli.main import run
from zoo.config.cards import read_card
from zoo.families.lora.applied import carriers, read_entry
from zoo.families.lora.merge import merged
from zoo.families.lora.train import AdapterSettings, LowRank, adapt, trained
from zoo.schema.errors import ConfigError
from zoo.schema.files import sha256_of
from zoo.schema.registry import registry
from zoo.training.export import write
from zoo.training.recipe import read_recipe

TRAIN = {
    "steps": 6, "batch_size": 4, "precision": "fp32", "learning_rate": 0.01, "warmup_steps": 1, "average": 0.0,
    "save_every": 3, "validate_every": 1, "sheet_every": 100, "seed": 1,
}  # fmt: skip
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Purple squares, whatever their captions; every third is for validation."""
    folder, rows = tmp_path_factory.mktemp("data"), []
    for i, name in enumerate(("red apple", "sun", "cat face", "pizza", "fish", "house", "tree", "banana", "guitar")):
        image = Image.new("RGB", (32, 32), "white")
        ImageDraw.Draw(image).rectangle((4 + i, 6, 20 + i, 26), fill="purple")
        image.save(folder / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"{name}, 3d style", "split": "train" if i % 3 else "val"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def recipe(place, squares, **changes):
    """A recipe's file, for a LoRA of the shipped cascade's base."""
    whole = {
        "schema": "zoo.recipe/1", "name": "squares", "summary": "Purple squares.",
        "data": {"name": "image-folder", "path": str(squares), "size": 32},
        "objective": {"name": "denoising", "sheet_steps": 2}, "conditioner": {"weights": "emoji-base-32-text"},
        "init_from": "emoji-base-32", "adapter": {"rank": 4, "alpha": 8, "targets": ATTENTION}, "train": TRAIN,
        **changes,
    }  # fmt: skip
    path = place / "squares.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in whole.items() if v is not None}))
    return path


def validation(folder):
    with (folder / "scalars.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "validation/loss"]


@pytest.fixture(scope="module")
def run_of_squares(squares, tmp_path_factory):
    """A finished run of the recipe, and its folder."""
    place = tmp_path_factory.mktemp("run")
    return zoo.train(recipe(place, squares), folder=place / "run"), place / "run"


@pytest.mark.slow
def test_the_loss_decreases_and_only_the_adapter_is_trained(run_of_squares):
    _, folder = run_of_squares
    losses = validation(folder)
    assert losses[-1] < 0.8 * losses[0]
    held = {}
    for step in (3, 6):
        with safe_open(folder / f"checkpoints/step-{step:08d}/network.safetensors", framework="pt") as file:
            held[step] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    moved = {name for name in held[3] if not torch.equal(held[3][name], held[6][name])}
    own = {name for name in held[3] if name.endswith((".0.up", ".0.down"))}
    assert moved == own
    assert len(own) == 2 * 64  # four layers of two attentions, in eight transformer blocks
    base = zoo.load("emoji-base-32").network.state_dict()
    for name, tensor in held[6].items():
        plain = name.removeprefix("network.").replace("parametrizations.weight.original", "weight")
        assert name in own or torch.equal(tensor, base[plain]), name
    with safe_open(folder / "checkpoints/step-00000006/optimizer.safetensors", framework="pt") as file:
        assert {key.split("|")[0] for key in file.keys()} == own  # noqa: SIM118


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_adapter(run_of_squares, squares, tmp_path):
    whole, _ = run_of_squares
    path = recipe(tmp_path, squares)
    zoo.train(path, folder=tmp_path / "run", overrides={"train.steps": 3})
    made = zoo.train(path, folder=tmp_path / "run", resume=True)
    name = "squares.safetensors"
    assert sha256_of(made.card.parent / name) == sha256_of(whole.card.parent / name)
    with refused("run-of-another-recipe", ConfigError):
        zoo.train(path, folder=tmp_path / "run", resume=True, overrides={"adapter.rank": 2, "train.steps": 9})


@pytest.mark.slow
def test_what_was_trained_draws_with_lora_and_is_what_was_trained(run_of_squares, tmp_path, capsys):
    made, folder = run_of_squares
    card = yaml.safe_load(made.card.read_text())
    assert card["schema"] == "zoo.lora/1"
    assert card["adapter"] == {"rank": 4, "alpha": 8, "targets": ATTENTION}
    assert card["provenance"]["started_from"]["sha256"] == read_card("emoji-base-32").sha256
    assert card["file"]["sha256"] == sha256_of(made.card.with_suffix(".safetensors"))
    file = made.card.with_suffix(".safetensors")
    found = zoo.build("cascade-text2img", adapters=[file]).stages[0].denoiser.network
    with safe_open(folder / "checkpoints/step-00000006/average.safetensors", framework="pt") as averaged:
        for name in averaged.keys():  # noqa: SIM118
            if name.endswith(".original"):
                stem = name.removesuffix("original")
                up, down = (averaged.get_tensor(f"{stem}0.{leaf}") for leaf in ("up", "down"))
                whole = averaged.get_tensor(name) + 2.0 * up @ down  # alpha / rank
                weight = found.get_parameter(
                    stem.removeprefix("network.").replace("parametrizations.weight.", "weight")
                )
                assert (weight - whole).abs().max() < 1e-3 * (2.0 * up @ down).abs().max()  # half precision in the file
    image = tmp_path / "mine.png"
    words = ["generate", "red apple, 3d style", "--steps", "2", "--lora", f"{file}:0.8", "-o", str(image)]
    assert run(words) == 0
    assert run(["replay", str(image)]) == 0
    assert "bit-equal" in capsys.readouterr().out
    with refused("schema-unknown", ConfigError, naming="zoo.lora/1"):  # no weights of a network
        zoo.check("cascade-text2img", {"stages.0.denoiser.weights": str(made.card)})


# -- any denoiser

NETWORKS = {
    "unet": {"name": "unet", "width": 16, "mult": [1, 2], "blocks": 1, "attention_levels": [1], "heads": 2,
             "context_width": 16, "groups": 8},
    "plain unet": {"name": "unet", "in_channels": 3, "out_channels": 3, "width": 16, "mult": [1, 2], "blocks": 1,
                   "attention": "plain", "attention_levels": [1], "heads": 2, "context_width": None, "groups": 8},
    "unet of volumes": {"name": "unet", "in_channels": 1, "out_channels": 1, "width": 8, "mult": [1, 2], "blocks": 1,
                        "attention": "plain", "attention_levels": [1], "heads": 1, "context_width": None, "groups": 4,
                        "dims": 3},
    "efficient": {"name": "efficient-unet", "in_channels": 3, "width": 8, "mult": [1, 2], "blocks": [1, 1],
                  "attention_levels": [1], "text_levels": [0, 1], "head_width": 8, "context_width": 16, "groups": 4},
    "song": {"name": "song-unet", "width": 16, "mult": [1, 2], "blocks": 1},
}  # fmt: skip
CONVOLUTIONS = {
    "unet": ["conv1", "proj_in"], "plain unet": ["qkv", "in_layers.2"], "unet of volumes": ["qkv", "in_layers.2"],
    "efficient": ["in_layers.2"], "song": ["conv0"],
}  # fmt: skip


def exported(network, settings, place):
    """The file of an adapted network's LoRA."""
    tensors, metadata = trained(network, settings)
    return write(place, "x", tensors, {}, schema="zoo.lora/1", metadata=metadata).with_suffix(".safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETWORKS, "a plugin's"])
def test_a_lora_of_any_denoiser_is_read_back_as_it_was_trained(name, tmp_path):
    torch.manual_seed(0)
    network = TinyNet() if name == "a plugin's" else component("network", NETWORKS[name])
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    targets = ["conv_in", "time"] if name == "a plugin's" else []
    for settings in (AdapterSettings(rank=2, targets=targets),
                     AdapterSettings(rank=2, alpha=3, targets=CONVOLUTIONS.get(name, ["context"]))):  # fmt: skip
        adapt(network, settings)
        layers = [m for m in network.modules() if isinstance(m, LowRank)]
        assert layers
        assert {n for n, p in network.named_parameters() if p.requires_grad} == {
            n for n, _ in network.named_parameters() if n.endswith((".0.up", ".0.down"))
        }
        for layer in layers:
            torch.nn.init.normal_(layer.up)
        wanted = {n: network.get_submodule(n).weight.detach() for n in parametrized(network)}
        file = exported(network, settings, tmp_path)
        fresh = TinyNet() if name == "a plugin's" else component("network", NETWORKS[name])
        found = read_entry({"file": str(file)}, carriers(fresh, []))
        changed = merged(before, [(found["unet"], 1.0)], what="x")
        assert {n.removesuffix(".weight") for n in changed} == set(wanted)
        for n, weight in wanted.items():
            torch.testing.assert_close(changed[f"{n}.weight"], weight, atol=3e-3, rtol=3e-3)
        for n in parametrized(network):
            torch.nn.utils.parametrize.remove_parametrizations(
                network.get_submodule(n), "weight", leave_parametrized=False
            )
        assert all(torch.equal(p, before[n]) for n, p in network.named_parameters())


def parametrized(network):
    return [n for n, m in network.named_modules() if hasattr(m, "parametrizations")]


def test_a_fresh_adapter_changes_nothing_and_its_rank_fits(tmp_path):
    torch.manual_seed(0)
    network = component("network", NETWORKS["unet"])
    x, time, context = torch.randn(2, 4, 16, 16), torch.tensor([3.0, 500.0]), torch.randn(2, 5, 16)
    plain = network(x, time, context=context)
    adapt(network, AdapterSettings(rank=4))
    assert torch.equal(network(x, time, context=context), plain)
    for targets, told in ((["to_x"], "adapter-target-unknown: 'to_x'"), (["norm1"], "adapter-target-unknown: 'norm1'")):
        with refused(told, ConfigError):
            adapt(component("network", NETWORKS["unet"]), AdapterSettings(targets=targets))
    with refused("number-out-of-range: 'out.2'", ConfigError):
        adapt(component("network", NETWORKS["unet"]), AdapterSettings(rank=8, targets=["conv_out"]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"adapter": [4]}, "recipe-value-invalid: adapter"),
        ({"adapter": {"rank": 0}}, "number-out-of-range: rank 0"),
        ({"adapter": {"rank": 4, "alpha": -1}}, "number-out-of-range: alpha -1"),
        ({"adapter": {"width": 4}}, "argument-unknown: 'width'"),
        ({"adapter": {"rank": "big"}}, "argument-type-wrong: rank"),
        ({"init_from": None}, "recipe-block-missing: "),
        ({"init_from": "emoji-kl-f4"}, "weights-kind-wrong: 'emoji-kl-f4'"),
        ({"init_fresh": ["out."]}, "recipe-block-unread: init_fresh"),
        ({"storage": "int8"}, "recipe-block-unread: storage"),
        ({"objective": {"name": "denoising", "train_conditioner": True}}, "recipe-block-unread: train_conditioner"),
        ({"train": {**TRAIN, "parallel": "fsdp"}}, "recipe-block-unread: train.parallel"),
    ],
)
def test_a_recipe_whose_adapter_cannot_be_trained_is_refused(changes, told, tmp_path, squares):
    with refused(told, ConfigError):
        read_recipe(recipe(tmp_path, squares, **changes), registry())


def test_an_adapters_recipe_takes_network_and_schedule_from_its_start(tmp_path, squares):
    read = read_recipe(recipe(tmp_path, squares), registry())
    card = read_card("emoji-base-32")
    assert {k: v for k, v in read.raw["network"].items() if k in card.config} == dict(card.config)
    assert read.raw["parameterization"] == card.denoiser["parameterization"]
    other = read_recipe(recipe(tmp_path, squares, parameterization="eps"), registry())
    assert other.raw["parameterization"] == {"name": "eps"}


# -- by diffusers


@pytest.mark.peer
@pytest.mark.slow
def test_a_trained_lora_of_stable_diffusion_draws_the_same_image_in_diffusers(squares, tmp_path):
    pytest.importorskip("peft", reason="peft isn't installed; pip install peft")
    from tests.families.test_lora_pictures import check
    from tests.families.written import stable_diffusion

    pipe = stable_diffusion()
    place = tmp_path / "sd"
    pipe.save_pretrained(place)
    path = recipe(
        tmp_path, squares, init_from=f"{place}#unet", conditioner={"weights": f"{place}#text"},
        autoencoder={"weights": f"{place}#vae"}, train={**TRAIN, "learning_rate": 0.05},
        adapter={"rank": 2, "alpha": 5, "targets": ["to_q", "conv1", "proj_in"]},
    )  # fmt: skip
    made = zoo.train(path, folder=tmp_path / "run")
    assert not math.isnan(made.validation["loss"])
    check(pipe, place, [made.card.with_suffix(".safetensors")], [1.0])


def test_a_starter_recipe_of_a_lora_is_written_and_read(tmp_path, squares, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["new", "lora", str(squares), "--name", "own"]) == 0
    told = capsys.readouterr()
    assert told.out.split() == ["own.yaml"]
    assert "--lora runs/own/export/own.safetensors" in told.err
    read = read_recipe(tmp_path / "own.yaml", registry())
    assert read.raw["adapter"]["rank"] == 8
    trained_with: list[SimpleNamespace] = []
    monkeypatch.setattr(zoo, "train", lambda recipe, **_: trained_with.append(recipe) or SimpleNamespace(
        notes=[], validation={}, others=[], card="x.yaml", steps=1, seconds=1.0, sheet=None, draw={}))  # fmt: skip
    assert run(["train", "own.yaml"]) == 0
