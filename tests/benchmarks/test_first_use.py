"""What a new user meets: how a first image from a fresh clone is measured, and the tables of that and of threads."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from benchmarks import busy, first_picture, tables
from tests.test_docs import ROOT
from zoo.cli.main import VERBS

MACHINE = {"machine": {"processor": "P", "cores": 2, "threads": None}, "versions": {"torch": "2"}}


def test_the_readmes_first_command_has_the_parts_that_are_measured():
    parts = first_picture.parts_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(parts) == len(first_picture.PARTS)
    assert parts[2].startswith("pip install")
    assert parts[3].split()[1] in VERBS
    with pytest.raises(SystemExit, match="no command"):
        first_picture.parts_of("```sh\npip install .\n```\n")


def test_pip_says_how_much_it_downloads():
    said = (
        "Downloading torch-2-cp311.whl (1.5 GB)\n  Downloading typer.whl.metadata (16 kB)\nUsing cached x.whl (9 MB)\n"
    )
    assert first_picture.downloaded(said + "Downloading y.whl (25 bytes)") == 1_500_016_025


def test_a_newcomer_has_no_packages_and_settings_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "x")
    monkeypatch.setenv("PIP_FIND_LINKS", "x")
    found = first_picture.environment(tmp_path)
    assert not {"PYTHONPATH", "PIP_FIND_LINKS"} & set(found)
    assert found["PIP_CACHE_DIR"] == str(tmp_path)


def test_every_part_runs_after_those_before(tmp_path, monkeypatch):
    """In the clone, in shells that are set up as the reader's is."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "README.md").write_text("x")
    for words in (["init"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-m", "x"]):
        subprocess.run(["git", *words], cwd=source, check=True, capture_output=True)
    monkeypatch.setattr(first_picture.record, "ROOT", source)
    monkeypatch.setattr(first_picture, "parts_of", lambda text: [
        "python3 -m venv --without-pip .venv", ". .venv/bin/activate", "echo 'Downloading a.whl (2 kB)'",
        "test -n \"$VIRTUAL_ENV\" && echo drawn > apple.png",
    ])  # fmt: skip
    found = first_picture.measure()
    assert found["bytes"]["downloaded"] == 2000
    assert found["bytes"]["image"] == len("drawn\n")
    assert found["bytes"]["environment"] > 0
    assert set(found["seconds"]) == {"clone", *first_picture.PARTS}


def test_the_tables_of_a_first_image_say_what_the_record_says(tmp_path):
    assert tables.TABLES["first-picture"](tmp_path) == tables.MISSING
    assert tables.TABLES["first-picture-line"](tmp_path) == tables.MISSING
    seconds = {"clone": 1.0, "venv": 2.0, "activate": 0.0, "install": 300.0, "generate": 9.0}
    size = {"clone": 30e6, "downloaded": 2.6e9, "environment": 5.9e9, "image": 12_000}
    made = {**MACHINE, "values": {"seconds": seconds, "total_seconds": 312.0, "load_before": 0.2, "bytes": size}}
    (tmp_path / "first-picture.json").write_text(json.dumps(made))
    shown = tables.TABLES["first-picture"](tmp_path)
    assert "| `pip install .` | 300 | 2.6 GB over the network, 5.9 GB on disk |" in shown
    assert "| `zoo generate` | 9 | 12 kB, the image |" in shown
    line = tables.TABLES["first-picture-line"](tmp_path)
    assert all(said in line for said in ("5.2 minutes", "2.6 GB", "5.9 GB"))
    assert "other work" not in shown + line
    made["values"]["load_before"] = 3.14
    (tmp_path / "first-picture.json").write_text(json.dumps(made))
    for table in ("first-picture", "first-picture-line"):
        assert "beside other work (load 3.1)" in tables.TABLES[table](tmp_path)


def runs(default: float, one: float) -> dict:
    """Five runs of a kind each."""
    found = {"default": default, "spinning": 9.0, "1 thread": one, "2 threads": 2.0}
    return {kind: [seconds] * 5 for kind, seconds in found.items()}


def test_the_table_of_threads_says_where_the_default_is_over_its_limit(tmp_path):
    assert tables.TABLES["busy"](tmp_path) == tables.MISSING
    measured = {
        "idle": {"cold": runs(1.2, 1.0), "warm": runs(1.3, 1.0)},
        "busy": {"cold": runs(1.9, 1.0), "warm": runs(60.0, 1.0)},
    }
    made = {
        **MACHINE, "settings": {"rounds": 5, "busy_processes": 2, "limit_seconds": 60.0},
        "values": busy.summed(measured, 60.0),
    }  # fmt: skip
    (tmp_path / "busy.json").write_text(json.dumps(made))
    shown = tables.TABLES["busy"](tmp_path)
    last = [line.rsplit("|", 2)[1].strip() for line in shown.splitlines()[2:6]]
    assert last == ["1.20, within 1.25", "1.30, **over** 1.25", "1.90, within 2", "60.00, **over** 2"]
    assert "5 runs were ended after 60 s" in shown
    assert re.search(r"\| beside 2 busy processes, warm \| 60\.00 s \| 1\.00 s \| 2\.00 s \| 9\.00 s \|", shown)
