"""The page of training runs: what it reads from their folders, and what it says."""

import json

import pytest
from PIL import Image

from tests.refusals import refused
from tests.report.dom import read
from zoo.bench.report import read_runs, run_folders, runs_page
from zoo.bench.report.curves import MOST, curves_plot, thinned
from zoo.bench.report.runs import different
from zoo.cli.main import run
from zoo.schema.errors import UsageError


def make(folder, *, rate=0.001, steps=100, seconds=42.0, saved=100, sheets=(50, 100), name="apples", curve=()):
    """A run's folder, as `zoo train` leaves it."""
    folder.mkdir(parents=True)
    train = {"steps": steps, "learning_rate": rate, "betas": [0.9, 0.99]}
    recipe = {"schema": "zoo.recipe/1", "name": name, "data": {"path": "fruit"}, "train": train}
    sitting = {"from_step": 0, "train": train, "device": "cpu, 2 threads", "versions": {"torch": "2.9"}}
    record = {"schema": "zoo.run/1", "recipe": recipe, "first_weights": "ab" * 32, "sittings": [sitting]}
    (folder / "run.json").write_text(json.dumps(record))
    lines = [f"{s},train/loss,{v}" for s, v in curve or [(i, 1 / i) for i in range(10, 101, 10)]]
    (folder / "scalars.csv").write_text("\n".join(["step,name,value", *lines, "100,validation/loss,0.25", "11,tr"]))
    if saved:
        (folder / "checkpoints" / f"step-{saved:08d}").mkdir(parents=True)
        manifest = {"schema": "zoo.checkpoint/2", "step": saved, "state": {"seconds": seconds}}
        (folder / "checkpoints" / f"step-{saved:08d}" / "manifest.json").write_text(json.dumps(manifest))
    for step in sheets:
        (folder / "samples").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(folder / "samples" / f"step-{step:08d}.png")
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two runs that differ in one setting, the second unfinished and without a checkpoint."""
    make(tmp_path / "runs" / "one")
    make(tmp_path / "runs" / "two", rate=0.01, steps=500, saved=0, sheets=(50,))
    return tmp_path / "runs"


def tree(folder):
    return read(runs_page(read_runs(run_folders([folder]))))


def test_seconds_steps_and_last_values_are_in_the_table(runs):
    rows = [[cell.text for cell in row.all("td")] for row in tree(runs).all("section", id="runs")[0].all("tr")[1:]]
    assert rows[0] == ["100of 100", "42 s", "0.25", "0.01"]
    assert rows[1][:2] == ["100of 500", "unknown"]
    assert "not finished" in tree(runs).all("section", id="runs")[0].text


def test_settings_that_differ_are_shown_and_others_are_counted(runs):
    found = dict(different(read_runs(run_folders([runs]))))
    assert found == {"train.learning_rate": ["0.001", "0.01"], "train.steps": ["100", "500"]}
    assert "6 settings are the same" in tree(runs).all("section", id="settings")[0].text


def test_a_setting_that_one_recipe_lacks_differs(runs):
    record = json.loads((runs / "two" / "run.json").read_text())
    record["recipe"]["variants"] = {"mirror": True}
    (runs / "two" / "run.json").write_text(json.dumps(record))
    assert dict(different(read_runs(run_folders([runs]))))["variants.mirror"] == ["–", "yes"]


def test_each_scalar_has_one_plot_with_a_curve_a_run(runs):
    section = tree(runs).all("section", id="curves")[0]
    assert [figure.all("figcaption")[0].text for figure in section.all("figure")] == ["validation/loss", "train/loss"]
    curves = [p for p in section.all("figure")[1].all("path") if "curve" in p.attributes["class"]]
    assert [c.attributes["class"] for c in curves] == ["curve s0", "curve s1"]
    assert all(c.attributes["d"].count("L") == 9 for c in curves)


def test_a_long_curve_is_whole():
    """Long texts of a record are cut, and a path is none."""
    curve = [(i, 1.0 / (i + 1)) for i in range(5000)]
    assert len(thinned(curve)) <= MOST
    assert thinned(curve)[0][1] == pytest.approx(sum(v for _, v in curve[:25]) / 25)
    path = next(s for s in curves_plot([("a", curve), ("b", [])], "loss").shapes if s.tag == "path")
    assert str(path.attributes["d"]).count("L") == len(thinned(curve)) - 1


def test_a_long_curve_reaches_the_page(tmp_path):
    make(tmp_path / "runs" / "long", curve=[(i, 1.0 / (i + 1)) for i in range(1000)])
    paths = [p for p in tree(tmp_path / "runs").all("path") if p.attributes["class"] == "curve s0"]
    assert max(p.attributes["d"].count("L") for p in paths) == MOST - 1


def test_sample_sheets_stand_side_by_side(runs):
    section = tree(runs).all("section", id="samples")[0]
    assert [h.text for h in section.all("h3")] == ["The last of each run", "At step 50"]
    assert len(section.all("img")) == 4
    assert all(i.attributes["src"].startswith("data:image/png") for i in section.all("img"))


def test_what_a_run_says_is_text(tmp_path):
    make(tmp_path / "runs" / "<b>one")
    record = json.loads((tmp_path / "runs" / "<b>one" / "run.json").read_text())
    record["recipe"]["data"]["path"] = "<script>alert(1)</script>"
    (tmp_path / "runs" / "<b>one" / "run.json").write_text(json.dumps(record))
    make(tmp_path / "runs" / "two")
    page = tree(tmp_path / "runs")
    assert len(page.all("script")) == 1
    assert page.all("b") == []
    assert "<script>alert(1)</script>" in page.all("section", id="settings")[0].text


def test_the_command_takes_runs_and_refuses_mixtures(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["report", "runs/one", "runs/two", "-o", "page.html"]) == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    (tmp_path / "record.json").write_text("{}")
    assert run(["report", "runs/one", "record.json"]) == 2
    assert "'record.json' is no training run" in capsys.readouterr().err
    assert run(["report", "runs", "--csv", "views"]) == 2
    assert "scalars.csv" in capsys.readouterr().err


def test_a_run_of_names_without_end_is_refused(runs):
    """Each is a curve in the page: 9 MB of them took minutes."""
    (runs / "one" / "scalars.csv").write_text("".join(f"1,loss {i},1\n" for i in range(20_000)))
    with refused("file-too-large", UsageError, naming="scalars.csv"):
        read_runs(run_folders([runs]))


def test_a_damaged_run_is_named(runs):
    (runs / "one" / "run.json").write_text("{")
    with refused("benchmark-record-damaged", UsageError, naming="run.json"):
        read_runs(run_folders([runs]))


def test_a_run_without_values_yet_is_shown(tmp_path):
    make(tmp_path / "runs" / "new", saved=0, sheets=())
    (tmp_path / "runs" / "new" / "scalars.csv").unlink()
    assert "0of 100" in tree(tmp_path / "runs").all("section", id="runs")[0].text


def fit(folder, *, seconds=600.0, steps=100, step=100, train=None, patience=None, since=0):
    """Make a run one that fits a time, or that stops early."""
    record = json.loads((folder / "run.json").read_text())
    own = {"seconds": seconds} if patience is None else {"patience": patience}
    record["sittings"][-1]["train"] |= {"steps": 5000, **own, **(train or {})}
    (folder / "run.json").write_text(json.dumps(record))
    place = next((folder / "checkpoints").glob("*/manifest.json"))
    manifest = json.loads(place.read_text())
    manifest["state"] |= {"stopping": {"best": 0.1, "since": since}}
    if patience is None:
        manifest["state"] |= {"fitting": {"decided": {"steps": steps}, "ending": 1.0, "seconds": 600.0}}
    place.write_text(json.dumps(manifest | {"step": step}))


@pytest.mark.parametrize(
    ("changes", "said", "finished"),
    [
        ({}, "100fitted to 10 min", True),
        ({"steps": 150}, "100of about 150, 10 min", False),
        ({"steps": 10**9}, "100of 10 min", False),
        ({"train": {"seconds": 1200.0}}, "100of 20 min", False),  # given more time, and not yet on its way
        ({"patience": 3, "since": 3}, "100stopped early", True),
        ({"patience": 3, "since": 2}, "100of 5000", False),
    ],
)
def test_a_run_that_fits_a_time_or_stops_early_is_finished(tmp_path, changes, said, finished):
    """The recipe's steps are then not what it is to come to."""
    fit(make(tmp_path / "runs" / "one"), **changes)
    section = tree(tmp_path / "runs").all("section", id="runs")[0]
    assert section.all("tr")[1].all("td")[0].text == said
    assert ("not finished" not in section.text) == finished
    assert f"1 training run, {int(finished)} finished" in tree(tmp_path / "runs").text


def test_small_sheets_are_enlarged_and_their_prompts_named(tmp_path):
    made = make(tmp_path / "runs" / "one")
    record = json.loads((made / "run.json").read_text())
    record["recipe"]["objective"] = {"sheet_prompts": ["red <apple>", "sun"]}
    (made / "run.json").write_text(json.dumps(record))
    Image.new("RGB", (600, 100), "red").save(made / "samples" / "step-00000100.png")
    section = tree(tmp_path / "runs").all("section", id="samples")[0]
    assert "red <apple> · sun" in section.text
    large = section.all("img")[0]
    assert (large.attributes["width"], large.attributes.get("class")) == ("600", None)
    Image.new("RGB", (270, 32), "red").save(made / "samples" / "step-00000100.png")
    small = tree(tmp_path / "runs").all("section", id="samples")[0].all("img")[0]
    assert (small.attributes["width"], small.attributes["height"], small.attributes["class"]) == ("810", "96", "pixels")


def test_a_curve_of_one_point_says_its_value_and_titles_stand_once():
    texts = [
        s.text
        for s in curves_plot([("a", [(100, 0.25)]), ("b", [(1, 2.0), (2, 1.0)])], "loss").shapes
        if s.tag == "text"
    ]
    assert "0.25" in texts
    assert "loss" not in texts


def test_lines_of_scalars_that_are_none_are_passed_over(tmp_path):
    folder = make(tmp_path / "a")
    (folder / "scalars.csv").write_bytes(b'step,name,value\n1,loss,0.5\n2,lo\rss,0.4\n\xff\x00,"\n3,loss,0.25\n')
    assert read_runs([folder])[0].curves == {"loss": [(1, 0.5), (3, 0.25)]}
