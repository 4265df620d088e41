"""The recommended configuration of a record: the fastest of those that none clearly beats in quality.

Only like measurements are compared: a task is the configurations of one machine that have the same
measures of quality under the same keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zoo.bench.report.groups import Entry, Group
from zoo.bench.report.model import DIMENSIONS, Column
from zoo.bench.report.standing import apart, faster, margins, unbeaten

SPEED = "images-per-second"
PRICE = 0.1  # the share of the best value that a faster configuration may lose and still be named first


@dataclass(frozen=True, kw_only=True)
class Change:
    """Two configurations that differ in one setting only."""

    dimension: str
    before: Entry
    after: Entry


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A task's configurations, and their comparison."""

    group: Group
    quality: tuple[Column, ...]  # what all of them have
    deciding: tuple[Column, ...]  # those of it that come with an error bar
    entries: tuple[Entry, ...]
    margin: dict[tuple[int, Column], float | None]  # by the entry's place and column
    good: tuple[Entry, ...]  # that nothing clearly beats in any deciding measure
    contradicted: bool  # each is clearly beaten in some measure, so the first one decides
    speed: Column | None
    spread: float | None  # of repeats' times, relative

    @property
    def pick(self) -> Entry:
        """The fastest of the good ones."""
        return max(self.good, key=self.rate)

    def rate(self, entry: Entry) -> float:
        """Images a second; 0 where that was not measured."""
        return 0.0 if self.speed is None else entry.cell(self.speed).value or 0.0

    def value(self, entry: Entry, column: Column) -> tuple[float, float | None]:
        """A value and its margin."""
        found = entry.cell(column).value
        assert found is not None
        return found, self.margin[self.entries.index(entry), column]

    def verdict(self, before: Entry, after: Entry) -> list[tuple[Column, bool]]:
        """The deciding measures in which two differ clearly, and whether `after` is better there."""
        found = []
        for column in self.deciding:
            a, b = self.value(before, column), self.value(after, column)
            if apart(a, b):
                found.append((column, (b[0] > a[0]) == (column.better == "higher")))
        return found

    def best(self, column: Column) -> Entry:
        """Where the best value of a measure was found."""
        sign = 1.0 if column.better == "higher" else -1.0
        return max(self.entries, key=lambda e: (sign * self.value(e, column)[0], self.rate(e)))

    def as_fast(self) -> list[Entry]:
        """Good ones that the pick is not clearly faster than."""
        pick = self.pick
        return [e for e in self.good if e is not pick and not faster(self.rate(pick), self.rate(e), self.spread)]

    def cheaper(self) -> Entry | None:
        """Clearly faster than the pick and clearly worse: the fastest that loses little, else the fastest."""
        rest = [e for e in self.entries if faster(self.rate(e), self.rate(self.pick), self.spread)]
        if not rest or not self.deciding:
            return None
        column = self.deciding[0]
        best = self.value(self.best(column), column)[0]
        near = [e for e in rest if abs(self.value(e, column)[0] - best) <= PRICE * abs(best)]
        return max(near or rest, key=self.rate)

    def changes(self) -> list[Change]:
        """For each setting and each other value of it, the pair nearest to the pick that differs in nothing else."""
        found = []
        for dimension in DIMENSIONS:
            kept = self.pick.row.asked.get(dimension)
            others = dict.fromkeys(e.row.asked.get(dimension) for e in self.entries)
            for other in (v for v in others if v != kept):
                pairs = [
                    (a, b) for a in self.entries if a.row.asked.get(dimension) == kept
                    for b in self.entries if b.row.asked.get(dimension) == other and _differ(a, b) == [dimension]
                ]  # fmt: skip
                if pairs:
                    a, b = min(pairs, key=lambda p: (len(_differ(p[0], self.pick)), -self.rate(p[1])))
                    found.append(Change(dimension=dimension, before=a, after=b))
        return found


def _differ(a: Entry, b: Entry) -> list[str]:
    return [d for d in DIMENSIONS if a.row.asked.get(d) != b.row.asked.get(d)]


def choices(group: Group) -> Iterator[Choice]:
    """Every task of a group in which two configurations or more were judged, the largest first."""
    quality = [c for c in group.columns if c.kind == "quality" and c.better]
    left = [e for e in group.newest if not e.row.random_weights]
    while quality:
        holders = max(([e for e in left if e.cell(c).value is not None] for c in quality), key=len)
        if not holders:
            return
        if len(holders) > 1:
            yield _choice(group, [c for c in quality if all(e.cell(c).value is not None for e in holders)], holders)
        left = [e for e in left if e not in holders]


def _choice(group: Group, quality: Sequence[Column], entries: Sequence[Entry]) -> Choice:
    margin: dict[tuple[int, Column], float | None] = {}
    standing: dict[Column, list[bool]] = {}
    for column in quality:
        assert column.better is not None
        found = margins([e.cell(column) for e in entries])
        margin |= {(i, column): m for i, m in enumerate(found)}
        values = [(e.cell(column).value or 0.0, m) for e, m in zip(entries, found, strict=True)]
        if None not in found:
            standing[column] = unbeaten(values, column.better)
    good = [e for i, e in enumerate(entries) if all(s[i] for s in standing.values())]
    contradicted = not good
    if contradicted:
        first = next(iter(standing.values()))
        good = [e for e, fine in zip(entries, first, strict=True) if fine]
    spreads = [e.row.noise for e in entries if e.row.noise is not None]
    speed = next((c for c in group.columns if c.key == SPEED), None)
    return Choice(
        group=group, quality=tuple(quality), deciding=tuple(standing), entries=tuple(entries), margin=margin,
        good=tuple(good), contradicted=contradicted, speed=speed, spread=max(spreads) if spreads else None,
    )  # fmt: skip
