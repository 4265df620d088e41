"""`auto`, Python's default and the command line's, with stand-ins for what torch says is there."""

from __future__ import annotations

import json
from functools import wraps

import pytest
import torch

import zoo
from tests import tiny
from tests.refusals import refused
from zoo.acceleration import device
from zoo.bench.suite import read_suite
from zoo.schema.errors import UsageError


def pretend(monkeypatch, *, cuda=False, mps=False, xpu=False):
    for module, answer in ((torch.cuda, cuda), (torch.backends.mps, mps), (torch.xpu, xpu)):
        # torch's compiler looks behind these functions' decorators when it is first imported.
        stand_in = wraps(module.is_available)(lambda answer=answer: answer)
        stand_in.__wrapped__ = getattr(module.is_available, "__wrapped__", module.is_available)
        monkeypatch.setattr(module, "is_available", stand_in)


@pytest.mark.parametrize(
    ("there", "best"),
    [
        ({}, "cpu"), ({"xpu": True}, "xpu"), ({"mps": True, "xpu": True}, "mps"),
        ({"cuda": True, "mps": True, "xpu": True}, "cuda"),
    ],
)  # fmt: skip
def test_auto_is_the_first_of_cuda_mps_xpu_that_is_there_else_the_cpu(monkeypatch, there, best):
    pretend(monkeypatch, **there)
    assert device.resolve("auto") == torch.device(best)


def test_none_is_the_cpu_whatever_is_there(monkeypatch):
    pretend(monkeypatch, cuda=True)
    assert device.resolve(None) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:77", "no-such-device"])
def test_a_device_that_is_not_there_is_refused_with_the_fix(name):
    with refused("device-missing", UsageError, naming=name):
        device.resolve(name)


@pytest.mark.slow
def test_a_record_says_that_the_device_was_left_open(monkeypatch):
    pretend(monkeypatch)
    words = {"prompts": "red apple, 3d style", "steps": 1}
    drawn = [zoo.build("latent-text2img", device=given)(**words).record for given in ("auto", "cpu", None)]
    assert [r["device"] for r in drawn] == ["cpu"] * 3
    assert [r.get("device_requested") for r in drawn] == ["auto", None, None]


def test_a_cuda_device_without_a_number_is_the_current_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert device.indexed("cuda") == torch.device("cuda", 3)
    assert device.indexed(torch.device("cuda:1")) == torch.device("cuda", 1)
    assert device.indexed("cpu") == torch.device("cpu")


def test_a_pipeline_moves_to_auto(monkeypatch):
    pretend(monkeypatch)
    moved = []
    pipe = tiny.tiny_pipeline()
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device=None, dtype=None: moved.append(device))
    pipe.to("auto")
    assert set(moved) == {torch.device("cpu")}


def suite(*rows):
    return {"schema": "zoo.suite/1", "include": list(rows)}


def test_rows_of_a_suite_that_name_no_device_get_the_one_given():
    rows = {
        "schema": "zoo.suite/1",
        "include": [{"model": "latent-text2img"}, {"model": "latent-text2img", "steps": 3, "device": "cpu"}],
    }
    assert [r.asked.device for r in read_suite(rows).rows] == ["cpu", "cpu"]
    assert [r.asked.device for r in read_suite(rows, device="cuda").rows] == ["cuda", "cpu"]


def test_a_row_that_a_suite_names_for_that_device_too_is_measured_once():
    rows = {
        "schema": "zoo.suite/1",
        "include": [{"model": "latent-text2img"}, {"model": "latent-text2img", "device": "cuda"}],
    }
    assert [r.asked.device for r in read_suite(rows).rows] == ["cpu", "cuda"]
    assert [r.asked.device for r in read_suite(rows, device="cuda").rows] == ["cuda"]


@pytest.mark.slow
def test_every_shipped_suite_can_be_measured_on_another_device():
    from zoo.bench.suite import suite_names

    for name in suite_names():
        assert read_suite(name, device="cuda").rows


def test_the_command_line_leaves_the_device_open(monkeypatch, tmp_path, capsys):
    from zoo.cli.main import run

    pretend(monkeypatch)
    words = ["red apple, 3d style", "--steps", "1", "-o", str(tmp_path / "a.png"), "--json"]
    assert run(["generate", *words]) == 0
    assert json.loads(capsys.readouterr().out)["record"]["device_requested"] == "auto"
