"""The answer at the top: which configuration to use, in plain sentences, and what changing one setting does.

Everything is derived from the records by `choice`; what differs by less than the noise is said to be the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import islice

from zoo.config.published import measured_by
from zoo.registry import registry
from zoo.report.choice import Change, Choice, choices
from zoo.report.groups import Entry, Group
from zoo.report.leaderboard import heading
from zoo.report.markup import Markup, element, region
from zoo.report.model import DIMENSIONS, Column
from zoo.report.ticks import plain, written

_OFF = {"fast": "not fast", "step_cache": "no step cache", "library": "zoo"}
MOST = 8  # answers of one page
OPEN = 2  # whose tables are unfolded
_SETTINGS = {"steps": "{} steps", "guidance": "guidance {}", "batch": "batch {}", "size": "{} px", "device": "on {}",
             "step_cache": "step cache {}", "fast": "fast"}  # fmt: skip


def section(shown: Sequence[Group]) -> list[Markup]:
    """An answer for each machine and measure of quality; nothing where no two configurations were judged alike."""
    found = list(islice((c for group in shown for c in choices(group)), MOST))
    return [_answer(choice, i, several=len(found) > 1) for i, choice in enumerate(found)]


def _answer(choice: Choice, number: int, *, several: bool) -> Markup:
    pick = choice.pick
    model = pick.row.asked.get("model", "")
    settings = [said for d in DIMENSIONS if d != "model" and (said := _setting(d, pick.row.asked.get(d)))]
    decided = bool(choice.deciding)
    use = element(
        "p", "Use " if decided else "Fastest: ", element("strong", model or pick.row.name),
        f" with {', '.join(settings)}" if settings and model else None, ".", class_="use",
    )  # fmt: skip
    where = element("p", f"Measured on {heading(choice.group)}; another machine may answer otherwise.", class_="aside")
    table = _changes(choice)
    if table is not None and number >= OPEN:
        table = element("details", element("summary", "What changing one setting does"), table)
    elif table is not None:
        table = element("div", element("h3", "What changing one setting does"), table)
    about = [model or pick.row.name, heading(choice.group).partition(" · ")[0]]
    name = element("h2", "In short", element("small", " on ".join(about), class_="place") if several else None)
    lines = element("ul", [element("li", line) for line in _sentences(choice)], class_="said")
    beside = "split" if number < OPEN else None
    return element(
        "section", name, use, _tiles(choice),
        element("div", element("div", lines, _meanings(choice), where), table, class_=beside),
        class_="answer", id="answer" if number == 0 else f"answer-{number}",
    )  # fmt: skip


def _meanings(choice: Choice) -> Markup | None:
    told = [f"{c.name}: {meaning}" for c in choice.quality if (meaning := _meaning(c.name)) is not None]
    return element("p", "; ".join(told) + ".", class_="aside") if told else None


def _meaning(name: str) -> str | None:
    """What the metric whose values go by this name says of them."""
    known, metric = registry(), measured_by(name)
    return (
        known.entry("metric", metric).signature().constants.get("meaning") if metric in known.names("metric") else None
    )


def _setting(dimension: str, value: str | None) -> str:
    """A setting in words; what is off or not said needs none."""
    if (
        value is None
        or (dimension in ("fast", "step_cache") and value == "no")
        or (dimension, value) == ("library", "zoo")
    ):
        return ""
    if dimension == "fast" and value != "yes":
        return f"fast ({value})"
    return _SETTINGS.get(dimension, "{}").format(value)


def _tiles(choice: Choice) -> Markup:
    pick, tiles = choice.pick, []
    if choice.speed is not None and choice.rate(pick):
        each = written(1 / choice.rate(pick), "s", 3)
        tiles.append(("images a second", written(choice.rate(pick), digits=3), f"{each} an image"))
    for column in (choice.deciding or choice.quality)[:2]:
        value, margin = choice.value(pick, column)
        cell = pick.cell(column)
        around = "no error bar" if margin is None else f"± {plain(margin, 2)}"
        if cell.low is not None and cell.high is not None:
            around = f"{plain(cell.low, 3)} to {plain(cell.high, 3)}"
        tiles.append((column.name, written(value, column.unit, 3), f"{around}, {column.better} is better"))
    for key in ("device-peak", "host-peak"):
        peak = next((v for c in choice.group.columns if c.key == key and (v := pick.cell(c).value)), None)
        if peak:
            tiles.append(
                ("memory", written(peak, "bytes", 3), "of the device" if key == "device-peak" else "of the host")
            )
            break
    made = [
        element(
            "li", element("span", what, class_="what"), element("strong", value), element("span", more, class_="who")
        )
        for what, value, more in tiles
    ]
    return element("ul", made, class_="tiles")


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
        slower = _times(choice, pick, best)
        said.append(f"The {'highest' if column.better == 'higher' else 'lowest'} {column.name} is that of "
                    f"{group.label(best.row)}, {plain(value, 3)} against {plain(mine, 3)}: too little to tell them "
                    f"apart{slower}.")  # fmt: skip
    cheaper = choice.cheaper()
    if cheaper is not None:
        ratio = plain(choice.rate(cheaper) / choice.rate(pick), 2)
        lost = _listed([_values(choice, c, pick, cheaper) for c, better in choice.verdict(pick, cheaper) if not better])
        loss = f"at a clear loss: {lost}" if lost else "but others beat it in quality, if not clearly this one"
        said.append(f"Faster: {group.label(cheaper.row)} draws {ratio} times as many images a second, {loss}.")
    silent = [c.name for c in choice.quality if c not in choice.deciding]
    if silent:
        said.append(f"{_listed(silent)} came without an error bar and decided nothing.")
    said.append(_resolution(choice))
    return said


def _times(choice: Choice, pick: Entry, other: Entry) -> str:
    a, b = choice.rate(pick), choice.rate(other)
    if not a or not b or choice.spread is None or a - b <= 2 * choice.spread * a:
        return ""
    return f", and it takes {plain(a / b, 3)} times as long"


def _resolution(choice: Choice) -> str:
    """What the record can tell apart at all."""
    seen = []
    for column in choice.deciding:
        known = [m for e in choice.entries if (m := choice.value(e, column)[1]) is not None]
        seen.append(f"{column.name} below about {plain(2**0.5 * statistics.median(known), 2)}")
    if choice.spread is not None:
        seen.append(f"speed below {200 * choice.spread:.2g} %")
    return f"Taken for noise: differences of {_listed(seen)}."


def _changes(choice: Choice) -> Markup | None:
    """A table of pairs that differ in one setting only: what its other values do to speed and quality."""
    rows = [_change(choice, change) for change in choice.changes()]
    if not rows:
        return None
    heads = [
        element("th", n, scope="col", class_=c) for n, c in (("change", None), ("speed", "number"), ("quality", None))
    ]
    table = element("table", element("thead", element("tr", heads)), element("tbody", rows), class_="plain changes")
    return region(table, "What changing one setting does")


def _change(choice: Choice, change: Change) -> Markup:
    before, after, d = change.before, change.after, change.dimension
    new, old = (_setting(d, e.row.asked.get(d)) or _OFF.get(d, f"the pipeline's own {d}") for e in (after, before))
    at = None
    if before is not choice.pick:
        at = element("span", f"of {choice.group.label(before.row)}", class_="terms")
    a, b = choice.rate(before), choice.rate(after)
    speed, faint = "–", True
    if a and b and choice.spread is not None:
        faint = abs(a - b) <= 2 * choice.spread * max(a, b)
        speed = "as fast" if faint else f"{plain(b / a, 2)} ×"
    verdict = choice.verdict(before, after)
    badge, said = "", "no clear difference" if choice.deciding else "not known"
    if verdict:
        badges = {True: ("better", "badge good"), False: ("worse", "badge bad")}
        kinds = {better for _, better in verdict}
        said, badge = badges[kinds.pop()] if len(kinds) == 1 else ("better and worse", "badge")
    values = "; ".join(_values(choice, c, before, after) for c, _ in verdict)
    return element(
        "tr", element("th", element("span", new, class_="name"), element("span", f"for {old}", class_="terms"), at,
                      scope="row"),
        element("td", speed, class_="number muted" if faint else "number"),
        element("td", element("span", said, class_=badge or "muted"),
                element("span", values, class_="terms") if values else None),
    )  # fmt: skip


def _values(choice: Choice, column: Column, before: Entry, after: Entry) -> str:
    new, old = choice.value(after, column)[0], choice.value(before, column)[0]
    return f"{column.name} {plain(new, 3)} instead of {plain(old, 3)}"


def _listed(names: Sequence[str]) -> str:
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"
