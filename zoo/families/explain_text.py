"""A report of `zoo explain` for people: at most a screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from zoo.families.explain import PartReport, Report

_LINES = 40
_WIDTH = 118
_UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "K"))


def lines(report: Report) -> list[str]:
    """The report's lines; control characters of untrusted names are left out."""
    found = [_clean(line) for line in _lines(report)]
    return (
        found if len(found) <= _LINES else [*found[: _LINES - 1], f"... {len(found) - _LINES + 1} lines more: --json"]
    )


def _lines(report: Report) -> Iterator[str]:
    whose = ", ".join(part for part in (report.family, report.variant) if part)
    kind = "unknown: no published list of tensors is near" if report.kind == "unknown" else report.kind
    yield f"{report.path}"
    yield f"  {whose}: {kind}" if whose else f"  {kind}"
    yield (
        f"  {report.container}, {report.bytes / 2**20:,.1f} MiB; {report.tensors} tensors, "
        f"{_count(report.parameters)} parameters, {_precision(report.precision)}"
    )
    for name, value in report.facts:
        yield f"  {name}: {value}"
    if report.parts:
        width = max(len(part.name) for part in report.parts)
        yield "parts"
        for part in report.parts:
            yield from _part(part, width)
    if report.average:
        yield f"average: {report.average}"
    if report.questions:
        yield "what tensors can't tell"
        for question in report.questions:
            settled = f"the file says {question.said}" if question.said else f"say {question.argument}="
            settled += "" if question.said else "|".join(question.choices)
            yield f"  {question.argument}: {settled} ({question.why})"
    if report.notes:
        yield "notes"
        yield from (f"  {note}" for note in report.notes)
    shown = [f"{key}={value}" for key, value in report.metadata.items() if len(value) <= 60]
    if shown:
        yield "metadata"
        yield from (f"  {entry}" for entry in shown[:6])
        if len(report.metadata) > 6:
            yield f"  ... {len(report.metadata) - 6} more: --json"


def _part(part: PartReport, width: int) -> Iterator[str]:
    layout = f", {part.layout} names" if part.layout else ""
    yield (
        f"  {part.name:<{width}}  {part.what}{layout}; {part.tensors} tensors, {_count(part.parameters)}, "
        f"{_precision(part.precision)}{', as published' if part.exact else ''}"
    )
    for label, names in (("missing", part.missing), ("unused", part.unused), ("of another shape", part.other_shape)):
        if names:
            yield f"  {'':<{width}}    {len(names)} {label}: {_few(names)}"
    for note in part.notes:
        yield f"  {'':<{width}}    {note}"


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(n[:70] for n in listed[:2]) + (f" and {len(listed) - 2} more" if len(listed) > 2 else "")


def _count(numbers: int) -> str:
    return next((f"{numbers / unit:.2f} {name}" for unit, name in _UNITS if numbers >= unit), str(numbers))


def _precision(counted: Mapping[str, int]) -> str:
    """`F16`, or `F16 with 3 F32` where there are several."""
    names = list(counted)
    return names[0] + (f" with {', '.join(names[1:])}" if names[1:] else "") if names else "nothing"


def _clean(line: str) -> str:
    line = "".join(c if c.isprintable() else " " for c in line)
    return line if len(line) <= _WIDTH * 2 else line[: _WIDTH * 2 - 3] + "..."
