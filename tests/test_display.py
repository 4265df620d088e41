"""What a notebook shows, and how progress is told where."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from tests.refusals import refused
from zoo.config.check import resolve
from zoo.pipeline.arrays import Arrays
from zoo.pipeline.generation import Generation
from zoo.schema import progress
from zoo.schema.notes import quiet_bars


def generation(count: int = 3, prompt: str = "red <apple>") -> Generation:
    tensor = torch.linspace(0, 1, count * 3 * 8 * 8).view(count, 3, 8, 8)
    record = {"images": [{"prompt": prompt, "negative": "", "sample": i} for i in range(count)]}
    return Generation(samples=tensor, drawn=tensor, record=record)


def test_a_generation_shows_its_images():
    made = generation()
    page = made._repr_html_()
    pictures = [Image.open(io.BytesIO(base64.b64decode(s))) for s in re.findall(r"base64,([^\"]+)", page)]
    assert [list(p.getdata()) for p in pictures] == [list(p.getdata()) for p in made.images]
    assert page.count("red &lt;apple&gt;</figcaption>") == 3
    assert page.count('width="96" height="96"') == 3, "eight pixels can't be seen"
    assert Image.open(io.BytesIO(made._repr_png_())).size == made.sheet().size


def test_texts_are_short():
    assert repr(generation(1)) == "Generation(1 image of 8x8)"
    pipe = zoo.build("cascade-text2img")
    assert repr(pipe) == "Pipeline(cascade-text2img: base -> sr-64 -> sr-128 on cpu)"
    assert len(pipe._repr_html_()) < 2000


def test_a_pipeline_shows_its_stages():
    page = zoo.build("cascade-text2img")._repr_html_()
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", page)
    assert [row.split("</td><td>")[:2] for row in rows] == [
        ["base", "32x32"],
        ["sr-64", "64x64"],
        ["sr-128", "128x128"],
    ]
    assert "DDIM, 30 steps" in rows[0]


def test_arrays_show_their_view():
    made = Generation(samples=torch.zeros(2, 1, 16), drawn=torch.zeros(2, 1, 16), record={}, space=Arrays((16,)))
    assert made._repr_html_().count("<img") == 1
    assert made._repr_png_().startswith(b"\x89PNG")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_suits_the_place(monkeypatch):
    assert progress.mode(stream=Terminal()) == "bar"
    assert progress.mode(stream=io.StringIO()) == "off"
    assert progress.mode(stream=io.StringIO(), log=True) == "lines"
    with progress.shown("lines"):
        assert progress.mode(stream=Terminal()) == "off", "one bar at a time"
    assert progress.mode(stream=Terminal()) == "bar"


@pytest.fixture
def notebook(monkeypatch):
    """A stand-in for the kernel of a notebook; returns what was displayed."""
    shown: list[str] = []

    class Handle:
        def update(self, page: str) -> None:
            shown.append(page)

    def display(page: str, *, display_id: bool) -> Handle:
        return Handle()

    shell = type("ZMQInteractiveShell", (), {})()
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    inner = types.ModuleType("IPython.display")
    inner.HTML, inner.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    monkeypatch.setattr(progress, "FRAME_EVERY", 0.0)
    return shown


def test_a_call_from_a_notebook_shows_its_progress_and_takes_it_away(notebook):
    pipe = zoo.build("class2img", steps=2)
    pipe(labels=["flags"])
    assert "drawing 1 of 2" in notebook[0]
    assert 'value="1.000"' in notebook[1]
    assert notebook[-1] == ""
    notebook.clear()
    pipe(labels=["flags"], callback=lambda p: None)
    assert notebook == [], "who has a callback shows progress himself"


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    now = iter([0.0, 0.0, 4.0, 11.0, 15.0, 22.0])
    monkeypatch.setattr("zoo.schema.progress.time.monotonic", lambda: next(now))
    with progress.shown("lines") as report:
        report.describe("drawing")
        for step in range(1, 5):
            report.update(step, 8)
    assert capsys.readouterr().err.splitlines() == [
        "drawing 2 of 8, 0:11, 0:33 left",
        "drawing 4 of 8, 0:22, 0:22 left",
    ]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    with progress.shown("bar") as report:
        report.describe("drawing")
        report.update(1, 0)
        report.update(3, 4)


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (75, "1:15"), (3725, "1:02:05")])
def test_times_read_as_clocks(seconds, said):
    assert progress.clock(seconds) == said


def test_a_notebook_shows_an_error_as_its_sentence_and_code():
    with refused("component-unknown|name-unknown") as told:
        zoo.build("cascade-text2img", sampler="ddmi")
    (line,) = told.value._render_traceback_()
    assert line.startswith("ConfigError: ")
    assert "unknown sampler 'ddmi'" in line
    assert line.endswith(f"[{told.value.code}]")


def test_a_note_is_one_line_without_the_source_that_it_was_raised_in():
    code = "import warnings; from zoo.schema.notes import note; note('it is small'); warnings.warn('another')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert said.splitlines()[0] == "note: it is small"
    assert "UserWarning: another" in said, "other warnings are as they were"


def test_descriptions_and_checks_are_shown_as_text():
    assert "Description(" not in repr(zoo.describe("cascade-text2img"))
    assert "<pre" in zoo.describe("sampler/ddim")._repr_html_()
    page = zoo.check("cascade-text2img")._repr_html_()
    assert "    name: ddim\n    steps: 30\n" in page
    assert zoo.check("cascade-text2img") == resolve("cascade-text2img").config


def test_libraries_are_imported_without_their_warning_of_missing_widgets(recwarn):
    with quiet_bars():
        warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", UserWarning, stacklevel=1)
        warnings.warn("another", UserWarning, stacklevel=1)
    assert [str(w.message) for w in recwarn] == ["another"]
    for path in Path(zoo.__file__).parent.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r" *(import|from) (timm|open_clip)\b", line):
                assert re.search(rf"(quiet_bars\(\)|TYPE_CHECKING):\n{line}", path.read_text()), path
