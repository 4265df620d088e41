"""`zoo new`: a folder of captioned images to a recipe that trains and a pipeline that draws."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from zoo.cli.main import run


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """Eight images with a text file beside each, in a folder of a folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my flowers"
    (folder / "inner").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for i in range(8):
        place = folder / ("inner" if i % 2 else "") / f"{i}.png"
        Image.fromarray(draw.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(place)
        place.with_suffix(".txt").write_text(f'a {"red" if i % 2 else "blue"} tulip, number "{i}"\n')
    return folder


def test_a_folder_becomes_a_recipe_that_trains_and_draws(flowers, capsys):
    assert run(["new", "text2img", str(flowers), "--size", "16", "--steps", "10"]) == 0
    told = capsys.readouterr()
    assert told.out.split() == ["my-flowers.yaml", "my-flowers-draw.yaml"]
    assert "zoo train my-flowers.yaml" in told.err
    quick = [f"--set=train.{key}={value}" for key, value in (("steps", 2), ("batch_size", 2), ("precision", "fp32"))]
    assert run(["train", "my-flowers.yaml", *quick]) == 0
    assert run(["generate", "a red tulip", "--model", "my-flowers-draw.yaml", "--steps", "2", "-o", "tulip.png"]) == 0
    assert Image.open("tulip.png").size == (16, 16)
    capsys.readouterr()
    assert run(["generate", "tulips", "--model", "my-flowers-draw.yaml", "--steps", "2", "-o", "tulips.png"]) == 0
    assert "'tulips' is read as 'tulip'" in capsys.readouterr().err
    assert run(["generate", "a tulpi", "--model", "my-flowers-draw.yaml"]) == 2
    assert "did you mean tulip?" in capsys.readouterr().err
    assert run(["prompts", "--model", "my-flowers-draw.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f'a {"red" if i % 2 else "blue"} tulip, number "{i}"\t\t' for i in (0, 2, 4, 6, 1, 3, 5)
    ]
    assert run(["prompts", "red", "--model", "my-flowers-draw.yaml"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert "--model my-flowers-draw.yaml" in said.err
    assert "style" not in said.err


def test_data_with_its_own_metadata_is_left_as_it_is(flowers, capsys):
    assert run(["new", "text2img", str(flowers)]) == 0
    made = (flowers / "metadata.jsonl").read_bytes()
    rows = [json.loads(line) for line in made.splitlines()]
    assert sorted(row["split"] for row in rows) == ["train"] * 7 + ["val"]
    assert run(["new", "text2img", str(flowers), "--name", "again"]) == 0
    assert (flowers / "metadata.jsonl").read_bytes() == made
    assert not (flowers / "metadata.before.jsonl").exists()


def test_splits_are_added_and_the_old_file_is_kept(flowers):
    rows = [{"file_name": f"{i}.png", "text": "tulip", "own": i} for i in range(0, 8, 2)]
    before = "".join(json.dumps(row) + "\n" for row in rows)
    (flowers / "metadata.jsonl").write_text(before)
    assert run(["new", "text2img", str(flowers)]) == 0
    assert (flowers / "metadata.before.jsonl").read_text() == before
    after = [json.loads(line) for line in (flowers / "metadata.jsonl").read_text().splitlines()]
    assert [row["own"] for row in after] == [0, 2, 4, 6]
    assert after[-1]["split"] == "val"


def test_what_is_there_is_not_overwritten(flowers, capsys):
    assert run(["new", "text2img", str(flowers)]) == 0
    assert run(["new", "text2img", str(flowers)]) == 2
    assert "is there already" in capsys.readouterr().err


def rows_of(folder, names, *, text="tulip"):
    lines = [json.dumps({"file_name": name, "text": text}) + "\n" for name in names]
    (folder / "metadata.jsonl").write_text("".join(lines))


def test_the_table_of_the_hugging_face_hub_is_read(flowers, capsys):
    for text in flowers.rglob("*.txt"):
        text.unlink()
    names = [p.relative_to(flowers).as_posix() for p in sorted(flowers.rglob("*.png"))]
    table = "\ufefffile_name,text,number\r\n" + "".join(
        f'{name},"a ""red"", tulip",{i}\r\n' for i, name in enumerate(names)
    )
    (flowers / "metadata.csv").write_bytes(table.encode())
    assert run(["new", "text2img", str(flowers)]) == 0
    assert "metadata.csv" in capsys.readouterr().err
    assert (flowers / "metadata.csv").read_bytes() == table.encode()
    rows = [json.loads(line) for line in (flowers / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == names
    assert {row["text"] for row in rows} == {'a "red", tulip'}
    assert [row["split"] for row in rows] == ["train"] * 7 + ["val"]


def test_the_pipeline_of_a_recipe_elsewhere_finds_the_run(flowers, tmp_path):
    """`zoo train` writes to runs/ in the folder where it is started, and paths of a pipeline are from its own."""
    assert run(["new", "text2img", str(flowers), "-o", "recipes/mine", "--name", "f"]) == 0
    drawn = (tmp_path / "recipes/mine/f-draw.yaml").read_text()
    assert "../../runs/f/export/f.yaml" in drawn


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: [p.unlink() for p in f.rglob("*.txt")], "have no captions"),
        (lambda f: (f / "0.txt").unlink(), "1 of 8 images"),
        (lambda f: (f / "0.txt").unlink(), "beside them: '0.png'; add it"),
        (lambda f: [p.unlink() for p in f.rglob("*.txt")], '"inner/1.png", "text": "inner"'),
        (lambda f: (f / "0.txt").write_text(" \n"), "1 of 8 rows have an empty caption: '0.png'"),
        (lambda f: (f / "0.png").write_bytes((f / "0.png").read_bytes()[:90]), "1 of 8 images can't be used: '0.png'"),
        (lambda f: (f / "0.png").write_bytes(b"no image"), "1 of 8 images can't be used: '0.png'"),
        (lambda f: rows_of(f, ["0.png", "2.png", "4.png", "a.png", "b.png"]), "2 of 5 images can't be used"),
        (lambda f: rows_of(f, ["0.png", "2.png", "4.png", "a.png"]), "has no file 'a.png'"),
        (lambda f: rows_of(f, ["0.png", "2.png", "4.png", "6.png"], text=" "), "4 of 4 rows have an empty caption"),
        (lambda f: [p.unlink() for p in f.rglob("*.png")], "0 captioned images"),
        (lambda f: (f / "metadata.jsonl").write_text("{"), "line 1 of"),
        (lambda f: (f / "metadata.jsonl").write_bytes(b'{"file_name": "0.png", "text": "\xe9"}\n'), "not UTF-8"),
        (lambda f: (f / "metadata.jsonl").write_text("[" * 15_000), "not JSON"),
        (lambda f: (f / "metadata.jsonl").write_text("[" + "[]," * 2**18 + "[]]"), "over 20000 values"),
        (lambda f: os.mkfifo(f / "metadata.jsonl"), "no regular file"),
        (lambda f: (f / "metadata.jsonl").symlink_to("/dev/zero"), "no regular file"),
        (lambda f: (f / "0.txt").write_bytes("café".encode("cp1252")), "byte 4 is 0xe9"),
        (lambda f: (f / "0.txt").write_bytes(b"a" * 2**21), "has more bytes"),
        (lambda f: (f / "metadata.jsonl").write_text('{"text": "x"}\n'), "lacks a 'file_name'"),
        (lambda f: (f / "metadata.jsonl").write_text('{"file_name": "a", "text": "x", "split": "test"}\n' * 5), "val"),
    ],
)
def test_a_folder_that_will_not_do_is_one_sentence(flowers, capsys, damage, sentence):
    damage(flowers)
    assert run(["new", "text2img", str(flowers)]) == 2
    assert sentence in capsys.readouterr().err


def test_wrong_options_are_refused(flowers, tmp_path, capsys):
    assert run(["new", "text2img", str(tmp_path / "none")]) == 2
    assert run(["new", "text2img", str(flowers), "--size", "30"]) == 2
    assert run(["new", "text2img", str(flowers), "--name", "a/b"]) == 2
    assert run(["new", "video", str(flowers)]) == 2
    capsys.readouterr()
    assert run(["new", "text2img", str(flowers), "-o", "sub/folder"]) == 0


def test_what_systems_and_editors_leave_is_no_image(flowers):
    there = {p.relative_to(flowers).as_posix() for p in flowers.rglob("*.png")}
    for left in ("._0.png", "__MACOSX/0.png", ".ipynb_checkpoints/0.png"):
        (flowers / left).parent.mkdir(exist_ok=True)
        (flowers / left).write_bytes(b"no image")
    assert run(["new", "text2img", str(flowers)]) == 0
    rows = [json.loads(line) for line in (flowers / "metadata.jsonl").read_text().splitlines()]
    assert {row["file_name"] for row in rows} == there


def test_a_caption_keeps_every_sign_that_it_has(flowers):
    """Other line ends of Unicode are no line's end."""
    texts = ["a\u2028b", "c\x85d", "e\u2029f", "g"] * 2
    names = [p.relative_to(flowers).as_posix() for p in sorted(flowers.rglob("*.png"))]
    lines = [f'{{"file_name": "{name}", "text": "{text}"}}\n' for name, text in zip(names, texts, strict=True)]
    (flowers / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    assert run(["new", "text2img", str(flowers)]) == 0
    rows = [json.loads(line) for line in (flowers / "metadata.jsonl").read_bytes().decode().split("\n") if line]
    assert [row["text"] for row in rows] == [json.loads(f'"{text}"', strict=False) for text in texts]
