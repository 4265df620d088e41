"""A place that can't be written is refused before what is to go there is made, with the path that was given."""

import sys

import pytest

from tests.refusals import refused
from zoo.cli.main import run
from zoo.schema.places import check_place

PROC = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a file system that takes no files")
WRITES = [
    ["generate", "sun", "-o", "PLACE/x.png"], ["generate", "sun", "-o", "PLACE/x/"],
    ["report", "real", "-o", "PLACE/x.html"],
    ["report", "real", "--csv", "PLACE/x"], ["plot", "schedule", "cosine", "-o", "PLACE/x.png"],
    ["export", "PLACE/x"], ["convert", "a.safetensors", "PLACE/x"], ["data", "pack", "real", "PLACE/x"],
    ["bench", "quick", "--out", "PLACE/x"], ["evaluate", "latent-text2img", "real", "--save-statistics", "PLACE/x.npz"],
]  # fmt: skip


def test_a_place_is_tried_and_nothing_is_left(tmp_path):
    check_place(tmp_path / "new" / "folder" / "x.png")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with refused("output-unwritable", naming="'out/' can't be written"):
        check_place(tmp_path / "file" / "x.png", "out/")


@PROC
@pytest.mark.parametrize("words", WRITES, ids=lambda words: words[0])
def test_every_verb_refuses_it_by_its_name(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zoo.build", lambda *_, **__: pytest.fail("built"))
    (tmp_path / "real").mkdir()
    assert run([word.replace("PLACE", "/proc") for word in words]) in (1, 2)
    said = capsys.readouterr().err
    assert f"'{words[-1].replace('PLACE', '/proc')}' can't be written: " in said
    assert "; choose another place" in said
    assert said.rstrip().endswith("[output-unwritable]")
    assert ".tmp" not in said
