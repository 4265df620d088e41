"""The mark `gold`, and last lines that name every test that did not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import pytest

from tests import golden_sets


def _sets(item: pytest.Item) -> list[str]:
    """Names of the sets that a test's marks name."""
    return [name for mark in item.iter_markers("gold") for name in mark.args]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gold") and not _sets(item):
            raise pytest.UsageError(f"{item.nodeid}: the mark gold names no set; give it one as 'FAMILY/NAME'")
        if here := [name for name in _sets(item) if golden_sets.copied(name)]:
            raise pytest.UsageError(f"{item.nodeid}: the set '{here[0]}' is in tests/golden; take the mark gold away")
        if absent := [name for name in _sets(item) if not golden_sets.found(name)]:
            item.user_properties.extend(("absent set", name) for name in absent)
            item.add_marker(pytest.mark.skip(reason=f"{', '.join(absent)}: not in {golden_sets.SHARED}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with golden_sets.marked(_sets(item)):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    absent: set[str] = set()
    gold, reasons = 0, Counter[str]()
    for report in terminalreporter.getreports("skipped"):
        if names := [value for key, value in getattr(report, "user_properties", ()) if key == "absent set"]:
            gold += 1
            absent.update(names)
        else:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reasons[why.removeprefix("Skipped: ")] += 1
    if gold:
        terminalreporter.write_line(
            f"NOT RUN: {_tests(gold, 'gold test')}; {golden_sets.SHARED} (ZOO_GOLDEN, or ../shared/golden) does not "
            f"have the recorded outputs {', '.join(sorted(absent))}"
        )
    for reason, count in reasons.items():
        terminalreporter.write_line(f"NOT RUN: {_tests(count, 'test')}; {reason}")


def _tests(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count > 1 else ''}"
