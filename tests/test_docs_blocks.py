"""Python in the documentation is run as it is written, page by page; only the samplers take fewer steps."""

import json
import shlex
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.test_docs import PAGES, ROOT, RUN_WHOLE, parts_in_order, readers_picture
from zoo.cli import main as command_line

ELSEWHERE = {
    "README.md", "docs/tutorial.md", "docs/python.md",  # tests/test_docs.py runs these with their commands
    "docs/families.md",  # reads files that this checkout hasn't; tests/families reads such
    "docs/signals.md",  # draws with what its recipe trains: tests/training/test_arrays.py
}  # fmt: skip


def pages():
    """The pages with Python in them."""
    names = [str(page.relative_to(ROOT)) for page in PAGES if any(kind == "python" for kind, _ in parts_in_order(page))]
    return [name for name in names if name not in ELSEWHERE]


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """A folder with what a reader of the pages has: images, some drawn by zoo, and a data set in a zip."""
    folder = tmp_path_factory.mktemp("reader")
    random = np.random.default_rng(0)
    Image.new("RGB", (80, 60), "orange").save(folder / "photo.png")
    Image.new("RGB", (8, 8), "orange").save(folder / "small.png")
    readers_picture(folder / "apple.png")
    (folder / "drawn").mkdir()
    (folder / "apples").mkdir()
    for i, name in enumerate(("red apple", "green apple", "sun", "cat face", "pizza", "fish")):
        Image.new("RGB", (32, 32), (90, 20 * i, 160)).save(folder / "apples" / f"{i}.png")
        (folder / "apples" / f"{i}.txt").write_text(f"{name}, 3d style")
    rows = []
    with zipfile.ZipFile(folder / "real.zip", "w") as file:
        for i in range(256):
            for place in ("drawn", "images"):
                image, name = Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)), f"{i:04d}.png"
                if place == "drawn":
                    image.save(folder / place / name)
                else:
                    image.save(data := BytesIO(), format="PNG")
                    file.writestr(f"images/{name}", data.getvalue())
                    rows.append(json.dumps({"file_name": f"images/{name}", "text": "noise"}))
        file.writestr("metadata.jsonl", "\n".join(rows))
    return folder


def test_there_are_pages():
    assert len(pages()) > 6


@pytest.mark.slow
@pytest.mark.parametrize("page", pages())
def test_python_runs_as_written(page, readers, monkeypatch, capsys):
    monkeypatch.chdir(readers)
    whole = zoo.build
    monkeypatch.setattr(zoo, "build", lambda *words, **named: whole(*words, **{**named, "steps": 2}))
    space = {}
    for kind, text in parts_in_order(ROOT / page):
        if kind == "python":
            exec(compile(text, page, "exec"), space)
        elif page.removeprefix("docs/") in RUN_WHOLE:
            assert command_line.run(shlex.split(text)[1:]) == 0, f"{text}: {capsys.readouterr().err}"
