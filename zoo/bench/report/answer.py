"""The recommendation at the top: which configuration to use, and the effect of changing one setting.

Everything is derived from the records by `choice`; what differs by less than the noise counts as equal.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from zoo.bench.report.choice import Change, Choice
from zoo.bench.report.groups import Entry
from zoo.bench.report.model import DIMENSIONS, Column
from zoo.bench.report.plots import plain, written
from zoo.config.published import measured_by
from zoo.schema.registry import registry

_OFF = {"fast": "not fast", "step_cache": "no step cache", "library": "zoo"}
_SETTINGS = {"steps": "{} steps", "guidance": "guidance {}", "batch": "batch {}", "size": "{} px", "device": "on {}",
             "step_cache": "step cache {}", "fast": "fast"}  # fmt: skip


def answer(choice: Choice) -> dict[str, Any]:
    """The page's sentences about a choice."""
    pick, group = choice.pick, choice.group
    model = pick.row.asked.get("model", "")
    settings = [said for d in DIMENSIONS if d != "model" and (said := _setting(d, pick.row.asked.get(d)))]
    meanings = [f"{c.name}: {said}" for c in choice.quality if (said := _meaning(c.name)) is not None]
    return {
        "begins": "Use " if choice.deciding else "Fastest: ", "model": model or pick.row.name, "place": group.name,
        "settings": f" with {', '.join(settings)}" if settings and model else "", "tiles": _tiles(choice),
        "about": f"{model or pick.row.name} on {group.name.partition(' · ')[0]}",
        "sentences": _sentences(choice), "meanings": "; ".join(meanings),
        "changes": [_change(choice, change) for change in choice.changes()],
    }  # fmt: skip


def _meaning(name: str) -> str | None:
    """What the metric of this name declares about its values."""
    known, metric = registry(), measured_by(name)
    return (
        known.entry("metric", metric).signature().constants.get("meaning") if metric in known.names("metric") else None
    )


def _setting(dimension: str, value: str | None) -> str:
    """A setting in words; empty for what is off or not given."""
    off = dimension in ("fast", "step_cache") and value == "no"
    if value is None or off or (dimension, value) == ("library", "zoo"):
        return ""
    if dimension == "fast" and value != "yes":
        return f"fast ({value})"
    return _SETTINGS.get(dimension, "{}").format(value)


def _tiles(choice: Choice) -> list[tuple[str, str, str]]:
    """What, how much, and remarks."""
    pick, tiles = choice.pick, []
    rate = choice.rate(pick)
    if choice.speed is not None and rate:
        tiles.append(("images a second", written(rate, digits=3), f"{written(1 / rate, 's', 3)} an image"))
    for column in (choice.deciding or choice.quality)[:2]:
        value, margin = choice.value(pick, column)
        cell = pick.cell(column)
        around = "no error bar" if margin is None else f"± {plain(margin, 2)}"
        if cell.low is not None and cell.high is not None:
            around = f"{plain(cell.low, 3)} to {plain(cell.high, 3)}"
        tiles.append((column.name, written(value, column.unit, 3), f"{around}, {column.better} is better"))
    held = {c.key: pick.cell(c).value for c in choice.group.columns}
    peaks = [(held.get(f"{where}-peak"), f"of the {where}") for where in ("device", "host")]
    tiles += [("memory", written(peak, "bytes", 3), where) for peak, where in peaks if peak][:1]
    return tiles


def _sentences(choice: Choice) -> list[str]:
    group, pick, count = choice.group, choice.pick, len(choice.entries)
    if not choice.deciding:
        names = _listed([c.name for c in choice.quality])
        return [f"Of {count} configurations it draws the most images a second. Which draws the best ones isn't known: "
                f"{names} came without an error bar, so no difference counts."]  # fmt: skip
    counted = choice.deciding[:1] if choice.contradicted else choice.deciding
    measures, good = _listed([c.name for c in counted]), len(choice.good)
    if good == count:
        said = [f"No difference of {measures} between the {count} configurations is larger than the noise, so speed "
                "decides, and this is the fastest."]  # fmt: skip
    elif good == 1:
        said = [f"Of {count} configurations, each other one is clearly beaten in {measures}."]
    else:
        said = [f"{good} of {count} configurations are as good as any in {measures}, within the noise; this is the "
                "fastest of them."]  # fmt: skip
    if choice.contradicted:
        others = _listed([c.name for c in choice.deciding[1:]])
        said.append(f"The measures contradict each other: by {others} others are clearly better; {measures} decided.")
    if choice.spread is None:
        said.append("How far repeated timings spread was not measured, so no speed counts as different.")
    tied = choice.as_fast()
    if tied and choice.spread is not None:
        names = _listed([group.label(e.row) for e in tied[:3]])
        said.append(f"As fast within the noise, and as good: {names}{' and others' if len(tied) > 3 else ''}.")
    column = choice.deciding[0]
    best = choice.best(column)
    if best is not pick:
        value, mine = choice.value(best, column)[0], choice.value(pick, column)[0]
        said.append(f"The {'highest' if column.better == 'higher' else 'lowest'} {column.name} is that of "
                    f"{group.label(best.row)}, {plain(value, 3)} against {plain(mine, 3)}: too little to tell them "
                    f"apart{_times(choice, pick, best)}.")  # fmt: skip
    cheaper = choice.cheaper()
    if cheaper is not None:
        ratio = plain(choice.rate(cheaper) / choice.rate(pick), 2)
        lost = _listed([_values(choice, c, pick, cheaper) for c, better in choice.verdict(pick, cheaper) if not better])
        loss = f"at a clear loss: {lost}" if lost else "but others beat it in quality, if not clearly this one"
        said.append(f"Faster: {group.label(cheaper.row)} draws {ratio} times as many images a second, {loss}.")
    silent = [c.name for c in choice.quality if c not in choice.deciding]
    if silent:
        said.append(f"{_listed(silent)} came without an error bar and decided nothing.")
    return [*said, f"Taken for noise: differences of {_listed(_resolution(choice))}."]


def _times(choice: Choice, pick: Entry, other: Entry) -> str:
    a, b = choice.rate(pick), choice.rate(other)
    if not a or not b or choice.spread is None or a - b <= 2 * choice.spread * a:
        return ""
    return f", and it takes {plain(a / b, 3)} times as long"


def _resolution(choice: Choice) -> list[str]:
    """What the record can distinguish."""
    seen = []
    for column in choice.deciding:
        known = [m for e in choice.entries if (m := choice.value(e, column)[1]) is not None]
        seen.append(f"{column.name} below about {plain(2**0.5 * statistics.median(known), 2)}")
    return seen + ([] if choice.spread is None else [f"speed below {200 * choice.spread:.2g} %"])


def _change(choice: Choice, change: Change) -> dict[str, Any]:
    """A pair that differs in one setting only: what its other value does to speed and quality."""
    before, after, d = change.before, change.after, change.dimension
    new, old = (_setting(d, e.row.asked.get(d)) or _OFF.get(d, f"the pipeline's own {d}") for e in (after, before))
    a, b = choice.rate(before), choice.rate(after)
    speed, faint = "–", True
    if a and b and choice.spread is not None:
        faint = abs(a - b) <= 2 * choice.spread * max(a, b)
        speed = "as fast" if faint else f"{plain(b / a, 2)} ×"
    verdict = choice.verdict(before, after)
    kinds = {better for _, better in verdict}
    badges = {(): ("no clear difference" if choice.deciding else "not known", "muted"),
              (True,): ("better", "badge good"), (False,): ("worse", "badge bad")}  # fmt: skip
    said, badge = badges.get(tuple(kinds), ("better and worse", "badge"))
    return {
        "new": new, "old": old, "of": "" if before is choice.pick else f"of {choice.group.label(before.row)}",
        "speed": speed, "faint": faint, "said": said, "badge": badge,
        "values": "; ".join(_values(choice, c, before, after) for c, _ in verdict),
    }  # fmt: skip


def _values(choice: Choice, column: Column, before: Entry, after: Entry) -> str:
    new, old = choice.value(after, column)[0], choice.value(before, column)[0]
    return f"{column.name} {plain(new, 3)} instead of {plain(old, 3)}"


def _listed(names: Sequence[str]) -> str:
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"
