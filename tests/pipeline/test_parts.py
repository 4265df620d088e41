"""Parts in their own precision, taking turns in memory, and going on in float32 where half precision overflowed."""

import json
import warnings

import pytest
import torch

import zoo
from tests.refusals import refused
from zoo.acceleration.offload import Turns
from zoo.acceleration.overflow import find_overflow
from zoo.cli.main import run
from zoo.inspection.replay import replay
from zoo.schema.errors import NumericError, RequestNote, UsageError

WORDS = {"prompts": "red apple, 3d style", "seed": 3, "steps": 2}
NAME = "latent-text2img"


def grey(one, other):
    """The largest difference of two images, in 255ths."""
    return float((one.tensor - other.tensor).abs().max()) * 255


@pytest.fixture(scope="module")
def plain():
    return zoo.build(NAME)(**WORDS)


def where(pipe):
    return {name: {p.device.type for p in module.parameters()} for module, name in pipe.parts.names.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "away"),
    [({"decode": "rows"}, 0.01), ({"decode": "tiles"}, 0.0), ({"offload": True}, 0.0), ({"weights": "int8"}, 40.0)],
)
def test_images_with_less_memory(memory, away, plain):
    made = zoo.build(NAME, memory=memory)(**WORDS)
    assert grey(made, plain) <= away
    # Eight bits move single values at edges; fp8 would move the mean of this image by 7.
    assert float((made.tensor - plain.tensor).abs().mean()) * 255 <= 1.5
    whole = {"offload": False, "decode": "whole", "weights": None}
    assert made.record["memory"] == whole | memory
    assert "memory" not in plain.record


@pytest.mark.slow
def test_offloaded_parts_are_there_one_at_a_time(plain, monkeypatch):
    pipe = zoo.build(NAME, memory={"offload": True, "weights": "int8"})
    assert where(pipe) == {"text": {"meta"}, "base.denoiser": {"meta"}, "base.autoencoder": {"meta"}}
    seen, enter = [], Turns.enter

    def entered(self, module):
        enter(self, module)
        there = [name for name, devices in where(pipe).items() if devices == {"cpu"}]
        seen.extend(there if seen[-1:] != there else [])
        assert len(there) == 1

    monkeypatch.setattr(Turns, "enter", entered)
    made = pipe(**WORDS)
    assert seen == ["text", "base.denoiser", "base.autoencoder"]
    assert {device for devices in where(pipe).values() for device in devices} == {"meta"}
    assert grey(made, zoo.build(NAME, memory={"weights": "int8"})(**WORDS)) == 0.0
    with refused("option-conflict", UsageError):
        pipe.to("cpu")
    with refused("option-conflict", UsageError):
        pipe.save_memory()


@torch.no_grad()
def test_on_another_device_weights_wait_in_the_hosts_memory():
    layers = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    values = [layer.weight.clone() for layer in layers]
    turns = Turns(torch.device("meta"), [[layer] for layer in layers], {})  # a device that isn't the host's
    for inside, other in ((0, 1), (1, 0)):
        turns.enter(layers[inside])
        assert layers[inside].weight.is_meta
        assert torch.equal(layers[other].weight, values[other])
    turns.leave()
    assert all(torch.equal(layer.weight, value) for layer, value in zip(layers, values, strict=True))


@pytest.mark.slow
def test_a_precision_a_part(plain, tmp_path):
    pipe = zoo.build(NAME, dtype="bfloat16,autoencoder=float32")
    made = pipe(**WORDS)
    found = {name: part["dtype"] for name, part in made.record["parts"].items()}
    assert found == {"text": "bfloat16", "base.denoiser": "bfloat16", "base.autoencoder": "float32"}
    assert 0.0 < grey(made, plain) < 40.0
    (file,) = made.save(tmp_path / "a.png")
    assert replay(file).verdict == "equal"
    assert not zoo.build(NAME, dtype="bfloat16")(**WORDS).record.get("parts")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"dtype": "bfloat16,decoder=float32"}, "choice-unknown"), ({"dtype": "autoencoder=float8"}, "choice-unknown"),
        ({"memory": {"decode": "columns"}}, "choice-unknown"), ({"memory": {"weights": "int4"}}, "choice-unknown"),
        ({"memory": {"swap": True}}, "choice-unknown"), ({"memory": {"offload": "yes"}}, "argument-type-wrong"),
    ],
)  # fmt: skip
def test_what_is_no_part_and_no_way_to_save_memory_is_refused(said, code):
    with refused(code, UsageError):
        zoo.build(NAME, **said)


def test_pixels_are_not_decoded_by_rows():
    with refused("decode-unfit", UsageError, naming="rows"):
        zoo.build("class2img", memory={"decode": "rows"})


@torch.no_grad()
def overflowing(part, dtype="float16"):
    """A pipeline one of whose layers gives more than float16 holds, and which layer."""
    pipe = zoo.build(NAME, dtype=dtype)
    stage = pipe.stages[0]
    if part == "autoencoder":
        name, layer = "decoder.up.1.block.0.conv1", stage.autoencoder.decoder.up[1].block[0].conv1
    else:
        name, layer = "input_blocks.1.0.in_layers.2", stage.denoiser.network.input_blocks[1][0].in_layers[2]
    layer.bias.add_(7e4 if dtype != "float16" else 6e4)
    layer.weight.mul_(5e4)
    return pipe, name


@pytest.mark.parametrize("part", ["autoencoder", "denoiser"])
def test_a_part_that_overflows_goes_on_in_float32_and_the_record_names_the_module(part):
    pipe, module = overflowing(part)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", RequestNote)
        made = pipe(**WORDS)
    assert made.record["widened"] == [
        {"part": f"base.{part}", "module": module, "from": "float16", "to": "float32"}
    ]  # fmt: skip
    assert made.record["parts"][f"base.{part}"]["dtype"] == "float32"
    assert any(f"base.{part} overflowed float16 in '{module}'" in str(note.message) for note in noted)
    assert bool(torch.isfinite(made.tensor).all())
    with warnings.catch_warnings():
        warnings.simplefilter("error", RequestNote)  # it is float32 by now
        assert pipe(**WORDS).record["widened"] == made.record["widened"]


def test_nothing_is_watched_where_nothing_overflows(monkeypatch):
    def never(*_):
        raise AssertionError("watched")

    monkeypatch.setattr("zoo.pipeline.parts.find_overflow", never)
    assert "widened" not in zoo.build(NAME, dtype="float16")(**WORDS).record


@torch.no_grad()
def test_a_weight_that_is_not_finite_is_named_and_not_computed_wider():
    pipe = zoo.build(NAME, dtype="float16")
    pipe.stages[0].autoencoder.decoder.conv_in.weight[0, 0, 0, 0] = float("nan")
    with refused("network-not-finite", NumericError, naming="decoder.conv_in"):
        pipe(**WORDS)
    assert pipe.parts.widened == []


def test_float32_that_overflows_is_an_error_as_before():
    pipe, _ = overflowing("denoiser", dtype="float32")
    with torch.no_grad():
        pipe.stages[0].denoiser.network.input_blocks[1][0].in_layers[2].weight.mul_(1e35)
    with refused("network-not-finite", NumericError):
        pipe(**WORDS)


def test_the_first_module_that_overflows_is_the_innermost():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Sequential(torch.nn.Linear(1, 1))).half()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
        network[1][0].weight.fill_(6e4)
    watch = find_overflow(network, lambda: network(torch.full((1, 1), 3.0).half()))
    assert watch.module == "1.0"
    assert watch.found == "'1.0' (Linear) is the first module to overflow"


@pytest.mark.slow
def test_the_command_line_saves_memory(tmp_path, capsys):
    out = str(tmp_path / "a.png")
    saving = ["--offload", "--decode", "rows", "--quantize", "int8", "--dtype", "bfloat16,autoencoder=float32"]
    assert run(["generate", "red apple", "--model", NAME, "--steps", "1", "-o", out, "--json", *saving]) == 0
    record = json.loads(capsys.readouterr().out)["record"]
    assert record["memory"] == {"offload": True, "decode": "rows", "weights": "int8"}
    assert record["parts"]["base.autoencoder"]["dtype"] == "float32"
