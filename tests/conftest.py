"""The marks `gold` and `slow`, what tests cost, and last lines that name every test that did not run."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path

import pytest

from tests import costs, golden_sets

LEFT_OUT = (
    "slow or a comparison with another library, and neither named on the command line nor chosen by a mark; "
    "'pytest --all' runs everything"
)
_spent = pytest.StashKey[float]()

# A shell starts what runs in its background deaf to Ctrl-C, which tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("zoo")
    group.addoption("--all", action="store_true", help="run slow tests too")
    group.addoption("--costs", type=Path, metavar="FILE", help="write what each test cost to FILE, and print a table")


def _sets(item: pytest.Item) -> list[str]:
    """Names of the sets that a test's marks name."""
    return [name for mark in item.iter_markers("gold") for name in mark.args]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gold") and not _sets(item):
            raise pytest.UsageError(f"{item.nodeid}: the mark gold names no set; give it one as 'FAMILY/NAME'")
        if here := [name for name in _sets(item) if golden_sets.copied(name)]:
            raise pytest.UsageError(f"{item.nodeid}: the set '{here[0]}' is in tests/golden; take the mark gold away")
        if absent := [name for name in _sets(item) if not golden_sets.found(name)]:
            item.user_properties.extend(("absent set", name) for name in absent)
            item.add_marker(pytest.mark.skip(reason=f"{', '.join(absent)}: not in {golden_sets.SHARED}"))
        elif _left_out(item) and not _chosen(config):
            item.add_marker(pytest.mark.skip(reason=LEFT_OUT))


def _left_out(item: pytest.Item) -> bool:
    """Whether `pytest --all` alone runs it: other libraries take seconds to import."""
    return any(item.get_closest_marker(mark) for mark in ("slow", "peer"))


def _chosen(config: pytest.Config) -> bool:
    """Whether whoever calls pytest wants slow tests: all, those of a mark, or a test by its name."""
    return config.option.all or bool(config.option.markexpr) or any("::" in name for name in config.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_spent] = costs.spent()
    with golden_sets.marked(_sets(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    before, item.stash[_spent] = item.stash[_spent], costs.spent()
    report.user_properties.append(("cpu seconds", item.stash[_spent] - before))
    if _left_out(item):
        report.user_properties.append(("slow", True))
    if item.get_closest_marker("peer"):
        report.user_properties.append(("peer", True))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    absent: set[str] = set()
    gold, reasons = 0, Counter[str]()
    for report in terminalreporter.getreports("skipped"):
        if names := [value for key, value in getattr(report, "user_properties", ()) if key == "absent set"]:
            gold += 1
            absent.update(names)
        else:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reasons[why.removeprefix("Skipped: ")] += 1
    if config.option.costs is not None:
        found = _costs(terminalreporter)
        costs.write(found, config.option.costs)
        for line in costs.table(found):
            terminalreporter.write_line(line)
    if gold:
        terminalreporter.write_line(
            f"NOT RUN: {_tests(gold, 'gold test')}; {golden_sets.SHARED} (ZOO_GOLDEN, or ../shared/golden) does not "
            f"have the recorded outputs {', '.join(sorted(absent))}"
        )
    for reason, count in reasons.items():
        terminalreporter.write_line(f"NOT RUN: {_tests(count, 'test')}; {reason}")


def _costs(terminalreporter: pytest.TerminalReporter) -> list[costs.Cost]:
    """Of every test of the run, its three phases together."""
    seconds, slow, ran = defaultdict[str, float](float), set[str](), dict[str, bool]()
    peer = set[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport):
                continue
            told = dict(report.user_properties)
            seconds[report.nodeid] += float(told.get("cpu seconds", 0.0))
            ran[report.nodeid] = ran.get(report.nodeid, False) or report.when == "call"
            if told.get("slow"):
                slow.add(report.nodeid)
            if told.get("peer"):
                peer.add(report.nodeid)
    return [costs.Cost(name, round(seconds[name], 3), name in slow, ran[name], name in peer) for name in seconds]


def _tests(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count > 1 else ''}"
