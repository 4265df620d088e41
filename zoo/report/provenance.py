"""Each record by itself: where it was made, with what, and what it measured beyond the tables."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.report.markup import Markup, element, region
from zoo.report.model import Record


def section(records: Sequence[Record]) -> list[Markup]:
    """One folded block a record."""
    return [_record(record) for record in records]


def _record(record: Record) -> Markup:
    badges = [] if record.complete else [element("span", "incomplete", class_="badge bad")]
    badges += [element("span", "changed files", class_="badge")] if record.dirty else []
    told = [
        ("file", record.path.name),
        ("schema", record.schema),
        ("made on", record.when.replace("T", " ")),
        ("machine", record.place),
        ("commit", _commit(record)),
        *record.provenance,
    ]
    summary = element("summary", record.name, " ", element("span", record.when[:10], class_="terms"), badges)
    facts = [element("tr", element("th", fact.path, scope="row"), element("td", fact.value)) for fact in record.facts]
    heads = element("thead", element("tr", element("th", "measured", scope="col"), element("th", "value", scope="col")))
    table = element("table", heads, element("tbody", facts), class_="plain") if facts else None
    return element(
        "details", summary, element("p", record.summary) if record.summary else None,
        element("dl", [element("div", element("dt", name), element("dd", said)) for name, said in told if said]),
        None if table is None else region(table, f"Values of {record.name}"), class_="record",
    )  # fmt: skip


def _commit(record: Record) -> str:
    if record.commit is None:
        return "not told"
    return record.commit[:12] + (", with changed files" if record.dirty else "")
