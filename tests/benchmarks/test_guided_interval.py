"""Colour requests that no training caption says, and guidance where it is wanted."""

from __future__ import annotations

import pytest

import zoo
from benchmarks import guided_interval
from zoo.data.colours import COLOURS
from zoo.data.reserved import ReservedNames
from zoo.data.variants import held_out

ROWS = [
    {"name": name, "text": f"{name}, {style}", "group": "food-drink"}
    for name in (f"thing{i}" for i in range(80))
    for style in ("flat style", "3d style", "black and white line style")
] + [{"name": "flag", "text": "flag, flat style", "group": "flags"}]


def test_requests_are_held_out_and_not_reserved():
    made = guided_interval.requests(ROWS, 3)
    assert made == guided_interval.requests(ROWS, 3)
    reserved = ReservedNames([guided_interval.RESERVED])
    for colour, caption in made:
        name, style = caption.split(", ")
        assert name.startswith(f"{colour} thing")
        assert style in ("flat style", "3d style")
        assert held_out(name, guided_interval.HELD_OUT)
        assert not reserved.holds(caption)
    counts = {colour: sum(c == colour for c, _ in made) for colour in COLOURS}
    assert all(n <= 3 for n in counts.values())
    assert len(made) > 15
    assert counts["grey"] == 0


@pytest.mark.parametrize(
    ("setting", "shown"),
    [("3", "classifier-free(scale=3.0)"), ("6:0.3:5", "limited-interval(low=0.3, high=5.0")],
)
def test_a_setting_takes_the_place_of_the_presets_guidance(setting, shown):
    config = guided_interval.guided(guided_interval.first_stage("cascade-text2img"), setting)
    (stage,) = zoo.check(config)["stages"]
    assert [g["name"] for g in stage["guidance"]] == [shown.partition("(")[0], "static-threshold"]
    assert guided_interval.guidance(setting)[0] == float(setting.split(":")[0])
    assert guided_interval.guidance("6:0.3:5")[1:] == (0.3, 5.0)
