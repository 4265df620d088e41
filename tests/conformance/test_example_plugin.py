"""The example package of docs/examples, installed: it is listed, conforms and draws; and others that don't."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.conformance.installed import EXAMPLE, install_example, on_the_path, write_info
from tests.refusals import refused
from zoo.cli.main import run
from zoo.config.blocks import check_block
from zoo.conformance import examine_package
from zoo.diffusion.schedules import CosineSchedule
from zoo.diffusion.types import Prediction
from zoo.pipeline.generation import read_record
from zoo.schema.registry import find_plugin, installed_plugins, registry

BAD = '''
"""A sampler that counts itself."""
from zoo.samplers.euler import Euler


class Bad(Euler):
    """Asks the network twice."""

    def __call__(self, denoise, table, x, **named):
        def twice(x, step):
            denoise(x, step)
            return denoise(x, step)

        return super().__call__(twice, table, x, **named)


class Sized(Euler):
    """Takes an argument."""

    def __init__(self, *, size):
        object.__setattr__(self, "steps", size)
'''


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example package, installed."""
    install_example(tmp_path / "site")
    with on_the_path(tmp_path / "site", monkeypatch, "zoo_example_plugin") as site:
        yield site


@pytest.fixture
def others(tmp_path, monkeypatch):
    """Packages with a bad sampler, a missing module, and no plugin at all."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "plugin_of_the_bad.py").write_text(BAD)
    points = {"sampler.bad": "plugin_of_the_bad:Bad", "sampler.sized": "plugin_of_the_bad:Sized"}
    write_info(site, name="bad-plugin", version="0.3", points=points)
    write_info(site, name="lost-plugin", version="1.0", points={"sampler.lost": "nowhere_at_all:X"})
    write_info(site, name="no-plugin", version="1.0", points={})
    with on_the_path(site, monkeypatch, "plugin_of_the_bad"):
        yield site


@pytest.mark.slow
def test_the_example_is_listed_with_its_version_and_keeps_its_promises(example, capsys):
    assert run(["list", "sampler", "ralston"]) == 0
    summary = "Ralston's second-order method: deterministic, at two evaluations a step."
    assert capsys.readouterr().out == f"sampler\tralston\t{summary}\n"
    assert run(["plugin", "check", "zoo_example.plugin"]) == 0  # '-', '_' and '.' are one
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith("zoo-example-plugin 0.1.0: ")
    assert told[-1].endswith(", 0 broken")
    (plugin,) = [p for p in installed_plugins() if p.package == "zoo-example-plugin"]
    assert plugin.keys == ("network/mlp-mixer", "sampler/ralston")
    assert Path(plugin.place) == example
    assert run(["doctor", "--json"]) == 0
    (row,) = [p for p in json.loads(capsys.readouterr().out)["plugins"] if p["package"] == "zoo-example-plugin"]
    assert (row["version"], row["keys"], row["broken"]) == ("0.1.0", list(plugin.keys), {})


@pytest.mark.slow
def test_the_examples_own_tests_pass(example):
    spec = importlib.util.spec_from_file_location("example_tests", EXAMPLE / "tests" / "test_conformance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [getattr(module, name) for name in dir(module) if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_example_draws_a_picture(example, tmp_path, capsys):
    out = tmp_path / "noise.png"
    words = ["generate", "--model", str(EXAMPLE / "mixer.yaml"), "--set", "stages.0.sampler.steps=2", "-o", str(out)]
    assert run(words) == 0, capsys.readouterr().err
    picture = np.asarray(Image.open(out))
    assert picture.shape == (32, 32, 3)
    assert picture.std() > 1.0
    stage = read_record(out)["config"]["stages"][0]
    assert (stage["sampler"]["name"], stage["denoiser"]["network"]["name"]) == ("ralston", "mlp-mixer")


def test_the_examples_sampler_fits_shipped_weights_by_its_name_alone(example):
    resolved = zoo.check("latent-text2img", sampler="ralston", steps=12)
    assert resolved["stages"][0]["sampler"] == {
        "name": "ralston",
        "steps": 12,
        "grid": {"name": "trailing"},
    }


def test_the_documentation_shows_the_example_as_it_is():
    page = (EXAMPLE.parents[1] / "extending.md").read_text(encoding="utf-8")
    (points,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert points in (EXAMPLE / "pyproject.toml").read_text()
    source = (EXAMPLE / "src" / "zoo_example_plugin" / "ralston.py").read_text()
    shown = page[page.index("def write(self, table, walk)") :].partition("```")[0].splitlines()[1:]
    assert len(shown) > 10
    assert "\n".join(f"    {line}" for line in shown if line) in source


def test_what_the_example_inherits_from_zoo_is_checked_like_its_own(example):
    def check(**arguments):
        return check_block({"name": "ralston", **arguments}, kind="sampler", where="sampler", registry=registry())

    check(steps=8, grid={"name": "karras", "rho": 5.0})
    with refused("argument-type-wrong", naming="'ralston'"):
        check(final="sometime")
    with refused("argument-unknown", naming="'churn'"):
        check(churn=1.0)


def test_a_step_of_the_examples_sampler_is_ralstons(example):
    ralston, schedule = registry().load("sampler", "ralston")(), CosineSchedule()
    table = ralston.plan(schedule, 10, interval=(0.6, 0.5))
    assert len(table) == 2
    spread = 0.25  # the variance of the data, one Gaussian around 0

    def denoise(x, step):
        return Prediction(x0=x * step.alpha * spread / (step.alpha**2 * spread + step.sigma**2))

    def eps(y, s):
        return y * s / (spread + s**2)

    end = ralston(denoise, table, torch.ones(1, 1, dtype=torch.float64), noise=None)
    first, last = table.start, table.steps[-1]
    y, s = 1.0 / first.alpha, first.sigma / first.alpha
    h = last.sigma_next / last.alpha_next - s
    slope = eps(y, s)
    right = y + h * (0.25 * slope + 0.75 * eps(y + 2.0 / 3.0 * h * slope, s + 2.0 / 3.0 * h))
    assert float(end) == pytest.approx(last.alpha_next * right, rel=1e-9)


@pytest.mark.slow
def test_a_broken_promise_is_exit_code_1_and_named(others, capsys):
    assert run(["plugin", "check", "bad-plugin", "--set", "sampler.sized.size=4"]) == 1
    told = capsys.readouterr().out
    (line,) = [row for row in told.splitlines() if "sampler/bad\tevaluations" in row]
    assert "BROKEN\tits plan of 1 steps on 'linear' counts 1 network evaluations and the run makes 2; let" in line
    assert run(["plugin", "check", "bad-plugin", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["schema"], report["version"], report["ok"]) == ("zoo.conformance/1", "0.3", False)
    failed = {(o["name"], o["check"]): o["said"] for o in report["outcomes"] if o["state"] == "failed"}
    assert set(failed) == {("bad", "evaluations"), ("sized", "made")}
    assert "can't be made without size" in failed["sized", "made"]


@pytest.mark.slow
def test_a_plugin_that_cannot_be_found_fails_by_the_registrys_reason(others, capsys):
    assert run(["plugin", "check", "lost-plugin"]) == 1
    assert "sampler/lost\tlisted\tBROKEN\t" in capsys.readouterr().out
    (outcome,) = examine_package("lost-plugin").outcomes
    assert "nowhere_at_all" in outcome.said
    assert run(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "plugin\tlost-plugin 1.0\tsampler/lost\n" in told
    assert "BROKEN\tsampler/lost\tplugin package 'lost-plugin'" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-plugin"], "is installed and has no plugins; give it entry points in the group 'zoo.plugins'"),
        (["bad-plugn"], "unknown plugin package 'bad-plugn', did you mean 'bad-plugin'?"),
        (["sampler/ralstn"], "unknown sampler 'ralstn'"),
        (["bad-plugin", "--set", "sampler.bad.steps"], "gives no value"),
        (["bad-plugin", "--set", "sampler.bda.steps=3"], "did you mean 'sampler.bad'"),
    ],
)
def test_a_wrong_request_is_exit_code_2(others, capsys, words, said):
    assert run(["plugin", "check", *words]) == 2
    assert said in capsys.readouterr().err


def test_one_component_can_be_checked_by_its_key(others, capsys):
    assert run(["plugin", "check", "schedule/cosine"]) == 0
    assert capsys.readouterr().out.endswith("schedule/cosine: 11 promises kept, 0 broken\n")


def test_a_package_is_found_by_any_spelling_of_its_name(others):
    assert find_plugin("Bad_Plugin").package == "bad-plugin"
    with refused("plugin-unknown"):
        find_plugin("../bad-plugin")
