"""From a recipe to weights that a pipeline draws with, on a dozen pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file

import zoo
from tests.refusals import refused
from zoo.cli.main import run
from zoo.config.cards import read_card
from zoo.data.pack import pack
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.registry import registry
from zoo.training.provenance import hash_of_data
from zoo.training.recipe import read_recipe

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 220), "black": (20, 20, 20)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Data, recipes and a place to run them."""
    root = tmp_path_factory.mktemp("shop")
    (root / "data").mkdir()
    rows = []
    for colour, value in COLOURS.items():
        for shape in ("disc", "square", "bar"):
            for style in ("flat style", "line style"):
                picture = Image.new("RGB", (32, 32), "white")
                draw = ImageDraw.Draw(picture)
                box = {"disc": (4, 4, 27, 27), "square": (6, 6, 25, 25), "bar": (2, 12, 29, 19)}[shape]
                fill = value if style == "flat style" else None
                (draw.ellipse if shape == "disc" else draw.rectangle)(box, fill=fill, outline=value, width=2)
                name = f"{colour}-{shape}-{style.split()[0]}.png"
                picture.save(root / "data" / name)
                split = "val" if (colour, shape) == ("green", "bar") else "train"
                text = f"{colour} {shape}, {style}"
                row = {
                    "file_name": name,
                    "text": text,
                    "name": f"{colour} {shape}",
                    "keywords": [shape],
                    "split": split,
                }
                rows.append(json.dumps(row))
    (root / "data" / "metadata.jsonl").write_text("\n".join(rows))
    common = {"schema": "zoo.recipe/1", "data": {"name": "image-folder", "path": str(root / "data"), "size": 32}}
    train = {
        "steps": 6, "batch_size": 5, "precision": "fp32", "save_every": 2, "validate_every": 3, "sheet_every": 6,
        "warmup_steps": 2, "seed": 4,
    }  # fmt: skip
    recipes = {
        "ae": {
            **common, "name": "toy-ae", "objective": "autoencoder-kl", "train": train,
            "autoencoder": {
                "name": "kl", "channels": 4, "z_channels": 4, "width": 8, "mult": [1, 2, 2], "blocks": 1, "groups": 4,
            },
        },
        "clip": {
            **common, "name": "toy-clip", "objective": "clip-contrastive", "train": train,
            "network": {
                "name": "clip", "embed_dim": 16, "image_size": 32, "image_width": 8, "image_layers": [1, 1, 1, 1],
                "text_width": 16, "text_heads": 2, "text_layers": 1, "context_length": 16,
            },
        },
        "latent": {
            **common, "name": "toy-latent", "train": train,
            "objective": {"name": "denoising", "sheet_steps": 2},
            "autoencoder": {"weights": str(root / "runs/toy-ae/export/toy-ae.yaml")},
            "conditioner": {"weights": str(root / "runs/toy-clip/export/toy-clip.yaml")},
            "network": {
                "name": "unet", "in_channels": 4, "out_channels": 4, "width": 8, "mult": [1, 2], "blocks": 1,
                "attention_levels": [1], "heads": 2, "context_width": 16, "groups": 4,
            },
            "schedule": {"name": "cosine", "steps": 1000}, "parameterization": "v",
        },
    }  # fmt: skip
    for name, recipe in recipes.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    for name in ("ae", "clip", "latent"):
        zoo.train(root / f"{name}.yaml", folder=root / "runs" / f"toy-{name}")
    return root


@pytest.mark.slow
def test_trained_weights_draw_from_a_config_that_names_their_cards(shop, tmp_path):
    runs = shop / "runs"
    config = {
        "schema": "zoo.pipeline/1",
        "conditioners": {"text": {"weights": str(runs / "toy-clip/export/toy-clip.yaml")}},
        "stages": [
            {
                "name": "base", "listens": ["text"], "size": 32,
                "denoiser": {"weights": str(runs / "toy-latent/export/toy-latent.yaml")},
                "autoencoder": {"weights": str(runs / "toy-ae/export/toy-ae.yaml")},
                "guidance": [{"name": "classifier-free", "scale": 2.0}],
                "sampler": {"name": "ddim", "steps": 2},
            }
        ],
    }  # fmt: skip
    pipe = zoo.build(config)
    assert pipe("red disc, flat style").tensor.shape == (1, 3, 32, 32)
    with refused("word-unknown", naming="'purple'"):
        pipe("purple disc, flat style")


@pytest.mark.slow
def test_a_run_folder_tells_what_made_it(shop):
    facts = json.loads((shop / "runs/toy-latent/run.json").read_text())
    assert facts["recipe"]["objective"]["name"] == "denoising"
    card = yaml.safe_load((shop / "runs/toy-latent/export/toy-latent.yaml").read_text())
    assert card["denoiser"]["parameterization"]["name"] == "v"
    assert card["provenance"]["steps"] == 6
    assert card["provenance"]["samples_seen"] == 30
    assert (shop / "runs/toy-latent/samples/step-00000006.png").exists()


def test_standardised_latents_have_unit_deviation_and_decode_as_before(shop):
    autoencoder = zoo.load(str(shop / "runs/toy-ae/export/toy-ae.yaml"))
    (cached,) = (
        p for p in (shop / "runs/toy-latent/cache").glob("*.safetensors") if load_file(p)["latents"].shape[0] > 2
    )
    latents = load_file(cached)["latents"]
    assert latents.mean((0, 2, 3)).abs().max() < 0.02
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.02
    assert autoencoder.scale == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ae", "clip", "latent"])
def test_a_resumed_run_ends_in_the_same_file(shop, tmp_path, name):
    whole = (shop / "runs" / f"toy-{name}" / "export" / f"toy-{name}.safetensors").read_bytes()
    recipe, folder = shop / f"{name}.yaml", tmp_path / "run"

    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        zoo.train(recipe, folder=folder, callback=stop)
    made = zoo.train(recipe, folder=folder, resume=True)
    assert (made.card.parent / f"toy-{name}.safetensors").read_bytes() == whole


def test_init_from_starts_where_the_named_weights_ended(shop, tmp_path):
    card = shop / "runs/toy-ae/export/toy-ae.yaml"
    overrides = {"init_from": str(card), "train.steps": 1, "train.learning_rate": 0.0}
    made = zoo.train(shop / "ae.yaml", folder=tmp_path / "run", overrides=overrides)
    ours, theirs = (load_file(p.with_suffix(".safetensors")) for p in (made.card, card))
    assert all(torch.allclose(ours[k].float(), theirs[k].float(), atol=2e-3) for k in ours if k.startswith("decoder."))
    told, start = read_card(str(made.card)).raw["provenance"]["started_from"], read_card(str(card))
    assert (told["name"], told["sha256"], told["steps"]) == ("toy-ae", start.sha256, start.raw["provenance"]["steps"])


def test_what_init_fresh_names_starts_anew_and_the_rest_does_not(shop, tmp_path):
    card = shop / "runs/toy-ae/export/toy-ae.yaml"
    fresh = ["decoder.conv_out.", "decoder.norm_out."]
    overrides = {"init_from": str(card), "init_fresh": fresh, "train.steps": 1, "train.learning_rate": 0.0}
    made = zoo.train(shop / "ae.yaml", folder=tmp_path / "run", overrides=overrides)
    ours, theirs = (load_file(p.with_suffix(".safetensors")) for p in (made.card, card))
    differ = {k for k in ours if not torch.allclose(ours[k].float(), theirs[k].float(), atol=2e-3)}
    assert differ
    assert all(k.startswith(tuple(fresh)) for k in differ if k.startswith("decoder."))
    assert read_card(str(made.card)).raw["provenance"]["started_from"]["but_for"] == fresh
    with refused("init-fresh-unmatched", naming="'decoder.conv_uot'"):
        zoo.train(shop / "ae.yaml", folder=tmp_path / "no", overrides={**overrides, "init_fresh": ["decoder.conv_uot"]})


@pytest.mark.slow
def test_a_deeper_network_begins_as_the_weights_it_starts_from(shop, tmp_path):
    card = shop / "runs/toy-latent/export/toy-latent.yaml"
    fresh = [
        f"{place}.transformer_blocks.1."
        for place in ("input_blocks.3.1", "middle_block.1", "output_blocks.0.1", "output_blocks.1.1")
    ]
    overrides = {
        "name": "toy-deeper", "init_from": str(card), "network.depth": 2, "init_fresh": fresh, "train.steps": 1,
        "train.learning_rate": 0.0,
    }  # fmt: skip
    made = zoo.train(shop / "latent.yaml", folder=tmp_path / "run", overrides=overrides)
    ours, theirs = zoo.load(str(made.card)).network, zoo.load(str(card)).network
    x, time, context = torch.randn(2, 4, 16, 16), torch.tensor([3.0, 700.0]), torch.randn(2, 5, 16)
    with torch.no_grad():
        assert torch.equal(ours(x, time, context=context), theirs(x, time, context=context))
    added = ours.input_blocks[3][1].transformer_blocks[1]
    assert added.attn1.to_q.weight.abs().max() > 0
    # Without a fresh block's identity the output is another.
    torch.nn.init.normal_(added.ff.net[2].weight)
    with torch.no_grad():
        assert not torch.equal(ours(x, time, context=context), theirs(x, time, context=context))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["latent", "clip"])
def test_variants_are_trained_on_with_their_captions_and_resumed(shop, tmp_path, recipe):
    variants = {"count": 3, "mirror": 0.5, "recolour": 1.0, "synonyms": True}
    overrides = {"name": "toy-varied", "variants": variants, "train.steps": 4}
    first = zoo.train(shop / f"{recipe}.yaml", folder=tmp_path / "a", overrides=overrides)
    zoo.train(shop / f"{recipe}.yaml", folder=tmp_path / "b", overrides={**overrides, "train.steps": 2})
    again = zoo.train(shop / f"{recipe}.yaml", folder=tmp_path / "b", overrides=overrides, resume=True)
    one, two = (load_file(made.card.with_suffix(".safetensors")) for made in (first, again))
    assert all(torch.equal(one[k], two[k]) for k in one)
    if recipe == "latent":
        caches = sorted((tmp_path / "a/cache").glob("*.safetensors"), key=lambda p: p.stat().st_size)
        assert [len(load_file(p)["latents"]) for p in caches] == [2, 3 * 22]
        assert len({p.name for p in caches} & {p.name for p in (tmp_path / "b/cache").glob("*")}) == 2


@pytest.mark.slow
def test_words_of_variants_are_learned_by_a_tower_that_learns(shop, tmp_path):
    overrides = {
        "name": "toy-varied", "variants": {"count": 4, "mirror": 1.0, "recolour": 1.0},
        "objective.train_conditioner": True, "train.steps": 1,
    }  # fmt: skip
    made = zoo.train(shop / "latent.yaml", folder=tmp_path / "run", overrides=overrides)
    (text,) = made.others
    zoo.load(str(text)).check(["mirrored purple disc, flat style"])
    with refused("word-unknown", naming="'purple'"):
        zoo.load(str(shop / "runs/toy-clip/export/toy-clip.yaml")).check(["purple disc, flat style"])


@pytest.mark.slow
def test_weights_stored_in_eight_bits_load_by_their_card(shop, tmp_path):
    card = shop / "runs/toy-ae/export/toy-ae.yaml"
    start = {"init_from": str(card), "train.steps": 1, "train.learning_rate": 0.0, "storage": "int8"}
    made = zoo.train(shop / "ae.yaml", folder=tmp_path / "run", overrides=start)
    assert read_card(str(made.card)).raw["file"]["dtype"] == "int8"
    assert made.card.with_suffix(".safetensors").stat().st_size < 0.8 * card.with_suffix(".safetensors").stat().st_size
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    ours, theirs = (zoo.load(str(c)).encode(images) for c in (made.card, card))
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


@pytest.mark.slow
def test_train_from_the_command_line_and_its_refusals(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", str(shop / "ae.yaml"), "--set", "train.steps=2", "--run", "here"]) == 0
    assert capsys.readouterr().out.strip().endswith("here/export/toy-ae.yaml")
    assert run(["train", str(shop / "ae.yaml"), "--run", "here"]) == 2
    assert "--resume" in capsys.readouterr().err
    # What was ended before its first checkpoint, or never began, begins.
    assert run(["train", str(shop / "ae.yaml"), "--set", "train.steps=2", "--run", "other", "--resume"]) == 0
    assert "it begins at step 0" in capsys.readouterr().err
    assert (tmp_path / "here/export/toy-ae.safetensors").read_bytes() == (
        tmp_path / "other/export/toy-ae.safetensors"
    ).read_bytes()
    assert run(["train", str(shop / "clip.yaml"), "--run", "here", "--resume"]) == 2
    assert "another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({"colour": "red"}, "recipe-key-unknown: colour"),
        ({"train.stepps": 3}, "argument-unknown: steps"),
        ({"train.steps": "many"}, "argument-type-wrong: steps"),
        ({"objective.kl_wait": 1.0}, "argument-unknown: kl_weight"),
        ({"objective.network": "kl"}, "argument-unknown: network"),
        ({"autoencoder.widht": 3}, "argument-unknown: width"),
        ({"autoencoder": {"weights": "emoji-kl-f4"}}, "recipe-value-invalid: init_from"),
        ({"data.size": "big"}, "argument-type-wrong: size"),
        ({"variants": {"count": "many"}}, "argument-type-wrong: count"),
        ({"variants": {"cuont": 3}}, "argument-unknown: count"),
        ({"variants": {"data": {}}}, "argument-unknown: data"),
        ({"variants": 3}, "recipe-value-invalid: a count"),
        ({"init_fresh": ["decoder."]}, "init-fresh-unmatched: init_from"),
        ({"init_from": "emoji-kl-f4", "init_fresh": "decoder."}, "recipe-value-invalid: init_fresh"),
        ({"storage": "int7"}, "recipe-value-unknown: int8"),
        ({"name": "../escape"}, "name-invalid: ../escape"),
    ],
)
def test_wrong_recipes_are_refused_before_anything_is_read(shop, overrides, code):
    with refused(code, ConfigError):
        read_recipe(shop / "ae.yaml", registry(), overrides)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "recipes/emoji").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_shipped_recipe_checks(path):
    assert read_recipe(path, registry()).raw["card"]["licence"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("gradient_clip=-1", "train.gradient_clip is -1"),
        ("weight_decay=-50", "train.weight_decay is -50"),
        ("warmup_steps=-1", "train.warmup_steps is -1"),
        ("decay_steps=1.5", "decay_steps"),
        ("learning_rate=-1", "train.learning_rate is -1"),
        ("learning_rate=.nan", "learning_rate"),
        ("learning_rate=.inf", "learning_rate"),
        ("betas=[0.9]", "betas"),
        ("betas=[0.9,1.0]", "train.betas is [0.9, 1.0]"),
        ("batch_size=1000000000000", "train.batch_size is"),
        ("seed=-1", "train.seed is -1"),
        ("steps=0", "train.steps is 0"),
        ("steps=2.5", "steps"),
    ],
)
def test_numbers_of_a_recipe_are_checked_when_it_is_read(setting, said, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", str(shop / "ae.yaml"), "--set", f"train.{setting}", "--run", "here"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("card=5", "card is 5"), ("summary=[1]", "summary is [1]"), ("objective.min_snr=-5", "min_snr is -5"),
        ("objective.min_snr=0", "min_snr is 0"), ("objective.p2_k=-1", "p2_k is -1"),
        ("objective.vlb_weight=-1", "vlb_weight is -1"), ("data.count=1000000000000", "count is 1000000000000"),
    ],
)  # fmt: skip
def test_what_a_run_would_end_in_or_climb_by_is_refused_before_it(setting, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sines = Path(__file__).parents[2] / "recipes/signals/sines-64.yaml"
    assert run(["train", str(sines), "--set", setting, "--set", "train.steps=1", "--run", "here"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_betas_may_be_whole_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sines = Path(__file__).parents[2] / "recipes/signals/sines-64.yaml"
    assert run(["train", str(sines), "--set", "train.betas=[0, 0.9]", "--set", "train.steps=1", "--run", "here"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("off", ["0", "null"])
def test_a_clip_of_nothing_clips_nothing(off, shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["train", str(shop / "ae.yaml"), "--set", "train.steps=2"]
    assert run([*common, "--set", f"train.gradient_clip={off}", "--run", "off"]) == 0
    assert run([*common, "--set", "train.gradient_clip=1e8", "--run", "far"]) == 0
    assert run([*common, "--set", "train.gradient_clip=1e-8", "--run", "near"]) == 0
    made = [(tmp_path / name / "export/toy-ae.safetensors").read_bytes() for name in ("off", "far", "near")]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("name", ["x" * 250, "", "a\\b", "a/b", ".hidden", "a\nb", 3])
def test_a_name_that_no_file_can_have_is_told_when_the_recipe_is_read(name, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load((shop / "ae.yaml").read_text()) | {"name": name}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert run(["train", "r.yaml", "--run", "here"]) == 2
    assert "it names files" in capsys.readouterr().err
    assert not (tmp_path / "here").exists()


def test_a_folder_has_one_run_at_a_time_and_a_dead_one_holds_nothing(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    holding = (
        "import sys, time; from pathlib import Path; from zoo.schema.files import locked\n"
        "with locked(Path('here'), mend='x'):\n    print('held', flush=True); time.sleep(60)"
    )
    Path("here").mkdir()
    other = subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    words = ["train", str(shop / "ae.yaml"), "--set", "train.steps=2", "--run", "here"]
    assert run(words) == 2
    said = capsys.readouterr().err
    assert f"is in use by process {other.pid} on " in said
    assert "wait for it, or choose another folder" in said
    other.kill()
    other.wait()
    assert run(words) == 0


@pytest.mark.slow
def test_other_data_is_refused_when_resuming_and_each_sitting_keeps_its_facts(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load((shop / "ae.yaml").read_text())
    own = Path(recipe["data"]["path"])
    words = ["train", str(shop / "ae.yaml"), "--run", "here", "--set"]
    assert run([*words, "train.steps=2"]) == 0
    other = tmp_path / "other"
    shutil.copytree(own, other)
    (other / "metadata.jsonl").write_text((own / "metadata.jsonl").read_text() + "\n")
    more = [*words, "train.steps=3", "--resume", "--set", f"data.path={other}", "--set", "train.weight_decay=0.5"]
    capsys.readouterr()
    assert run(more) == 2
    assert "was trained on other data" in capsys.readouterr().err
    assert run([*more, "--other-data"]) == 0
    assert "train.weight_decay is 0.5 from here on and was" in capsys.readouterr().err
    first, second = json.loads(Path("here/run.json").read_text())["sittings"]
    assert first["data"]["sha256"] != second["data"]["sha256"]
    assert (first["train"]["steps"], second["train"]["weight_decay"]) == (2, 0.5)


@pytest.mark.parametrize("name", ["here", "here/checkpoints", "here/export", "here/samples", "here/inner/run"])
def test_a_file_where_a_run_needs_a_folder_is_told_before_it(name, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = Path("here/inner" if name == "here/inner/run" else name)
    place.parent.mkdir(exist_ok=True)
    place.write_text("mine")
    folder = name if name == "here/inner/run" else "here"
    assert run(["train", str(shop / "ae.yaml"), "--set", "train.steps=1", "--run", folder]) == 2
    said = capsys.readouterr().err
    assert "choose another with --run" in said
    assert place.read_text() == "mine"
    with refused("output-unwritable", UsageError):
        zoo.train(shop / "ae.yaml", folder=Path(folder), resume=True)


def test_a_folder_whose_checkpoints_are_all_damaged_is_told_so(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", str(shop / "ae.yaml"), "--set", "train.steps=4", "--run", "here"]
    assert run(words) == 0
    files = sorted(Path("here/checkpoints").glob("step-*/network.safetensors"))
    for file in files:
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    capsys.readouterr()
    assert run([*words, "--resume"]) == 1
    said = capsys.readouterr().err
    assert f"all {len(files)} checkpoints in 'here/checkpoints' can't be read" in said
    assert f"'{files[-1]}' is damaged" in said
    assert "restore one, or start anew in another folder" in said


def test_what_a_run_writes_follows_no_link_out_of_its_folder(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("here/scalars.csv", "here/samples/step-00000001.png"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).symlink_to(tmp_path / f"outside-{Path(name).name}")
    assert run(["train", str(shop / "ae.yaml"), "--set", "train.steps=1", "--run", "here"]) == 0
    assert not list(tmp_path.glob("outside-*"))
    assert Path("here/scalars.csv").read_text().startswith("step,name,value\n1,")


def test_other_shards_by_a_pattern_are_other_data(shop, tmp_path):
    own = Path(yaml.safe_load((shop / "ae.yaml").read_text())["data"]["path"])
    for name in ("one", "two"):
        pack(str(own), tmp_path / name, rows=20)
    both = [hash_of_data(str(tmp_path / name / "{000000..000001}.tar")) for name in ("one", "two")]
    assert both[0] is not None
    assert both[0] == both[1]
    rows = (own / "metadata.jsonl").read_text().splitlines()
    shutil.copytree(own, tmp_path / "other")
    (tmp_path / "other" / "metadata.jsonl").write_text("\n".join(rows[:-1]))
    pack(str(tmp_path / "other"), tmp_path / "three", rows=20)
    assert hash_of_data(str(tmp_path / "three" / "{000000..000001}.tar")) != both[0]
    assert hash_of_data(str(tmp_path / "three" / "{000000..000009}.tar")) is None


@pytest.mark.parametrize(
    ("setting", "refusal"),
    [
        ({"data.size": 33}, "size-indivisible: multiples of 4 and the data's is 33"),
        ({"data.size": 20}, "size-indivisible: multiples of 2 and the data's are 5"),
        ({"data.size": 10**12}, "size-invalid: size"),
        ({"data.smallest": 0}, "number-out-of-range: smallest"),
        ({"data.resize": 2**70}, "argument-type-wrong: 1180"),
        ({"train.learning_rate": 2**70}, "argument-type-wrong: 1180"),
        ({"data.size": 2**64}, "argument-type-wrong"),
    ],
)
def test_numbers_of_a_recipes_data_are_refused_before_anything_is_trained(setting, refusal, shop, tmp_path):
    with refused(refusal, ConfigError):
        zoo.train(shop / "latent.yaml", folder=tmp_path / "here", overrides=setting)
    assert not (tmp_path / "here" / "run.json").exists()
