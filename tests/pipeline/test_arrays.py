"""Signals, fields and volumes from a config to files: shapes, values, records, and what is refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.refusals import refused
from tests.tiny import randomise
from zoo.cli.main import run
from zoo.config.cards import read_card
from zoo.inspection.replay import replay
from zoo.networks.unet import UNet
from zoo.pipeline.arrays import SIGNAL, view
from zoo.pipeline.generation import read_record
from zoo.schema.errors import ConfigError, UsageError
from zoo.training.export import write

NETWORK = {
    "in_channels": 2, "out_channels": 2, "width": 8, "mult": [1, 2], "blocks": 1, "attention": "plain",
    "attention_levels": [1], "heads": 2, "context_width": None, "groups": 4,
}  # fmt: skip
SIZES = {1: [16], 2: [8, 12], 3: [4, 6, 8]}
TRAINED = {"schedule": {"name": "cosine", "steps": 1000}, "parameterization": "v"}


def config(dims=1, **changes):
    """A pipeline of a fresh network."""
    stage = {
        "name": "signal", "feeds": "array", "size": SIZES[dims],
        "denoiser": {"network": {"name": "unet", "dims": dims, **NETWORK}, **TRAINED},
        "sampler": {"name": "ddpm", "steps": 3}, **changes,
    }  # fmt: skip
    return {"schema": "zoo.pipeline/1", "stages": [stage]}


def built(dims=1, **changes):
    pipe = zoo.build(config(dims, **changes))
    randomise(pipe.stages[0].denoiser.network, 3)
    return pipe


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """Weights of a network of signals with values from 0 to 10, as training writes them."""
    folder = tmp_path_factory.mktemp("card")
    network = randomise(UNet(dims=1, **{**NETWORK, "mult": (1, 2), "attention_levels": (1,)}), 3)
    about = {
        "kind": "network", "component": "unet", "config": {"dims": 1, **NETWORK}, "denoiser": TRAINED,
        "contract": {"in_channels": 2, "out_channels": 2, "size": [16], "size_multiple": 2, "values": [0.0, 10.0]},
    }  # fmt: skip
    return write(folder, "signals", network.state_dict(), about)


@pytest.mark.slow
@pytest.mark.parametrize("dims", SIZES)
def test_samples_have_the_axes_that_were_asked_for_whatever_the_batch(dims):
    pipe = built(dims)
    made = pipe(n=5, seed=7)
    assert made.arrays.shape == (5, 2, *SIZES[dims])
    assert made.arrays.dtype == torch.float32
    assert torch.equal(made.arrays, made.samples)  # values are -1 to 1
    assert made.numpy.std() > 0.1
    torch.testing.assert_close(pipe(n=5, seed=7, batch_size=2).arrays, made.arrays, atol=1e-5, rtol=0.0)
    assert torch.equal(pipe(n=5, seed=7).arrays, made.arrays)
    assert not torch.equal(pipe(n=5, seed=8).arrays, made.arrays)
    larger = tuple(2 * length for length in SIZES[dims])
    other = pipe(n=1, size=larger)
    assert other.arrays.shape == (1, 2, *larger)
    assert other.record["asked"]["size"] == larger


def test_a_stage_alone_still_draws_arrays():
    pipe = built()
    assert torch.equal(pipe.stage("signal")(seed=4).arrays, pipe(seed=4).arrays)


def test_the_fast_path_draws_the_same():
    pipe = built(3)
    before = pipe(n=2).arrays
    torch.testing.assert_close(pipe.compile()(n=2).arrays, before, atol=1e-5, rtol=0.0)


def test_values_are_what_one_and_minus_one_stand_for_and_nothing_is_clipped():
    made = built(values=[2.0, 6.0])(n=3)
    torch.testing.assert_close(made.arrays, made.samples * 2.0 + 4.0)
    assert float(made.samples.abs().max()) > 1.0
    assert made.values == (2.0, 6.0)
    assert made.record["config"]["stages"][0]["values"] == [2.0, 6.0]


def test_a_config_is_written_out_and_checked_twice_the_same():
    stage = zoo.check(config(size=16))["stages"][0]
    assert (stage["size"], stage["values"]) == ([16], [-1.0, 1.0])
    assert stage["autoencoder"] == {"name": "identity", "channels": 2}
    assert zoo.check(zoo.check(config())) == zoo.check(config())
    assert zoo.check(config(), ["stages.0.size=32"])["stages"][0]["size"] == [32]


def test_the_card_says_the_values(card):
    written = config(denoiser={"weights": str(card)})
    assert zoo.check(written)["stages"][0]["values"] == [0.0, 10.0]
    with refused("size-indivisible", ConfigError, naming="size"):
        zoo.check(written, ["stages.0.size=17"])
    written["stages"][0]["values"] = [0, 5]
    with refused("values-range-conflict", naming="10.0]"):
        zoo.check(written)


TEXT = {"name": "kl", "channels": 2, "z_channels": 4, "width": 8, "mult": [1, 2], "blocks": 1, "groups": 4}
REFUSED = {
    "axes": ({"size": [16, 16]}, "array-axes-unfit: 16"),
    "four axes": ({"size": [2, 2, 2, 2]}, "size-invalid"),
    "no length": ({"size": [0]}, "size-invalid"),
    "values": ({"values": [1, 1]}, "values-range-invalid"),
    "takes": ({"takes": "image"}, "array-start-unfit"),
    "autoencoder": ({"autoencoder": TEXT}, "array-part-unfit"),
    "guidance": (
        {"guidance": [{"name": "posterior", "measurement": {"name": "downsampled"}}]}, "array-part-unfit"
    ),
    "a picture of a signal": ({"feeds": "image", "size": 16}, "array-axes-unfit"),
    "axes of a picture": ({"feeds": "image"}, "size-invalid"),
    "values of a picture": ({"feeds": "image", "size": 16, "values": [0, 1]}, "values-range-conflict"),
    "a network of pictures": (
        {"denoiser": {"network": {"name": "efficient-unet", "in_channels": 2, "out_channels": 2}, **TRAINED}},
        "array-axes-unfit: efficient-unet",
    ),
    "channels": ({"autoencoder": {"name": "identity", "channels": 3}}, "channels-unfit"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_config_that_does_not_fit_is_refused(changes, sentence):
    with refused(sentence, ConfigError):
        zoo.check(config(**changes))


def test_safety_and_other_stages_are_of_pictures():
    with refused("array-part-unfit", naming="'mean-brightness'"):
        zoo.check({**config(), "safety": "mean-brightness"})
    two = config()
    two["stages"].append({**copy.deepcopy(two["stages"][0]), "name": "more"})
    with refused("array-stage-not-alone"):
        zoo.check(two)
    pipe = built()
    with refused("array-part-unfit"):
        type(pipe)(pipe.conditioners, pipe.stages, safety=lambda images: [])
    with refused("array-stage-not-alone"):
        type(pipe)(pipe.conditioners, [*pipe.stages, *pipe.stages])


ASKED = {
    "image": ({"image": torch.zeros(3, 16, 16)}, "array-start-unfit"),
    "mask": ({"mask": torch.zeros(16, 16)}, "array-start-unfit"),
    "strength": ({"strength": 0.5}, "array-start-unfit"),
    "size": ({"size": 17}, "size-indivisible"),
    "axes": ({"size": (16, 16)}, "array-axes-unfit"),
    "prompts": ({"prompts": "a sine"}, "prompts-unread"),
}


@pytest.mark.parametrize(("asked", "sentence"), ASKED.values(), ids=ASKED)
def test_a_call_that_needs_pictures_is_refused(asked, sentence):
    with refused(sentence, UsageError):
        built()(**asked)


def test_who_wants_pictures_of_arrays_is_told_so():
    made = built()(n=2)
    for ask in (lambda: made.images, lambda: made.tensor, lambda: made.sheet()):
        with refused("images-wanted"):
            ask()
    assert len(made) == 2
    assert "arrays=(2, 2, 16)" in repr(made)
    with pytest.raises(AttributeError):
        _ = made.nothing


@pytest.mark.parametrize("dims", SIZES)
def test_files_hold_all_samples_and_the_record(dims, tmp_path):
    made = built(dims)(n=3, seed=5)
    files = made.save(tmp_path / "folder")
    assert [f.name for f in files] == ["samples.npy", "samples.json", "samples.png"]
    assert np.array_equal(np.load(files[0], allow_pickle=False), made.numpy)
    record = json.loads(files[1].read_text())
    assert record["array"]["shape"] == [3, 2, *SIZES[dims]]
    assert [entry["sample"] for entry in record["images"]] == [0, 1, 2]
    assert read_record(files[0]) == read_record(files[2]) == record
    assert Image.open(files[2]).size == made.view.size
    assert [f.name for f in made.save(tmp_path / "a.npy", grid=True)] == ["a.npy", "a.json", "a.png"]
    assert [f.name for f in made.save(tmp_path / "b.png")] == ["b.png"]
    with refused("output-format-unknown"):
        made.save(tmp_path / "c.wav")


def test_a_signal_is_seen_where_its_values_are():
    arrays = torch.full((1, 1, 50), -1.0)
    arrays[..., 25:] = 1.0
    cell = np.asarray(view(arrays, (-1.0, 1.0)).convert("L"), dtype=float)
    dark = [int(cell[:, x].argmin()) for x in (20, SIGNAL[0] - 20)]
    assert dark[0] > 0.9 * SIGNAL[1]
    assert dark[1] < 0.1 * SIGNAL[1]


@pytest.mark.slow
def test_the_command_line_draws_arrays_and_draws_them_again(card, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written = config(denoiser={"weights": str(card)})
    (tmp_path / "signals.json").write_text(json.dumps(written))
    words = ["generate", "--model", "signals.json", "-n", "3", "--seed", "9", "--size", "32"]
    assert run(words) == 0
    assert capsys.readouterr().out.split() == ["out.npy", "out.json"]
    found = np.load("out.npy", allow_pickle=False)
    assert found.shape == (3, 2, 32)
    expected = zoo.build(written)(n=3, seed=9, size=32)
    assert np.array_equal(found, expected.numpy)
    assert read_record("out.npy")["weights"] == {str(card): read_card(str(card)).sha256}

    assert run(["replay", "out.npy"]) == 0
    assert "bit-equal: every value is the same" in capsys.readouterr().out
    assert run(["diff", "out.npy", "out.json"]) == 0
    assert run(["diff", "out.npy", "signals.json", "--exit-code"]) == 1
    assert "size 32 -> 16" in capsys.readouterr().out
    np.save("out.npy", found + np.float32(0.01))
    assert replay("out.npy").verdict == "within"
    np.save("out.npy", found + np.float32(5.0))
    again = replay("out.npy")
    assert (again.verdict, round(again.maximum or 0.0)) == ("different", 128)  # half of 0 to 10, in 255ths
    np.save("out.npy", found[:2])
    assert "its record speaks of 3x32" in str(replay("out.npy"))

    for wrong, sentence in (
        (["--size", "8xx"], "the length of each axis"), (["--image", "a.png"], "leave the image out"),
        (["-o", "a.jpg"], "use .npy"),
    ):  # fmt: skip
        assert run([*words, *wrong]) == 2
        assert sentence in capsys.readouterr().err
    assert run(["evaluate", "signals.json", str(tmp_path)]) == 2


def test_a_record_that_is_not_beside_its_array_is_missed_by_name(tmp_path):
    np.save(tmp_path / "alone.npy", np.zeros((1, 1, 4), dtype=np.float32))
    with refused("record-missing", naming="alone.json"):
        replay(tmp_path / "alone.npy")
