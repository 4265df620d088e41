"""A pipeline that fits is written out in full; one that doesn't is refused by a sentence naming parts and mend."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.config import toys
from tests.config.toys import pipeline, stage
from tests.refusals import refused
from zoo.config.cards import read_card
from zoo.config.check import resolve
from zoo.config.describe import describe, listing, names
from zoo.schema.errors import ConfigError, UsageError, WeightsError


def test_a_pipeline_is_written_out_and_a_second_check_changes_nothing(components):
    resolved = resolve(pipeline(), components=components).config
    assert resolved["stages"][0] == {
        "name": "base",
        "takes": "noise",
        "feeds": "image",
        "listens": ["words"],
        "size": 64,
        "interval": [1.0, 0.0],
        "denoiser": {
            "network": {"name": "net"},
            "schedule": {"name": "scheme"},
            "parameterization": {"name": "velocity"},
        },
        "autoencoder": {"name": "codec"},
        "guidance": [{"name": "classifier-free", "scale": 4.0}],
        "sampler": {"name": "walk", "steps": 20, "eta": 0.5},
    }
    assert resolved["conditioners"] == {"words": {"name": "text"}}
    assert resolve(resolved, components=components).config == resolved


def test_a_pipeline_reads_the_same_from_a_mapping_yaml_and_json(components, tmp_path):
    import json

    expected = resolve(pipeline(name="mine"), components=components)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(pipeline()))
    (tmp_path / "mine.json").write_text(json.dumps(pipeline()))
    assert resolve(tmp_path / "mine.yaml", components=components) == expected
    assert resolve(str(tmp_path / "mine.json"), components=components) == expected


def test_shortcuts_come_before_overrides(components):
    resolved = resolve(pipeline(), ["stages.0.sampler.steps=7"], {"sampler": "run", "steps": 5}, components=components)
    assert resolved.config["stages"][0]["sampler"] == {"name": "run", "steps": 7}


NET = {"schedule": "scheme", "parameterization": "velocity"}
BAD = {
    "no schema": ({"stages": []}, "schema-missing"),
    "later schema": (pipeline(schema="zoo.pipeline/2"), "schema-unknown: zoo.pipeline/1"),
    "other schema": (pipeline(schema="zoo.card/1"), "schema-unknown"),
    "schema of a wrong type": (pipeline(schema=[1]), "schema-unknown"),
    "no stages": ({"schema": "zoo.pipeline/1"}, "stages-missing"),
    "stages of a wrong type": (pipeline() | {"stages": {"a": 1}}, "stages-missing"),
    "stage of a wrong type": (pipeline() | {"stages": ["x"]}, "stages-missing"),
    "unknown key": (pipeline(stagse=1), "config-key-unknown: stages"),
    "unknown stage key": (pipeline(stage(samplr="walk")), "config-key-unknown: sampler"),
    "no sampler": (pipeline(stage(sampler=None)), "config-key-missing"),
    "no size": (pipeline(stage(size=None)), "config-key-missing"),
    "bool size": (pipeline(stage(size=True)), "size-invalid"),
    "zero size": (pipeline(stage(size=0)), "size-invalid"),
    "takes": (pipeline(stage(takes="nois")), "config-value-unknown: noise"),
    "feeds a list": (pipeline(stage(feeds=["image"])), "config-value-unknown"),
    "listens to nobody known": (pipeline(stage(listens=["word"])), "conditioner-unknown: words"),
    "listens to a text": (pipeline(stage(listens="words")), "listens-invalid"),
    "interval upside down": (pipeline(stage(interval=[0.0, 1.0])), "interval-invalid"),
    "interval of text": (pipeline(stage(interval=["a", "b"])), "interval-invalid"),
    "number as a stage name": (pipeline(stage(name="0")), "stage-name-invalid"),
    "two stages of a name": (pipeline(stage(feeds="latent"), stage(takes="latent")), "entries-repeated"),
    "conditioners as a list": (pipeline(conditioners=["text"]), "config-value-invalid"),
    "unknown conditioner": (pipeline(conditioners={"words": "txet"}), "component-unknown: text"),
    "unknown weights": (pipeline(stage(denoiser={"weights": "nope"})), "weights-unknown: nope"),
    "weights with more": (pipeline(stage(autoencoder={"weights": "x", "channels": 3})), "card-key-conflict"),
    "weights of a wrong type": (pipeline(stage(autoencoder={"weights": 3})), "weights-unknown"),
    "denoiser as text": (pipeline(stage(denoiser="net")), "config-value-invalid"),
    "denoiser without schedule": (pipeline(stage(denoiser={"network": "net"})), "argument-missing: schedule"),
    "denoiser with an unknown word": (
        pipeline(stage(denoiser={"network": "net", **NET, "tme": 1})), "argument-unknown"
    ),
    "summary as a list": (pipeline(summary=[1]), "config-value-invalid"),
    "channels": (
        pipeline(stage(autoencoder={"name": "codec", "channels": 8})),
        "channels-unfit: net",
    ),
    "size and factor": (pipeline(stage(size=40)), "size-indivisible: 16"),
    "width": (
        pipeline(conditioners={"words": {"name": "text", "width": 9}}),
        "condition-width-unfit: net",
    ),
    "nobody to listen to": (pipeline(stage(listens=[], guidance=[])), "conditioner-missing"),
    "guidance of nothing": (
        pipeline(stage(listens=[], denoiser={"network": {"name": "net", "context_width": None}, **NET})),
        "conditioner-missing: classifier-free",
    ),
    "no null": (pipeline(conditioners={"words": "mute"}), "null-condition-missing: words"),
    "deaf network": (
        pipeline(stage(guidance=[], denoiser={"network": {"name": "net", "context_width": None}, **NET})),
        "condition-unread",
    ),
    "too many steps": (
        pipeline(stage(sampler={"name": "walk", "steps": 101})), "steps-too-many: 101"
    ),
    "no steps": (pipeline(stage(sampler={"name": "walk", "steps": 0})), "steps-out-of-range"),
    "first takes latents": (pipeline(stage(takes="latent")), "stages-unmatched"),
    "last feeds a condition": (pipeline(stage(feeds="low_res")), "stages-unmatched"),
    "feeds and takes": (
        pipeline(stage(feeds="latent"), stage(name="b")), "stages-unmatched: base"
    ),
    "handover of channels": (
        pipeline(
            stage(feeds="latent", interval=[1.0, 0.5]),
            stage(
                name="b", takes="latent", interval=[0.5, 0.0], autoencoder={"name": "codec", "channels": 3},
                denoiser={"network": {"name": "net", "in_channels": 3}, **NET},
            ),
        ),
        "channels-unfit: b",
    ),
    "handover of size": (
        pipeline(
            stage(feeds="latent", interval=[1.0, 0.5]), stage(name="b", takes="latent", interval=[0.5, 0.0], size=32)
        ),
        "stage-size-unfit: b",
    ),
    "handover in t": (
        pipeline(stage(feeds="latent", interval=[1.0, 0.5]), stage(name="b", takes="latent", interval=[0.4, 0.0])),
        "interval-unfit: b",
    ),
    "still noisy": (pipeline(stage(interval=[1.0, 0.5])), "interval-unfit: 0.5"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("config", "said"), BAD.values(), ids=BAD.keys())
def test_a_wrong_pipeline_is_refused_by_one_sentence_that_names_parts_and_mend(components, config, said):
    with refused(said, ConfigError) as error:
        resolve(config, components=components)
    assert "\n" not in str(error.value)


GOOD = {
    "scale 1 needs no null": pipeline(
        stage(guidance=[{"name": "classifier-free", "scale": 1.0}]), conditioners={"words": "mute"}
    ),
    "a Karras grid has no points": pipeline(stage(sampler={"name": "walk", "steps": 200, "grid": "karras"})),
    "pixels": pipeline(
        stage(autoencoder="identity", size=8, denoiser={"network": {"name": "net", "in_channels": 3}, **NET})
    ),
    "a refiner": pipeline(
        stage(feeds="latent", interval=[1.0, 0.5]), stage(name="b", takes="latent", interval=[0.5, 0.0])
    ),
    "unconditional": pipeline(
        stage(listens=[], guidance=[], denoiser={"network": {"name": "net", "context_width": None}, **NET}),
        conditioners={},
    ),
}


@pytest.mark.parametrize("config", GOOD.values(), ids=GOOD.keys())
def test_a_pipeline_that_fits_passes(components, config):
    resolve(config, components=components)


@pytest.fixture
def carded(tmp_path):
    """A pipeline of weights by their cards' paths."""
    return pipeline(
        stage(
            denoiser={"weights": toys.write_card(tmp_path, "net", "network", "net", contract={"in_channels": 4})},
            autoencoder={"weights": toys.write_card(tmp_path, "codec", "autoencoder", "codec")},
        ),
        conditioners={"words": {"weights": toys.write_card(tmp_path, "text", "conditioner", "text")}},
    )


def test_cards_name_weights(components, carded, tmp_path):
    resolve(carded, components=components)
    card = read_card(carded["stages"][0]["denoiser"]["weights"])
    assert card.file == tmp_path / "net.safetensors"
    assert card.bytes == card.file.stat().st_size


def test_a_contract_in_a_card_outweighs_what_the_component_says(components, carded, tmp_path):
    toys.write_card(tmp_path, "net", "network", "net", contract={"in_channels": 7})
    with refused("channels-unfit", ConfigError, naming="'codec'"):
        resolve(carded, components=components)


def test_the_schedule_of_a_card_bounds_the_steps(components, carded):
    with refused("steps-too-many", naming="'scheme'"):
        resolve(carded, {"stages.0.sampler.steps": 51}, components=components)


def test_a_weight_file_must_be_there_and_of_its_size(components, carded, tmp_path):
    (tmp_path / "codec.safetensors").write_bytes(b"short")
    with refused("weights-size-wrong", naming="codec.safetensors'"):
        resolve(carded, components=components)
    (tmp_path / "codec.safetensors").unlink()
    with refused("weights-missing", WeightsError, naming="codec.safetensors'"):
        resolve(carded, components=components)


def test_contracts_are_told_before_weight_files(components, carded, tmp_path):
    (tmp_path / "codec.safetensors").unlink()
    with refused("size-indivisible", ConfigError):
        resolve(carded, {"stages.0.size": 40}, components=components)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"schema": "zoo.card/9"}, "schema-unknown: 'zoo.card/1'"),
        ({"licnce": "x"}, "card-key-unknown: 'licence'"),
        ({"kind": "netwrk"}, "kind-unknown: 'network'"),
        ({"component": "codex"}, "component-unknown: 'codec'"),
        ({"component": None}, "card-key-missing"),
        ({"config": {"chanels": 3}}, "argument-unknown: 'channels'"),
        ({"contract": None}, "card-key-missing: 'contract'"),
        ({"denoiser": {}}, "card-value-invalid"),
        ({"file": None}, "card-key-missing: 'file'"),
        ({"file": {"name": "../x", "bytes": 1, "sha256": "0" * 64}}, "card-value-invalid"),
        ({"file": {"name": "/etc/passwd", "bytes": 1, "sha256": "0" * 64}}, "card-value-invalid"),
        ({"file": {"name": "..", "bytes": 1, "sha256": "0" * 64}}, "card-value-invalid"),
        ({"file": {"name": "x", "bytes": True, "sha256": "0" * 64}}, "card-value-invalid"),
        ({"file": {"name": "x", "bytes": 1, "sha256": "0"}}, "card-value-invalid"),
        ({"file": {"name": "x", "bytes": 1, "sha256": "0" * 64, "other": "visual"}}, "card-value-invalid"),
    ],
)
def test_a_wrong_card_is_refused_by_name(components, tmp_path, carded, changes, refusal):
    toys.write_card(tmp_path, "codec", "autoencoder", "codec", **changes)
    with refused(refusal, ConfigError):
        resolve(carded, components=components)


def test_weights_of_another_kind_are_refused(components, carded):
    carded["stages"][0]["autoencoder"] = carded["conditioners"]["words"]
    with refused("weights-kind-wrong", ConfigError, naming="'conditioner'"):
        resolve(carded, components=components)


def test_a_network_that_denoises_nothing_fills_no_denoiser_slot(components, carded, tmp_path):
    toys.write_card(tmp_path, "net", "network", "net", denoiser=None)
    with refused("weights-kind-wrong", ConfigError):
        resolve(carded, components=components)


def test_what_a_config_may_be_is_told(components):
    with refused("pipeline-unknown", naming="'latent-text2img'"):
        resolve("latent-txt2img", components=components)
    with refused("config-type-wrong"):
        resolve(5, components=components)  # type: ignore[arg-type]
    with refused("file-missing", ConfigError):
        resolve(Path("nowhere.yaml"), components=components)
    for name in ("../presets/latent-text2img", "", "a\0b"):
        with refused("pipeline-unknown"):
            resolve(name, components=components)


def test_names_and_descriptions_are_of_everything_there_is(components):
    assert names("sampler", components=components) == ["run", "walk"]
    assert names("sampler", "w*", components=components) == ["walk"]
    assert "sampler/walk" in names(components=components)
    assert names(pattern="sampler/*", components=components) == ["sampler/run", "sampler/walk"]
    assert "latent-text2img" in names("pipeline", components=components)
    described = describe("sampler/walk", components=components)
    assert [(p.name, p.type, p.default) for p in described.parameters][:2] == [
        ("steps", "int", "10"),
        ("eta", "float", "0.0"),
    ]
    assert "eta: float = 0.0" in str(described)
    assert described.to_dict()["parameters"][0]["name"] == "steps"
    assert {d.name for d in listing("sampler", components=components)} == {"run", "walk"}
    with refused("kind-unknown", UsageError, naming="'sampler'"):
        names("smapler", components=components)
    with refused("name-unknown", naming="'sampler/walk'"):
        describe("walk", components=components)


def test_the_shipped_pipelines_forms_are_right():
    from zoo.config.presets import FOLDER, KEYS, STAGE_KEYS, preset_names, read_preset

    assert preset_names()
    for name in preset_names():
        config, source = read_preset(name)
        assert Path(source).parent == FOLDER
        assert set(config) <= set(KEYS)
        assert all(set(s) <= set(STAGE_KEYS) for s in config["stages"])
        assert config["summary"]


@pytest.mark.slow
def test_the_public_face_imports_no_torch_and_import_zoo_nothing_slow():
    script = """
import sys
import zoo
slow = {"torch", "yaml", "numpy", "difflib", "importlib.metadata", "typing", "dataclasses"} & set(sys.modules) - before
assert not slow, slow
zoo.names(); zoo.describe("latent-text2img")
for name in zoo.names():
    try:
        zoo.describe(name)
    except ValueError:
        pass
zoo.register("sampler", "mine", "zoo.samplers.ddim:DDIM")
assert "mine" in zoo.names("sampler")
from zoo.cli.main import run
run(["list"]); run(["describe", "sampler/mine"])
assert "numpy" not in sys.modules
run(["check", "latent-text2img"])
zoo.check("latent-text2img", sampler="dpmpp-2m", steps=20)
heavy = {"torch", "open_clip", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", "import sys\nbefore = set(sys.modules)\n" + script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_packages():
    import tomllib

    import zoo

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert zoo.__version__ == project["project"]["version"]
