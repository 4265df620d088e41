"""The page: one HTML file with everything in it, which asks nobody for anything and runs no script but its own.

Its content security policy allows the style and the script by their hashes and pictures as data URIs; so even an
element that came through by some mistake could neither run nor load.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from zoo.report import answer, comparison, fronts, leaderboard, profile, provenance, samples
from zoo.report.groups import Group, groups
from zoo.report.markup import Markup, element, own
from zoo.report.model import Record

_HERE = Path(__file__).parent
_EMPTY = {
    "fronts": "No two configurations have both a quality and a cost yet; a suite of zoo bench measures them together.",
    "samples": "No record names pictures.",
    "profile": "No record tells its stages.",
    "comparison": "There is nothing to compare with yet: one configuration has values.",
}


def page(records: Sequence[Record], title: str = "zoo report") -> str:
    """The report of records, as HTML."""
    style, script = ((_HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    shown = groups(records)
    policy = (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}'; style-src 'sha256-{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = (
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", own(style)),
    )
    sections = _sections(list(records), shown)
    answers = answer.section(shown)
    links = [element("a", "In short", href="#answer")] if answers else []
    links += [element("a", name, href=f"#{identity}") for identity, name, _ in sections]
    body = (
        element("a", "Skip to the leaderboard", href="#leaderboard", class_="skip"),
        element("header", element("div", element("h1", title), element("p", _told(records, shown)), class_="title"),
                element("button", "Theme: auto", type="button", id="theme", hidden=True)),
        element("nav", links, aria_label="Sections"),
        element("main", answers,
                [element("section", element("h2", name), parts, id=identity) for identity, name, parts in sections]),
        element("footer", element("p", "Made by zoo report. Values under unlike keys share no column; what a record "
                                       "doesn't say, this page doesn't either.")),
        element("dialog", element("form", element("button", "Close", autofocus=True), method="dialog"),
                element("div", class_="scroll"), element("p"), id="large", aria_label="Enlarged samples"),
        element("script", own(script)),
    )  # fmt: skip
    return "<!doctype html>\n" + element("html", element("head", *head), element("body", *body), lang="en") + "\n"


def _sections(records: list[Record], shown: list[Group]) -> list[tuple[str, str, list[Markup]]]:
    against = comparison.data(shown)
    pairs = comparison.pairs(records)
    boards = [leaderboard.table(group, f"board-{i}") for i, group in enumerate(shown)]
    found = [
        ("leaderboard", "Leaderboard", boards or [element("p", "No record has rows yet.", class_="aside")]),
        ("fronts", "Pareto fronts", fronts.section(shown)),
        ("samples", "Samples", samples.section(shown)),
        ("profile", "Where the work goes", profile.section(shown)),
        ("comparison", "Run against run", comparison.section(against)),
    ]
    found += [("pairs", "Against other libraries", [_ratio_told(), pairs])] if pairs is not None else []
    found.append(("records", "Records", provenance.section(records)))
    absent = [element("p", _EMPTY[identity], class_="aside") for identity, _, parts in found if not parts]
    found[-1][2].extend(absent)
    return [(identity, name, parts) for identity, name, parts in found if parts]


def _ratio_told() -> Markup:
    return element("p", "Theirs over ours, run in turns: above 1, zoo takes less.", class_="aside")


def _told(records: Sequence[Record], shown: Sequence[Group]) -> str:
    rows = sum(len(g.entries) for g in shown)
    days = sorted(r.when[:10] for r in records if r.when)
    span = "" if not days else f", {days[0]}" if days[0] == days[-1] else f", {days[0]} to {days[-1]}"
    places = len({r.place for r in records})
    parts = [
        f"{len(records)} record{'s' if len(records) != 1 else ''}",
        f"{rows} configuration{'s' if rows != 1 else ''}",
        f"{places} machine setup{'s' if places != 1 else ''}",
    ]
    return " · ".join(parts) + span


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
