"""Loggers: what they are told, in which order, and what a recipe may say of them."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from tests.refusals import refused
from tests.test_tracked_files import ROOT
from zoo.schema import files
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.registry import registry
from zoo.training.engine.loggers import TensorBoard, WandB, usual
from zoo.training.engine.logging import Scalars
from zoo.training.recipe import read_recipe


class Recorder:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple] = []

    def open(self, folder, step):
        self.heard.append(("open", folder.name, step))

    def scalars(self, step, values):
        self.heard.append(("scalars", step, dict(values)))

    def sheet(self, step, sheet):
        self.heard.append(("sheet", step, tuple(sheet.shape)))

    def close(self):
        self.heard.append(("close",))


def tell(folder, logger):
    scalars = Scalars(folder, 3, [logger])
    scalars.write(4, {"loss": 0.5})
    scalars.picture(4, torch.zeros(3, 8, 8, dtype=torch.uint8))
    scalars.close()


def test_a_logger_is_told_what_the_csv_holds(tmp_path):
    logger = Recorder()
    tell(tmp_path / "run", logger)
    assert logger.heard == [("open", "run", 3), ("scalars", 4, {"loss": 0.5}), ("sheet", 4, (3, 8, 8)), ("close",)]
    assert (tmp_path / "run" / "scalars.csv").read_text().splitlines()[-1] == "4,loss,0.5"


def test_a_run_that_goes_on_reads_what_was_logged_whatever_it_is(tmp_path):
    lines = [
        "step,name,value",
        "1,loss,0.5",
        "2,loss,0.4",
        "²,loss,1",
        f"{'9' * 5000},loss,1",
        "x" * 10_000,
        "9,loss,1",
    ]
    (tmp_path / "scalars.csv").write_bytes("\n".join(lines).encode() + b"\n\xff\0\n1,lo")
    Scalars(tmp_path, 2).close()
    assert (tmp_path / "scalars.csv").read_text().splitlines() == lines[:3]


def test_wandb_gets_a_run_of_the_folders_name(tmp_path, monkeypatch):
    heard: list[tuple] = []
    run = types.SimpleNamespace(log=lambda values, step: heard.append((step, values)), finish=lambda: heard.append(()))
    module = types.ModuleType("wandb")
    module.init = lambda **named: heard.append(("init", named)) or run  # type: ignore[attr-defined]
    module.Image = lambda array: array.shape  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    tell(tmp_path / "flowers", WandB(project="own", mode="offline"))
    assert heard[0][1]["name"] == heard[0][1]["id"] == "flowers"
    assert (heard[0][1]["project"], heard[0][1]["mode"]) == ("own", "offline")
    assert heard[1:] == [(4, {"loss": 0.5}), (4, {"samples": (8, 8, 3)}), ()]


@pytest.mark.parametrize(
    ("logger", "package"),
    [(TensorBoard(), "torch.utils.tensorboard"), (WandB(), "wandb")],
    ids=["tensorboard", "wandb"],
)
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, logger, package):
    monkeypatch.setitem(sys.modules, package, None)
    with refused("package-missing", UsageError):
        logger.open(tmp_path, 0)


def test_without_tensorboard_the_csv_is_enough(monkeypatch):
    monkeypatch.setattr("zoo.training.engine.loggers.find_spec", lambda name: None)
    assert usual() == []


@pytest.fixture
def recipe():
    return (ROOT / "recipes" / "signals" / "sines-64.yaml").read_text()


@pytest.mark.parametrize(
    ("line", "names"),
    [("loggers: []", []), ("loggers: [tensorboard, {name: wandb, project: x}]", ["tensorboard", "wandb"])],
)
def test_a_recipe_names_loggers_and_they_change_no_weights(tmp_path, recipe, line, names):
    (tmp_path / "a.yaml").write_text(recipe)
    (tmp_path / "b.yaml").write_text(f"{recipe}{line}\n")
    plain, named = (read_recipe(tmp_path / f"{n}.yaml", registry()) for n in "ab")
    assert [block["name"] for block in named.raw["loggers"]] == names
    assert plain.identity == named.identity


@pytest.mark.parametrize("line", ["loggers: tensorboard", "loggers: [nothing]", "loggers: [{name: wandb, projct: x}]"])
def test_loggers_that_are_none_are_refused(tmp_path, recipe, line):
    (tmp_path / "a.yaml").write_text(f"{recipe}{line}\n")
    with pytest.raises(ConfigError):
        read_recipe(tmp_path / "a.yaml", registry())


@pytest.mark.parametrize("step", [0, 1, 3, 777, 20_000, 39_998, 40_000, 10**9])
def test_a_long_run_goes_on_from_any_step_with_the_lines_up_to_it(tmp_path, monkeypatch, step):
    """A real run's lines were beyond a limit of the reader's, and its newest were lost."""
    monkeypatch.setattr(files, "LARGEST_LISTING", 2**16)
    lines = [f"{i},{name},{i / 7:.6g}" for i in range(40_000) for name in ("loss", "validation/loss")]
    (tmp_path / "scalars.csv").write_text("\n".join(["step,name,value", *lines, "40000,lo"]))
    Scalars(tmp_path, step).close()
    kept = (tmp_path / "scalars.csv").read_text().splitlines()
    assert kept == ["step,name,value", *lines[: 2 * (step + 1)]]


@pytest.mark.parametrize("start", [0, 100, 2**18, 300_000])
def test_a_damaged_place_in_a_run_s_scalars_costs_no_other_line(tmp_path, start):
    lines = [f"{i},loss,0.5\n".encode() for i in range(40_000)]
    whole = bytearray(b"step,name,value\n" + b"".join(lines))
    whole[start : start + 8192] = bytes(8192)
    number = whole.index(b"\n19997,")
    whole[number + 1 : number + 6] = b"99997"  # a step that reads as a later one
    (tmp_path / "scalars.csv").write_bytes(whole)
    Scalars(tmp_path, 39_000).close()
    kept = set((tmp_path / "scalars.csv").read_bytes().splitlines(keepends=True))
    assert kept >= set(lines[:39_001]) & set(bytes(whole).splitlines(keepends=True))
    assert not kept & set(lines[39_001:])
