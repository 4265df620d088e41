"""Comparisons with other libraries: like for like, and every pair that was measured."""

from __future__ import annotations

import json
import re

from benchmarks import tables
from benchmarks.record import RESULTS
from tests.test_docs import PAGES


def test_a_samplers_step_is_compared_like_for_like_alone():
    """Both sides read x0 from the network's output; the time of a step that is handed x0 stands in no page."""
    rows = json.loads((RESULTS / "sampler_step.json").read_text())["values"]["rows"]
    compared = [row for row in rows if row["diffusers_us"] is not None]
    shown = re.findall(r"\| ([\d.]+)x \|", tables.TABLES["speed"](RESULTS))
    assert shown == [f"{row['times_faster_with_reading']:.1f}" for row in compared]
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CHANGELOG.md")
    assert [f for r in compared if r["times_faster"] > 10 and (f := f"{r['times_faster']:.1f}x") in text] == []


def test_every_pair_of_a_comparison_is_shown_the_slower_ones_too():
    shown = [float(ratio) for ratio in re.findall(r"\| ([\d.]+)x \|", tables.TABLES["against"](RESULTS))]
    measured = []
    for suite in ("vs-diffusers", "vs-metrics"):
        record = json.loads(sorted(RESULTS.glob(f"{suite}-*.json"))[-1].read_text())
        measured += [round(pair["ratio"], 2) for pair in record["pairs"] if pair.get("ratio") is not None]
    assert shown == measured
    assert min(measured) < 1.0
