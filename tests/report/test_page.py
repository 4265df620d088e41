"""The page, read by the standard library's parser; `python -m benchmarks.report_check` asks a real browser. And the CSV
views."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import browser
from benchmarks.invented import records, write
from benchmarks.report_check import hostile
from tests.report.dom import Node, read
from zoo.bench.report import page, read_record, read_records, views
from zoo.bench.report.groups import groups
from zoo.bench.report.leaderboard import HIDDEN, Board
from zoo.bench.report.page import environment, visible
from zoo.bench.report.plots import written
from zoo.bench.report.standing import margins, unbeaten
from zoo.records.benchmark_record import planned_peaks

ENVIRONMENT = environment()
ROOT = Path(__file__).resolve().parents[2]
KNOWN = """
html head meta title link style body a header div h1 h2 h3 h4 p button nav main ul li span strong section small form
label input select option output table caption thead tbody tr th td code wbr svg rect circle polygon line path text desc
figure figcaption details summary img dl dt dd footer dialog script noscript
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Invented records with their pictures."""
    place = tmp_path_factory.mktemp("records")
    write(place)
    return place


@pytest.fixture(scope="module")
def found(folder):
    """The records, read."""
    return read_records([folder])


@pytest.fixture(scope="module")
def tree(found):
    """Their page."""
    return read(page(found))


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """The records whose texts would like to be more than text."""
    return read_records([hostile(tmp_path_factory.mktemp("spoiled") / "records")])


@pytest.fixture(params=["invented", "hostile", "today"])
def any_tree(request, tree, spoiled):
    """A page of each kind."""
    if request.param == "invented":
        return tree
    return read(page(spoiled if request.param == "hostile" else read_records([ROOT / "benchmarks" / "results"])))


@pytest.mark.slow
def test_nothing_of_a_record_becomes_an_element_or_runs(any_tree):
    known = {*KNOWN.split(), ""}
    for node in any_tree.walk():
        assert node.tag in known, node.tag
        for name, value in node.attributes.items():
            assert not name.startswith("on"), (node.tag, name)
            assert name != "style", node.tag
            if name in ("href", "src"):
                assert (value or "").startswith(("#", "data:image/png;base64,", "data:,")), value
    assert len(any_tree.all("script")) <= 2
    assert len(any_tree.all("style")) == 1


@pytest.mark.slow
def test_the_policy_lets_only_the_pages_own_style_and_script_in(any_tree):
    policy = any_tree.all("meta", http_equiv="Content-Security-Policy")[0].attributes["content"] or ""
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        node = next(n for n in any_tree.all(tag) if "type" not in n.attributes)
        digest = base64.b64encode(hashlib.sha256(node.text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    for name in ("page.css", "page.js"):
        text = (ROOT / "zoo" / "bench" / "report" / name).read_text(encoding="utf-8")
        reaching = r"https?://|@import|url\(|fetch\(|innerHTML|outerHTML|insertAdjacent|document\.write|eval\("
        assert not re.search(reaching, text)


@pytest.mark.slow
def test_tables_plots_and_pictures_can_be_heard(any_tree):
    for table in any_tree.all("table"):
        assert all(
            th.attributes.get("scope") == "col" and th.text for head in table.all("thead") for th in head.all("th")
        )
        for body in table.all("tbody"):
            assert all(row.all("th", scope="row") for row in body.all("tr"))
        widths = {len([c for c in row.children if isinstance(c, Node)]) for row in table.all("tr")}
        assert len(widths) == 1, "every row has a cell for every column"
    for plot in any_tree.all("svg", role="img"):
        assert plot.all("title")[0].text
        assert plot.all("desc")[0].text
    assert all(s.attributes.get("role") == "img" or s.attributes.get("aria-hidden") for s in any_tree.all("svg"))
    assert all(image.attributes["alt"] for image in any_tree.all("img"))
    names = [n.attributes["id"] for n in any_tree.walk() if "id" in n.attributes]
    assert len(names) == len(set(names))
    for link in any_tree.all("a"):
        assert (link.attributes["href"] or "")[1:] in names


@pytest.mark.slow
def test_every_value_of_the_leaderboard_stands_under_its_own_column(tree, found):
    for i, group in enumerate(groups(found)):
        board = tree.all("table", id=f"board-{i}")[0]
        columns = [c for c in group.columns if c.key not in HIDDEN]
        heads = board.all("thead")[0].all("th")
        before = len(heads) - len(columns)
        rows = board.all("tbody")[0].all("tr")
        measured = [e for e in group.entries if e.row.status == "measured"]
        for row, entry in zip(rows, measured, strict=True):
            cells = [c for c in row.children if isinstance(c, Node)]
            for head, cell, column in zip(heads[before:], cells[before:], columns, strict=True):
                assert head.all("button")[0].text.startswith(column.name)
                if column.kind == "quality":
                    assert head.all("code")[0].text == column.key
                value = entry.cell(column).value
                assert cell.attributes.get("data-v") == (None if value is None else repr(value))


def test_every_choice_of_a_filter_is_a_rows_own(any_tree):
    for form in any_tree.all("form", class_="filters"):
        if "data-filters" not in form.attributes:
            continue
        (board,) = any_tree.all("table", id=form.attributes["data-filters"] or "")
        rows = board.all("tbody")[0].all("tr")
        for select in form.all("select"):
            own = {row.attributes.get(f"data-{select.attributes['data-facet']}") for row in rows}
            assert {option.attributes["value"] for option in select.all("option")} == {"", *own}


def test_the_best_of_a_column_is_marked_and_said(tree, found):
    group = groups(found)[0]
    marked = tree.all("table", id="board-0")[0].all("td", class_="best")
    hits = [v for e in group.entries if (v := e.cell(group.columns[0]).value) is not None]
    shown = {m.attributes["data-v"] for m in marked}
    assert repr(max(hits)) in shown
    assert repr(min(hits)) not in shown
    assert all(" best" in m.text for m in marked)


def test_what_is_within_the_noise_of_the_best_is_marked_with_it_and_host_memory_marks_nothing(tree, found):
    for i, group in enumerate(groups(found)):
        (board,) = tree.all("table", id=f"board-{i}")
        for column in group.columns:
            marked = {m.attributes["data-v"] for m in board.all("td", class_="best")}
            values = [(e.cell(column), e) for e in group.entries if e.cell(column).value is not None]
            if column.kind == "quality":
                margin = margins([c for c, _ in values])
                pairs = [(c.value, m) for (c, _), m in zip(values, margin, strict=True)]
                fine = unbeaten(pairs, column.better)
                assert 1 < sum(fine) < len(fine)
                assert {repr(v) for (v, _), good in zip(pairs, fine, strict=True) if good} <= marked
            elif column.key == "host-peak":
                assert not {repr(c.value) for c, _ in values} & marked


def test_parts_are_told_in_seconds_and_shares_with_the_calls_they_are_of(tree):
    shown = tree.all("section", id="profile")[0]
    for said in ("text", "base", "upscale", "decoding", "rest", "62 %", "the measured calls", "seconds of a call"):
        assert said in shown.text
    bars = shown.all("svg", role="img")[0]
    assert len(bars.all("rect")) == 5 * 8


def test_what_has_no_value_says_why(tree):
    text = tree.all("section", id="leaderboard")[0].text
    assert "the device 'cuda' is not there (no accelerator was found)" in text
    assert "energy an image (the driver tells no power of cpu)" in text
    assert "random weights: speed only" in text
    assert "incomplete" in text


def test_a_plot_and_its_table_show_the_same_front(tree):
    figures = tree.all("section", id="fronts")[0].all("figure")
    assert len(figures) == 2 * 4 + 2 * 3
    for figure in figures:
        marks = figure.all("svg")[0]
        best = [n for n in marks.walk() if "best" in (n.attributes.get("class") or "").split()]
        rows = figure.all("tbody")[0].all("tr")
        assert len([r for r in rows if r.text.endswith("yes")]) == len(best) > 0
        every = [n for n in marks.walk() if "mark" in (n.attributes.get("class") or "").split()]
        assert len(every) == len(rows)
        for node in marks.all("circle"):
            assert 0 <= float(node.attributes["cx"] or "") <= 360


def test_rows_without_quality_are_on_no_front_and_in_no_answer(tree):
    assert "stand-in" not in tree.all("section", id="fronts")[0].text
    answers = tree.all("section", class_="answer")
    assert len(answers) == 2, "one for each machine"
    assert not [a for a in answers if "stand-in" in a.text]


def test_samples_stand_side_by_side_with_their_seeds(tree, found):
    shown = tree.all("section", id="samples")[0]
    assert len(shown.all("img")) == sum(len(e.row.samples) for g in groups(found) for e in g.newest)
    assert "seeds 0, 1, 2, 3" in shown.text
    assert "red apple, 3d style" in shown.text


def test_the_seed_that_the_samples_were_drawn_with_is_told_where_the_record_has_it(folder, tmp_path):
    made = json.loads((folder / "invented-gpu-2026-11-21.json").read_text())
    for one in made["rows"]:
        one["quality"]["samples_seed"] = 3
    (tmp_path / "r.json").write_text(json.dumps(made))
    assert "All from seed 3" in read(page(read_records([tmp_path]))).all("section", id="samples")[0].text


def test_the_data_of_run_against_run_holds_every_value_under_its_column(tree, found):
    told = json.loads(tree.all("script", type="application/json")[0].text)
    entries = [e for g in groups(found) for e in g.entries if any(c.value is not None for c in e.row.cells.values())]
    assert len(told["rows"]) == len(entries)
    for row, entry in zip(told["rows"], entries, strict=True):
        values = sorted(c.value for c in entry.row.cells.values() if c.value is not None)
        assert sorted(cell["v"] for cell in row["cells"].values()) == values
    costs = {row["place"]: {c for c in row["cells"] if told["columns"][int(c)]["cost"]} for row in told["rows"]}
    assert len(costs) == 2
    assert not set.intersection(*costs.values()), "costs of two machines share no column"


def test_ratios_to_another_library_are_told_with_their_agreement(tree):
    text = tree.all("section", id="pairs")[0].text
    for said in ("diffusers 0.42.0", "1.21 ×", "1.19 to 1.24", "agree", "differ"):
        assert said in text


def test_a_page_of_one_record_without_rows_says_what_is_missing(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({**records()["invented-2026-11-20.json"], "rows": []}))
    text = read(page(read_records([tmp_path]))).text
    assert "No record has rows yet" in text
    assert "No record names pictures" in text
    assert "Samples" not in text


def test_how_far_repeats_spread_is_told_of_single_benchmarks_too():
    record = read_record(ROOT / "benchmarks" / "results" / "generate.json")
    for row in record.rows:
        assert row.noise is not None
        assert 0 < row.noise < 1
    assert "differences of speed below twice that mean nothing" in page([record])


def test_the_fronts_of_memory_are_of_what_a_call_adds(tree, found):
    captions = [f.text for f in tree.all("section", id="fronts")[0].all("figcaption")]
    assert "hit over host memory of a call" in captions
    assert not [c for c in captions if "host memory, peak" in c]
    cells = next(e for e in groups(found)[0].entries).row.cells
    values = {column.key: cell.value for column, cell in cells.items()}
    assert values["host-added"] == values["host-peak"] - 430_000_000


def test_planned_memory_stands_beneath_the_measured_peak(found):
    planned = {"host": 430_000_000 + 110_000_000, "device": 57_600_000 + 110_000_000}
    seen = set()
    for board in map(Board, groups(found)):
        for entry in board.measured:
            for column in board.columns:
                place = column.key.removesuffix("-peak")
                if place in planned and entry.row.asked.get("model") == "latent-text2img":
                    wanted = (entry.row.asked["device"] == "cuda") == (place == "device")
                    said = f"planned {written(planned[place], 'bytes', 3)}"
                    assert (said in board.beneath(entry, column)) == wanted
                    seen |= {place} if wanted else set()
    assert seen == {"host", "device"}


@pytest.mark.parametrize(
    ("memory", "peaks"),
    [
        ({}, (None, None)), ({"planned_weight_bytes": None, "planned_activation_bytes": None}, (None, None)),
        ({"planned_weight_bytes": 5, "planned_activation_bytes": 7, "host_before_bytes": 100}, (107, None)),
        ({"planned_weight_bytes": 5, "planned_activation_bytes": 7, "host_before_bytes": None}, (None, None)),
        (
            {"planned_weight_bytes": 5, "planned_activation_bytes": 7, "host_before_bytes": 9, "device_peak_bytes": 20},
            (None, 12),
        ),
    ],
)  # fmt: skip
def test_a_plan_is_held_against_the_place_that_was_measured(memory, peaks):
    assert planned_peaks(memory) == peaks


def channel(c: float) -> float:
    """sRGB to linear (WCAG 2.2)."""
    return c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb."""
    r, g, b = (channel(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio."""
    x, y = sorted((luminance(a), luminance(b)))
    return (y + 0.05) / (x + 0.05)


def test_text_and_marks_have_contrast_in_every_theme():
    style = (ROOT / "zoo" / "bench" / "report" / "page.css").read_text()
    themes = [
        dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r"\{[^{}]*--ink:[^{}]*\}", style)
    ]
    assert len(themes) == 3
    assert themes[1] == themes[2], "dark by choice is dark by the system"
    for theme in themes:
        for back in ("ground", "surface", "faint"):
            for ink in ("ink", "muted", "accent", "best", "bad"):
                assert contrast(theme[ink], theme[back]) >= 4.5, (ink, back)
        for name in ("accent", "best", "bad"):
            assert contrast(theme[name], theme[f"{name}-faint"]) >= 4.5, name
        for i in range(6):
            assert contrast(theme[f"s{i}"], theme["surface"]) >= 3.0, i


@given(st.text())
def test_text_comes_back_as_it_was_shown(text):
    tree = read(ENVIRONMENT.from_string('<p title="{{ text }}">{{ text }}</p>').render(text=text))
    shown = visible(text)
    # A parser reads \r\n as \n; \r is not shown at all.
    assert tree.all("p")[0].text == shown
    assert tree.all("p")[0].attributes["title"] == shown


def rows_of(text: str) -> list[dict[str, str]]:
    """A CSV file's rows."""
    head, *rows = list(csv.reader(StringIO(text, newline="")))
    assert len(head) == len(set(head)), "no two columns have one head"
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_views_hold_every_value(found):
    made = views(found)
    every = [c for r in found for row in r.rows for c in row.cells.values()]
    values = rows_of(made["values.csv"])
    assert len(values) == len(every)
    assert sorted(float(v["value"]) for v in values if v["value"]) == sorted(
        c.value for c in every if c.value is not None
    )
    assert {v["reason"] for v in values if not v["value"]} >= {"the driver tells no power of cpu"}
    board = rows_of(made["leaderboard.csv"])
    assert len(board) == sum(len(r.rows) for r in found)
    assert len([k for k in board[0] if k.startswith("images-per-second | ")]) == 2, "one for each machine"
    fronts = rows_of(made["pareto.csv"])
    assert {f["on_front"] for f in fronts} == {"0", "1"}
    assert len(rows_of(made["pairs.csv"])) == 2
    assert {p["part"] for p in rows_of(made["profile.csv"])} >= {"text", "base", "upscale"}


def test_no_field_is_a_formula(found, spoiled):
    import dataclasses

    wicked = [dataclasses.replace(r, name=f"{sign}cmd|' /C calc'!A0") for r in found for sign in "=+-@\t"]
    for text in (*views(wicked).values(), *views(spoiled).values()):
        for row in csv.reader(StringIO(text, newline="")):
            for value in row:
                assert not value.startswith(("=", "+", "@", "\t")), value
                assert not value.startswith("-") or float(value) < 0


def test_without_a_browser_the_command_says_so_in_a_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="there is no chromium here; install a Chromium and its driver"):
        browser.main()
