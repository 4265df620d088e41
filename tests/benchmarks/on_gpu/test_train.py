"""The phase `train`, with a network of some thousand parameters and images that are made up."""

from __future__ import annotations

import json
import time
import zipfile

import pytest
import torch
from PIL import Image

from benchmarks.on_gpu import sitting as module
from benchmarks.on_gpu.courses import COURSES, LEAST, ROOT, cards_in, made_up, shared_out, some_of
from benchmarks.on_gpu.sitting import Sitting, Watched
from tests.refusals import refused
from zoo.bench import record
from zoo.config.cards import read_card
from zoo.schema.errors import UsageError
from zoo.schema.registry import registry
from zoo.training.engine.loop import Loop, Progress
from zoo.training.engine.recorded import WARM_UP
from zoo.training.recipe import read_recipe

FIRST = WARM_UP + 2  # steps that compile, record and replay, before the run


def sit(out, seconds=30.0, **changes):
    sitting = Sitting(out=out, until=time.monotonic() + seconds, device="cpu", tiny=True, **changes)
    sitting.run()
    found = record.read(out / "train.json")
    return found, found["rows"]


@pytest.fixture
def brief(monkeypatch):
    """A loop of one step after those that compile, however fast the machine is."""
    run = Loop.run

    def one_more(loop, report=None):
        loop.fitting, loop.settings = None, module.dataclasses.replace(loop.settings, steps=FIRST + 1, decay_steps=2)
        return run(loop, report)

    monkeypatch.setattr(Loop, "run", one_more)


@pytest.mark.slow
def test_it_leaves_a_record_weights_with_their_card_and_a_sheet(tmp_path, brief):
    found, (row,) = sit(tmp_path)
    assert (row["status"], row["kind"]) == ("measured", "training")
    assert (row["run"]["steps"], row["run"]["batch"]) == (FIRST + 1, 4)
    assert row["run"]["started_from"] is None
    ((key, hit),) = row["quality"]["values"].items()
    assert key.startswith("hit[emoji-evaluator@")
    assert hit["extractor"]["sha256"] == read_card("emoji-evaluator").sha256
    assert hit["n"] == 4
    assert hit["interval"][0] <= hit["value"] <= hit["interval"][1]
    assert row["work"]["flops_per_image"] > 1e6
    assert found["run"]["complete"]
    assert found["run"]["doing"] is None
    card = read_card(str(tmp_path / "weights" / "tiny.yaml"))
    assert card.raw["provenance"]["steps"] == FIRST + 1
    assert card.raw["file"]["dtype"] == "int8"
    assert Image.open(tmp_path / "sheet.png").width > 16
    assert not (tmp_path / "runs").exists()
    assert record.gaps(found) == []


@pytest.mark.slow
def test_it_goes_on_from_an_earlier_call_s_archive_and_says_how_that_did(tmp_path, brief):
    sit(tmp_path / "first")
    start = tmp_path / "start"
    start.mkdir()
    with zipfile.ZipFile(start / "tiny.zip", "w") as archive:  # as the command leaves them
        for file in (tmp_path / "first" / "weights").iterdir():
            archive.write(file, file.name)
    _, (before, row) = sit(tmp_path / "second", start=str(start))
    sha256 = read_card(str(tmp_path / "first" / "weights" / "tiny.yaml")).sha256
    assert before["weights"] == {"tiny": sha256}
    assert before["quality"]["values"].keys() == row["quality"]["values"].keys()
    assert row["run"]["started_from"] == {"name": "tiny", "sha256": sha256, "earlier_call": True}
    assert any("fresh optimizer" in note for note in row["notes"])
    assert any("before and" in note for note in row["notes"])
    card = read_card(str(tmp_path / "second" / "weights" / "tiny.yaml"))
    assert card.raw["provenance"]["started_from"]["sha256"] == sha256


@pytest.mark.slow
def test_weights_are_there_early_so_that_a_kill_loses_little(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EARLY", 0.0)

    def killed(loop, report):
        loop.train_step()
        report(Progress(1, 10, 0.5, 1.0, 1.0))
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Loop, "run", killed)
    found, (row,) = sit(tmp_path)
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: the device is gone")
    assert not found["run"]["complete"]
    steps = read_card(str(tmp_path / "weights" / "tiny.yaml")).raw["provenance"]["steps"]
    assert steps == FIRST + 1


@pytest.mark.slow
def test_a_batch_that_memory_runs_out_for_is_halved(tmp_path, monkeypatch, brief):
    tried = []
    overrides = module.OneCourse._overrides

    def refuse(one):
        tried.append(one.course.batch)
        if one.course.batch > 2:
            raise torch.OutOfMemoryError("no memory")
        return overrides(one)

    monkeypatch.setattr(module, "SMALLEST", 1)
    monkeypatch.setattr(module.OneCourse, "_overrides", refuse)
    _, (row,) = sit(tmp_path)
    assert tried[:2] == [4, 2]
    assert (row["status"], row["run"]["batch"]) == ("measured", 2)


@pytest.mark.slow
def test_a_failure_while_judging_leaves_what_was_trained(tmp_path, monkeypatch, brief):
    monkeypatch.setattr(module.Scorer, "__call__", lambda self, config: 1 / 0)
    _, (row,) = sit(tmp_path)
    assert row["status"] == "measured"
    assert row["quality"]["reason"].startswith("ZeroDivisionError")
    assert (tmp_path / "weights" / "tiny.safetensors").is_file()


def test_without_data_every_recipe_says_so(tmp_path):
    Sitting(out=tmp_path, until=time.monotonic() + 30.0, device="cpu").run()
    rows = record.read(tmp_path / "train.json")["rows"]
    assert len(rows) == len(COURSES)
    assert {row["status"] for row in rows} == {"unavailable"}
    assert "--data" in rows[0]["reason"]


def test_a_short_time_is_the_first_recipe_s_and_a_long_one_is_shared_by_worth():
    assert [course.recipe for course, _ in shared_out(COURSES, 60.0)] == [COURSES[0].recipe]
    for seconds in (60.0, 250.0, 500.0, 5000.0):
        plan = shared_out(COURSES, seconds)
        assert sum(share for _, share in plan) == pytest.approx(seconds)
        assert len(plan) == 1 or min(share for _, share in plan) >= LEAST
    assert len(shared_out(COURSES, 5000.0)) == len(COURSES)


def test_every_course_is_a_recipe_that_can_be_read_and_a_pipeline_there_is():
    from zoo.config.presets import preset_names

    for course in COURSES:
        assert read_recipe(ROOT / course.recipe, registry()).name
        assert course.pipeline in preset_names()


def test_a_start_without_weights_is_refused(tmp_path):
    with refused("data-missing"):
        cards_in(tmp_path / "nowhere", tmp_path / "unpacked")
    with refused("weights-missing", UsageError):
        cards_in(tmp_path, tmp_path / "unpacked")
    assert cards_in(None, tmp_path) == {}


def test_an_archive_puts_nothing_outside_its_folder(tmp_path):
    (tmp_path / "start").mkdir()
    with zipfile.ZipFile(tmp_path / "start" / "bad.zip", "w") as archive:
        archive.writestr("../escaped.yaml", "x")
    with refused("weights-missing", UsageError):
        cards_in(tmp_path / "start", tmp_path / "unpacked")
    assert not (tmp_path / "escaped.yaml").exists()


def test_a_rate_is_of_steps_after_the_first():
    watched = Watched(times=[(1, 100.0), *[(step, 130.0 + step) for step in range(2, 40)]], losses=[1.0])
    assert watched.rate(8) == pytest.approx(8.0)
    assert Watched(times=[(1, 0.0)]).rate(8) is None


def test_made_up_images_have_both_splits_and_concepts(tmp_path):
    rows = [json.loads(line) for line in (made_up(tmp_path) / "metadata.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "val"}
    assert len({row["concept"] for row in rows if row["split"] == "val"}) >= 5


@pytest.mark.slow
def test_a_trial_takes_a_few_images_of_the_data(tmp_path, brief):
    path = made_up(tmp_path / "data")
    few = some_of(str(path), tmp_path / "few", count=5)
    rows = [json.loads(line) for line in (few / "metadata.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train"] * 5 + ["val"] * 5
    assert (few / "0.png").read_bytes() == (path / "0.png").read_bytes()
    _, (row,) = sit(tmp_path / "out", data=str(path))
    assert row["status"] == "measured"
