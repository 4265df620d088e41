"""A run of a suite: the record's form, rows that can't be measured, resuming, quality, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from benchmarks import peers
from benchmarks.on_gpu import correct
from tests.refusals import refused
from zoo.bench import checks, machine, measure, pipelines, quality, record, run
from zoo.bench.run import run_suite
from zoo.bench.suite import read_suite
from zoo.schema.errors import UsageError

EXAMPLE = json.loads((Path(__file__).parent / "example_record.json").read_text())
TINY = correct.TINY


@pytest.fixture(autouse=True)
def quick_peak(monkeypatch):
    peak = {"matmul_tflops": 0.1, "convolution_tflops": 0.2, "tflops": 0.2, "matmul_size": 8, "convolution": "small"}
    monkeypatch.setattr(machine, "peak", lambda *_: peak)


def tiny(rows, **settings):
    return read_suite({
        "schema": "zoo.suite/1", "name": "tiny", "summary": "A test.", "models": {"tiny": TINY},
        "settings": {"repeats": 2, "warm_up": 1, **settings}, "include": rows,
    })  # fmt: skip


def keys(value, depth=3):
    """The keys of a record, nested; those under names that are data are left out."""
    if not isinstance(value, dict) or depth == 0:
        return None
    return {
        k: None
        if k in ("config", "peaks", "noise", "weights", "settings", "versions", "values", "seconds")
        else keys(v, depth - 1)
        for k, v in value.items()
    }


@pytest.mark.slow
def test_a_run_writes_the_form_that_the_example_shows(tmp_path):
    suite = tiny([
        {"model": "tiny", "batch": 2}, {"model": "tiny", "batch": 2, "steps": 2, "fast": True},
        {"model": "tiny", "step_cache": "deep-features"}, {"model": "tiny", "device": "cuda", "precision": "bfloat16"},
    ])  # fmt: skip
    told = []
    made, path = run_suite(suite, folder=tmp_path / "out", report=lambda text, done, total: told.append((done, total)))
    assert json.loads(path.read_text()) == json.loads(json.dumps(made))
    assert path.name.startswith("tiny-20")
    assert told[-1][1] == 4
    measured, fast, cached, absent = made["rows"]
    example, missing = EXAMPLE["rows"]
    assert keys(measured) == keys(example)
    assert keys(absent) == keys(missing)
    assert keys(made) == keys(EXAMPLE)
    compared = {package for kind in peers.ROW_KINDS.values() for package in kind.packages}
    assert set(made["versions"]) == set(EXAMPLE["versions"]) - compared  # those are of records with such rows
    assert made["run"]["complete"]
    assert absent["status"] == "unavailable"
    assert "'cuda' is not there" in absent["reason"]
    # What was asked is what ran.
    assert [r["run"]["evaluations"] for r in (measured, fast, cached)] == [3, 2, 3]
    assert [r["run"]["stages"][0]["full_evaluations"] for r in (measured, fast, cached)] == [3, 2, 2]
    on = {"precompute", "channels_last", "packed"}
    assert fast["fast"] == {part: part in on for part in (*on, "compile", "graphs")}
    assert not any(measured["fast"].values())
    assert measured["speed"]["images_per_second"] > 0
    assert len(measured["speed"]["latency_seconds"]["runs"]) == 2
    assert measured["run"]["seeds"] == [0, 1]
    # Every part of a call has its seconds.
    assert list(measured["profile"]["seconds"]) == ["base", "rest"]  # a stand-in for text has no network
    assert measured["profile"]["calls"] == 4  # two rounds, and the baseline's
    assert fast["profile"]["calls"] == 2
    assert sum(measured["profile"]["seconds"].values()) <= sum(measured["speed"]["latency_seconds"]["runs"]) * 2
    assert record.gaps(made) == []
    # Random weights: speed and nothing else.
    assert measured["random_weights"]
    assert measured["quality"]["reason"] == "random weights: speed only"
    assert measured["work"]["flops_per_image"] * 2 == fast["work"]["flops_per_image"] * 3  # no decoder, no text tower
    assert "step cache" in cached["work"]["reason"]
    share = measured["work"]["flops_per_image"] * measured["speed"]["images_per_second"] / 0.2e12
    assert measured["work"]["share_of_peak"] == pytest.approx(share, abs=1e-3)
    assert list(made["noise"]) == ["tiny/cpu"]


@pytest.mark.slow
def test_memory_that_runs_out_halves_the_batch_and_is_recorded(tmp_path, monkeypatch):
    real = pipelines.Built.__call__

    def small(self, number):
        if self.tried[-1] > self.row.asked.steps:  # a machine that holds so many pictures
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, number)

    monkeypatch.setattr(pipelines.Built, "__call__", small)
    suite = tiny([{"model": "tiny", "batch": 5, "steps": 2}, {"model": "tiny", "batch": 4, "steps": 1}])
    monkeypatch.setattr(pipelines, "out_of_memory", lambda e: isinstance(e, torch.OutOfMemoryError))
    made, _ = run_suite(suite, folder=tmp_path)
    assert [r["run"]["batch"] for r in made["rows"]] == [2, 1]
    assert [r["run"]["batches_tried"] for r in made["rows"]] == [[5, 2], [4, 2, 1]]
    assert "a batch of 5 had no memory; it ran with 2" in made["rows"][0]["notes"]
    assert made["rows"][0]["asked"]["batch"] == 5


@pytest.mark.slow
def test_memory_that_runs_out_in_a_round_halves_the_batch_too(tmp_path, monkeypatch):
    real, calls = pipelines.Built.__call__, []

    def later(self, number):
        calls.append((self.row.asked.batch, self.tried[-1]))
        if calls.count((4, 4)) == 2 and calls[-1] == (4, 4):  # its warm-up fitted
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, number)

    monkeypatch.setattr(pipelines.Built, "__call__", later)
    made, _ = run_suite(tiny([{"model": "tiny", "batch": 4}, {"model": "tiny", "batch": 1}]), folder=tmp_path)
    large, small = made["rows"]
    assert large["run"]["batches_tried"] == [4, 2]
    assert len(large["speed"]["latency_seconds"]["runs"]) == 2
    assert any("memory ran out in a round" in note for note in large["notes"])
    assert small["notes"] == ["random weights: speed only"]
    assert made["noise"]["tiny/cpu"]["row"] == small["name"]  # the baseline is of a row that went on
    assert large["profile"]["calls"] == 4  # two rounds of the half, and its baseline's


@pytest.mark.slow
@pytest.mark.parametrize("where", ["build", "__call__"])
def test_what_breaks_a_row_anywhere_leaves_the_others(where, tmp_path, monkeypatch):
    owner = pipelines.Builder if where == "build" else pipelines.Built
    real, turns = getattr(owner, where), []

    def broken(self, asked):
        turns.append(1)
        row = asked if where == "build" else self.row
        if row.asked.steps == 1 and (where == "build" or len(turns) > 2):  # after both warm-ups
            raise zoo.schema.errors.WeightsError("its file is another one", code="weights-hash-wrong")
        return real(self, asked)

    monkeypatch.setattr(owner, where, broken)
    made, _ = run_suite(tiny([{"model": "tiny", "steps": 1}, {"model": "tiny"}]), folder=tmp_path)
    assert [(r["status"], r["reason"]) for r in made["rows"]] == [
        ("failed", "its file is another one"), ("measured", None),
    ]  # fmt: skip
    assert len(made["rows"][1]["speed"]["latency_seconds"]["runs"]) == 2


def test_a_slip_of_the_code_is_no_failed_row(tmp_path, monkeypatch):
    def broken(self, number):
        raise AttributeError("a slip")

    monkeypatch.setattr(pipelines.Built, "__call__", broken)
    with pytest.raises(AttributeError):
        run_suite(tiny([{"model": "tiny"}]), folder=tmp_path)


@pytest.mark.slow
def test_a_row_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    real = pipelines.Built.__call__

    def broken(self, number):
        if self.row.asked.steps == 1:
            raise zoo.schema.errors.NumericError("the network gave NaN", code="network-not-finite")
        return real(self, number)

    monkeypatch.setattr(pipelines.Built, "__call__", broken)
    made, _ = run_suite(tiny([{"model": "tiny", "steps": 1}, {"model": "tiny"}]), folder=tmp_path)
    assert [(r["status"], r["reason"]) for r in made["rows"]] == [
        ("failed", "the network gave NaN"), ("measured", None),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_keeps_its_rows_and_another_goes_on(tmp_path, monkeypatch):
    second = {**TINY, "name": "second"}
    suite = read_suite({
        "schema": "zoo.suite/1", "name": "tiny", "models": {"one": TINY, "two": second},
        "settings": {"repeats": 1}, "include": [{"model": "one"}, {"model": "two"}],
    })  # fmt: skip
    real, built = pipelines.Builder.build, []

    def killed(self, row):
        built.append(row.asked.model)
        if built == ["one", "two"]:
            raise KeyboardInterrupt
        return real(self, row)

    monkeypatch.setattr(pipelines.Builder, "build", killed)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, folder=tmp_path)
    (path,) = tmp_path.glob("*.json")
    left = record.read(path)
    assert [r["asked"]["model"] for r in left["rows"]] == ["one"]
    assert not left["run"]["complete"]
    made, again = run_suite(suite, folder=tmp_path, resume=True)
    assert again == path
    assert built == ["one", "two", "two"]
    assert [r["asked"]["model"] for r in made["rows"]] == ["one", "two"]
    assert made["rows"][0] == left["rows"][0]
    assert (made["run"]["resumed"], made["run"]["complete"]) == (1, True)
    # What was finished, or is of another suite or another machine, is not gone on with.
    assert record.unfinished(suite, tmp_path) is None
    path.write_text(json.dumps(left | {"machine": {**left["machine"], "cores": 999}}))
    assert record.unfinished(suite, tmp_path) is None
    path.write_text("{")
    assert record.unfinished(suite, tmp_path) is None
    path.write_text(json.dumps(left))
    assert record.unfinished(suite, tmp_path) is not None
    # Nor is one that was changed: its start names the file that the record is written to.
    row = left["rows"][0]
    for change in (
        {"run": {**left["run"], "started": "/../../outside"}}, {"run": {**left["run"], "resumed": "1"}},
        {"run": {**left["run"], "wall_seconds": None}}, {"rows": [{**row, "id": "x"}]}, {"rows": [{"id": row["id"]}]},
        {"rows": [{**row, "quality": {}}]}, {"rows": 5}, {"run": []}, {"suite": None},
    ):  # fmt: skip
        path.write_text(json.dumps(left | change))
        assert record.unfinished(suite, tmp_path) is None, change


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for i, name in enumerate(["red apple", "pizza", "cat face", "red heart", "sun", "moon"] * 2):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        row = {"file_name": f"{i}.png", "text": f"{name}, flat style", "name": name, "concept": name, "split": "test"}
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
def test_a_shipped_pipeline_is_judged_under_keys_that_say_by_what(tmp_path, data):
    suite = read_suite({
        "schema": "zoo.suite/1", "name": "judged", "settings": {
            "repeats": 1, "quality": {"samples": 4, "ranges": 2},
        },
        "include": [
            {"model": "latent-text2img", "steps": 1, "batch": 1}, {"model": "latent-text2img", "steps": 1, "batch": 2},
        ],
    })  # fmt: skip
    made, path = run_suite(suite, folder=tmp_path / "out", data=str(data))
    assert record.gaps(made) == []
    quality = made["rows"][1]["quality"]
    # Another batch draws the same pictures but for rounding, so they are judged once, and this is said.
    other = made["rows"][0]["quality"]
    assert other["values"] == quality["values"]
    assert (other["same_as"], quality["same_as"]) == (made["rows"][1]["id"], None)
    assert any("differ by rounding alone" in note for note in made["rows"][0]["notes"])
    assert other["samples"] != quality["samples"]
    assert (quality["seed"], quality["samples_seed"], quality["batch"]) == (0, 0, 2)
    assert quality["labels"] == "captions of the split"
    assert list(made["rows"][1]["profile"]["seconds"]) == ["text", "base", "decoding", "rest"]
    sha = zoo.describe("weights/emoji-evaluator").facts["file"]["sha256"][:8]
    assert list(quality["values"]) == [f"fd[emoji-evaluator@{sha}]@2", f"hit[emoji-evaluator@{sha},test]@4"]
    found, hit = quality["values"].values()
    assert found["better"] == "lower"
    assert hit["better"] == "higher"
    assert 0.0 <= hit["interval"][0] <= hit["value"] <= hit["interval"][1] <= 1.0
    assert hit["floor"]["value"] == pytest.approx(5 / 6)  # six concepts in one style
    assert found["seed_ranges"] == [[0, 2], [2, 4]]
    assert found["value"] == pytest.approx(sum(found["values"]) / 2)
    assert found["floor"]["key"].startswith("fd-floor[")
    assert keys(found) == keys(next(iter(EXAMPLE["rows"][0]["quality"]["values"].values())))
    assert set(made["rows"][0]["weights"]) == {"emoji-base-32-text", "emoji-kl-f4", "emoji-latent-64"}
    assert Image.open(path.parent / quality["samples"][0]).height == 64
    with refused("split-unknown", UsageError, naming="'tset'"):
        run_suite(suite, folder=tmp_path / "out", data=str(data), split="tset")


@pytest.mark.slow
def test_classes_are_drawn_as_often_as_the_data_has_them(tmp_path, data, monkeypatch):
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    lines = [{**line, "group": "symbols" if i % 3 else "flags"} for i, line in enumerate(lines)]
    (data / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    asked, real = [], zoo.pipeline.pipeline.Pipeline.__call__

    def seen(self, *words, **named):
        if named.get("noise") is not None:  # of judging
            asked.append(named["labels"])
            if len(named["labels"]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *words, **named)

    monkeypatch.setattr(zoo.pipeline.pipeline.Pipeline, "__call__", seen)
    suite = read_suite({
        "schema": "zoo.suite/1", "name": "classes", "settings": {
            "repeats": 1, "quality": {"samples": 12, "extractor": "random"},
        },
        "include": [{"model": "class2img", "steps": 1, "batch": 4}],
    })  # fmt: skip
    (row,) = run_suite(suite, folder=tmp_path / "out", data=str(data))[0]["rows"]
    assert sorted(label for one in asked if len(one) == 1 for label in one) == ["flags"] * 4 + ["symbols"] * 8
    assert row["quality"]["labels"] == "'group' of the split's rows"
    # Memory that runs out halves this batch as well, and the row says so.
    assert [len(one) for one in asked] == [4, 2] + [1] * 12
    assert (row["run"]["batch"], row["quality"]["batch"]) == (4, 1)
    assert row["notes"] == ["judged by pictures drawn 1 at a time, since 4 had no memory"]
    assert row["quality"]["values"]


@pytest.mark.slow
def test_a_row_that_cannot_be_judged_keeps_its_speed(tmp_path, data, monkeypatch):
    def broken(*_, **__):
        raise zoo.schema.errors.NumericError("the network gave NaN", code="network-not-finite")

    monkeypatch.setattr("zoo.bench.quality.Judges.__call__", broken)
    suite = read_suite({
        "schema": "zoo.suite/1", "settings": {"repeats": 1, "quality": {"extractor": "random"}},
        "include": [{"model": "class2img", "steps": 1}],
    })  # fmt: skip
    (row,) = run_suite(suite, folder=tmp_path / "out", data=str(data))[0]["rows"]
    assert row["speed"]["images_per_second"] > 0
    assert row["quality"]["reason"] == "the network gave NaN"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quality": record.quality(None)}, "neither a quality nor a reason"),
        ({"profile": None}, "where its seconds went"),
        ({"energy": {"joules_per_image": None, "reason": None}}, "no energy and no reason"),
        ({"status": "failed", "reason": None}, "failed for no reason"),
    ],
)
def test_what_a_record_leaves_unsaid_is_found(change, said):
    assert record.gaps(EXAMPLE) == []
    (found,) = record.gaps({**EXAMPLE, "rows": [EXAMPLE["rows"][0] | change]})
    assert said in found


def test_records_that_are_kept_leave_nothing_unsaid():
    kept = [json.loads(p.read_text()) for p in (Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json")]
    suites = [made for made in kept if made["schema"] == record.SCHEMA]
    assert suites
    assert [gap for made in suites for gap in record.gaps(made)] == []


@pytest.mark.slow
def test_without_data_quality_is_null_with_the_reason(tmp_path):
    suite = read_suite({
        "schema": "zoo.suite/1", "settings": {"repeats": 1, "warm_up": 0},
        "include": [{"model": "latent-text2img", "steps": 1}],
    })  # fmt: skip
    made, _ = run_suite(suite, folder=tmp_path)
    assert made["rows"][0]["quality"]["values"] == {}
    assert "--data" in made["rows"][0]["quality"]["reason"]


@pytest.mark.slow
def test_a_group_is_measured_before_it_is_judged(tmp_path, monkeypatch):
    """A run that is killed while judging measures its group again: half a row is no row."""
    suite = tiny([{"model": "tiny"}])

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_judge", killed)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, folder=tmp_path)
    (path,) = tmp_path.glob("*.json")
    assert record.read(path)["rows"][0]["speed"]["images_per_second"] > 0
    monkeypatch.undo()
    monkeypatch.setattr(machine, "peak", lambda *_: EXAMPLE["peaks"]["cpu/float32"])
    made, _ = run_suite(suite, folder=tmp_path, resume=True)
    assert [r["quality"]["reason"] for r in made["rows"]] == ["random weights: speed only"]


@pytest.mark.slow
def test_rows_of_several_kinds_share_a_record(tmp_path):
    suite = tiny([{"model": "tiny", "steps": 1}, {"model": "tiny", "steps": 1, "kind": "checks", "check": "images"}])
    made, _ = run_suite(suite, folder=tmp_path)
    assert [(r["kind"], r["status"]) for r in made["rows"]] == [("pipelines", "measured"), ("checks", "measured")]
    assert made["rows"][1]["check"]["agrees"] is True
    assert made["rows"][1]["speed"] is None
    assert made["rows"][0]["id"] != made["rows"][1]["id"]
    assert record.gaps(made) == []


def test_rows_without_time_are_not_reached_and_come_first_when_resumed_or_told(tmp_path, monkeypatch):
    rows = [{"model": "tiny", "steps": n, "kind": "checks", "check": "images"} for n in (1, 2, 3)]
    clock, order = [0.0], []
    monkeypatch.setattr(run, "perf_counter", lambda: clock[0])

    def checked(made, given):
        order.append(given[0].asked.steps)
        doing = json.loads(next(tmp_path.glob("**/*.json")).read_text())["run"]["doing"]
        assert doing["rows"] == [given[0].id]  # whoever watches the process knows what it is at
        made.record["rows"].append(record.row_of(given[0], "measured") | {"quality": record.quality("a check")})
        clock[0] += 10.0

    monkeypatch.setattr("zoo.bench.checks.compare", checked)
    first, _ = run_suite(tiny(rows), folder=tmp_path / "a", seconds=15.0)
    assert [r["status"] for r in first["rows"]] == ["measured", "measured", "not reached"]
    assert first["rows"][2]["reason"] == run.NOT_REACHED
    assert first["run"]["complete"] is False
    assert record.gaps(first) == []
    again, _ = run_suite(tiny(rows), folder=tmp_path / "a", resume=True)
    assert [r["status"] for r in again["rows"]] == ["measured"] * 3
    assert (again["run"]["complete"], again["run"]["doing"]) == (True, None)
    assert order == [1, 2, 3]
    # Another run begins with what an earlier one didn't reach.
    order.clear()
    for file in tmp_path.glob("**/*.json"):
        file.unlink()
    run_suite(tiny(rows), folder=tmp_path / "b", after=first)
    assert order == [3, 1, 2]


def test_a_deadline_takes_no_more_than_the_later_rounds(monkeypatch):
    ran = []
    one = measure.Timed(id="a", call=ran.append, device="cpu", batch=1)
    measure.rounds([one], 10, until=0.0)
    assert len(one.seconds) == measure.LEAST_ROUNDS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "status", "agrees"),
    [(0.0, "measured", True), (1.9 / 255, "measured", True), (2.2 / 255, "measured", False),
     (float("nan"), "measured", False)],
)  # fmt: skip
def test_a_check_of_images_agrees_within_two_grey_levels(change, status, agrees, tmp_path, monkeypatch):
    real = checks.distance

    def moved(drawn, expected):
        other = drawn.clone()
        other[0, 0, 0, 0] += change
        return real(other, expected)

    monkeypatch.setattr(checks, "distance", moved)
    made, _ = run_suite(tiny([{"model": "tiny", "kind": "checks", "check": "images"}]), folder=tmp_path)
    (row,) = made["rows"]
    assert (row["status"], row["check"]["agrees"]) == (status, agrees)
    assert bool(checks.disagreements(made)) is not agrees


def test_checks_that_cannot_be_made_here_say_why(tmp_path):
    suite = tiny([
        {"model": "tiny", "kind": "checks", "check": "memory"},
        {"model": "tiny", "kind": "checks", "check": "images", "fast": {"graphs": True}},
        {"model": "timm", "kind": "checks", "check": "features"},
    ])  # fmt: skip
    made, _ = run_suite(suite, folder=tmp_path)
    assert [r["status"] for r in made["rows"]] == ["unavailable"] * 3
    assert all(r["reason"] for r in made["rows"])


def test_memory_is_limited_by_torch_s_own_function_on_a_device_without_a_number(monkeypatch):
    shares = []
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda *words: shares.append(words), raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    built = SimpleNamespace(tried=[4, 2], last=SimpleNamespace(tensor=torch.ones(2, 3, 4, 4)))
    monkeypatch.setattr(checks, "Builder", lambda *_, **__: SimpleNamespace(build=lambda row: built))
    monkeypatch.setattr(pipelines, "prepare", lambda built: built)
    suite = tiny([{"kind": "checks", "model": "tiny", "check": "memory", "batch": 4, "device": "cuda"}])
    found = checks._memory(run.Run(suite=suite, folder=Path()), suite.rows[0])
    assert shares == [(checks.SHARE_OF_MEMORY, 0), (1.0, 0)]
    assert found["agrees"]


@pytest.mark.slow
def test_training_is_checked_by_its_first_loss_and_by_a_resume(tmp_path, monkeypatch):
    suite = tiny([{"model": "tiny-recipe", "kind": "checks", "check": "training"}])
    made, _ = run_suite(suite, folder=tmp_path)
    assert made["rows"][0]["check"]["agrees"] is True
    monkeypatch.setattr(checks, "_weights_apart", lambda one, other: 1e-3)
    made, _ = run_suite(suite, folder=tmp_path / "other")
    assert made["rows"][0]["check"]["agrees"] is False


@pytest.mark.slow
def test_samples_are_drawn_as_time_allows_and_hits_have_captions_of_their_own(tmp_path, data):
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    lines = [{**line, "split": "test" if i < 6 else "val"} for i, line in enumerate(lines)]
    (data / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    suite = read_suite({
        "schema": "zoo.suite/1", "settings": {"repeats": 1, "sheets": False, "quality": {
            "samples": 30, "least": 4, "metrics": ["fd"], "reference": "test",
            "hit_split": "val", "hit_samples": 3,
        }},
        "include": [{"model": "latent-text2img", "steps": 1, "batch": 2, "seconds": 1e-3}],
    })  # fmt: skip
    made, path = run_suite(suite, folder=tmp_path / "out", data=str(data))
    found = made["rows"][0]["quality"]["values"]
    assert [(v["n"], v["reference"]["split"]) for v in found.values()] == [(4, "test"), (3, "val")]
    assert made["rows"][0]["quality"]["samples"] == []
    assert not list(path.parent.glob("*.png"))


def test_as_many_samples_are_drawn_as_leave_time_to_judge_them(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(quality, "perf_counter", lambda: clock[0])

    def pipe(**words):
        clock[0] += 1.0  # a batch
        return SimpleNamespace(tensor=torch.zeros(2, 3, 4, 4))

    built = SimpleNamespace(tried=[2], settings=SimpleNamespace(seed=0), pipe=pipe)
    words = {"built": built, "words": lambda count, start: {}, "count": 100}

    def drawn(**more):
        clock[0] = 0.0
        return len(quality._drawn(**words, **more)[0])

    assert drawn(least=4, until=20.0) == 40
    assert drawn(least=4, until=20.0, each=0.5) == 20  # ten seconds to draw them, ten to judge them
    assert drawn(least=30, until=20.0, each=0.5) == 30
    assert drawn() == 100


@pytest.mark.slow
def test_a_rows_time_ends_with_its_judging(tmp_path, data, monkeypatch):
    """The reference is there before samples are drawn, and the time is the one that began with the row."""
    seen, given = [], []
    seeing, drawing = quality.Judges._seen, quality._drawn
    monkeypatch.setattr(
        quality.Judges, "_seen", lambda self, images, name: (seen.append(name), seeing(self, images, name))[1]
    )

    def drawn(*words, **more):
        seen.append("drawing")
        given.append(more)
        return drawing(*words, **more)

    monkeypatch.setattr(quality, "_drawn", drawn)
    suite = tiny(
        [{"model": "latent-text2img", "steps": 1, "seconds": 500.0}],
        repeats=1,
        quality={"samples": 4, "metrics": ["fd"], "hit": False},
    )
    ends, begin = [], run.Run.begin
    monkeypatch.setattr(run.Run, "begin", lambda self, rows: (begin(self, rows), ends.append(self.ends))[0])
    run_suite(suite, folder=tmp_path / "out", data=str(data))
    assert [name == str(data) for name in seen] == [True, False, False]
    assert seen[1:] == ["drawing", "drawn"]
    assert given[0]["until"] == ends[0] - quality.SETTLING
    assert given[0]["each"] > 0


def test_two_runs_that_begin_in_one_second_keep_a_record_each(tmp_path, monkeypatch):
    """The second wrote over the first's."""
    moments = iter(["2026-01-01T00:00:00+00:00"] * 3 + ["2026-01-01T00:00:01+00:00"])
    monkeypatch.setattr(record, "now", lambda: next(moments))
    begun = [{"suite": {"name": "s"}, "run": {"started": record.now()}} for _ in range(2)]
    places = [record.claim(one, tmp_path) for one in begun]
    assert [p.name for p in places] == ["s-20260101T000000Z.json", "s-20260101T000001Z.json"]
    assert [json.loads(p.read_text()) for p in places] == begun
