"""What stems from a paper names it, from its source, and so do `zoo describe` and the documentation."""

import re
from pathlib import Path

import pytest

import zoo
from zoo.schema.papers import papers_of
from zoo.schema.registry import read_registry_file, registry_file

ROOT = Path(__file__).parents[1]
KINDS = (
    "schedule", "parameterization", "grid", "sampler", "guidance", "step_cache", "low_res", "network", "metric",
    "objective",
)  # fmt: skip
# Which stem from none, and why.
OWN = {
    "schedule/tabulated": "betas of whoever writes them",
    "guidance/mask": "zoo's own: what samplers that see x0 make of a mask",
    "sampler/lms": "k-diffusion's code, described in no paper",
    "metric/psnr": "older than papers on it",
    "metric/hit-score": "zoo's own: docs/evaluation.md",
}
ENTRIES = [entry for entry in read_registry_file(registry_file()) if entry.kind in KINDS]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e.kind}/{e.name}")
def test_what_stems_from_a_paper_names_it(entry):
    declared = entry.signature().constants.get("papers", ())
    papers = papers_of(declared)
    assert len(papers) == len(declared), "an entry is 'ID Title'"
    name = f"{entry.kind}/{entry.name}"
    assert bool(papers) != (name in OWN), f"{name}: declare `papers`, or say why there is none"


def test_one_number_has_one_title_and_one_title_one_number():
    titles, numbers = {}, {}
    for entry in read_registry_file(registry_file()):
        declared = entry.signature().constants.get("papers") or ()
        assert len(papers_of(declared)) == len(declared), f"{entry.kind}/{entry.name}: an entry is 'ID Title'"
        for paper in papers_of(declared):
            assert titles.setdefault(paper.url, paper.title) == paper.title
            assert numbers.setdefault(paper.title, paper.url) == paper.url


def test_a_number_of_arxiv_begins_with_a_year_and_a_month():
    page = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs").glob("*.md"))
    found = set(re.findall(r"arxiv\.org/abs/([^)\s]+)", page))
    assert len(found) > 40
    # Five digits since 2015, four before.
    assert [
        n
        for n in found
        if not re.fullmatch(
            r"(0[7-9]|1[0-4])(0[1-9]|1[0-2])\.\d{4}|"
            r"(1[5-9]|2\d)(0[1-9]|1[0-2])\.\d{5}",
            n,
        )
    ] == []


def test_describe_and_the_documentation_link_them():
    page = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
    described = str(zoo.describe("sampler/ddim"))
    assert "Denoising Diffusion Implicit Models, https://arxiv.org/abs/2010.02502" in described
    assert (
        zoo.describe("metric/ssim").to_dict()["facts"]["papers"][0].endswith("https://doi.org/10.1109/TIP.2003.819861")
    )
    for entry in ENTRIES:
        for paper in papers_of(entry.signature().constants.get("papers")):
            assert f"[{paper.title}]({paper.url})" in page


@pytest.mark.parametrize("declared", [None, "2010.02502 x", ("2010.02502",), ("x y",), (5,), {"a": 1}])
def test_a_plugins_other_declarations_are_left_out(declared):
    assert papers_of(declared) == []
