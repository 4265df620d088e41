"""docs/models.md says what `zoo reproduce` will really do."""

import re
from pathlib import Path

import pytest

from benchmarks import published
from zoo.config.cards import card_names
from zoo.config.presets import preset_names
from zoo.evaluation.published import claims

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
LINES = dict(re.findall(r"^Again: `zoo reproduce (\S+) .*?`, (.*)$", PAGE, re.MULTILINE))


def test_there_are_lines():
    assert len(LINES) > 6


@pytest.mark.parametrize("name", LINES)
def test_the_time_is_that_of_everything_the_command_measures(name):
    measured = {claim.pipeline for claim in claims(name)} - {"", name}
    assert set(re.findall(r"\(#([\w-]+)\)", LINES[name])) == measured
    for of in {name, *measured}:
        seconds = published.read(of, ROOT / "benchmarks" / "results")["values"]["seconds"]
        assert f"{seconds:.0f} s" in LINES[name]


def test_what_publishes_has_a_line():
    assert {n for n in (*preset_names(), *card_names()) if published.read(n, ROOT / "benchmarks" / "results")} == set(
        LINES
    )
