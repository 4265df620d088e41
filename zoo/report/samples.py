"""Sample grids: what each configuration drew from the same seeds and prompts, side by side."""

from __future__ import annotations

from zoo.report.groups import Entry, Group
from zoo.report.leaderboard import few, title
from zoo.report.markup import Markup, element
from zoo.report.pictures import Picture, picture

MOST = 48 * 2**20  # characters of pictures in one page


def section(shown: list[Group]) -> list[Markup]:
    """The pictures of every row that names some."""
    parts: list[Markup] = []
    room = MOST
    for group in shown:
        entries = [e for e in group.newest if e.row.samples]
        if not entries:
            continue
        told = {e.row.sampled for e in entries}
        figures = []
        for entry in entries:
            found = [picture(entry.record.path.parent, name) for name in entry.row.samples]
            room -= sum(len(p.uri) for p in found if p.uri is not None)
            if room < 0:
                found = [Picture(uri=None, reason="left out: the page would be too large") for _ in found]
            figures.append(_figure(group, entry, found, None if len(told) == 1 else entry.row.sampled))
        parts.append(title(group))
        if len(told) == 1 and (said := next(iter(told))):
            parts.append(element("p", f"All from {said}.", class_="aside"))
        parts.append(element("div", figures, class_="sheets", data_few=few(figures)))
    return parts


def _figure(group: Group, entry: Entry, found: list[Picture], sampled: str | None) -> Markup:
    label = group.label(entry.row)
    shown = []
    for i, one in enumerate(found):
        if one.uri is None:
            shown.append(element("p", one.reason, class_="missing"))
            continue
        which = f", {i + 1} of {len(found)}" if len(found) > 1 else ""
        image = element(
            "img", src=one.uri, width=one.width, height=one.height, decoding="async",
            alt=f"Samples of {label}{which}: {entry.row.sampled or 'seeds not told'}",
            class_="small" if max(one.width, one.height) <= 96 else None,
        )  # fmt: skip
        shown.append(element("button", image, type="button", class_="zoom", aria_label=f"Enlarge: {label}{which}"))
    name = element(
        "figcaption", element("strong", label), element("span", sampled, class_="terms") if sampled else None
    )
    return element("figure", name, element("div", shown, class_="strip" if len(found) > 1 else "sheet"))
