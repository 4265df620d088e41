"""The page that compares training runs: seconds and last values, curves, settings that differ, sample sheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zoo.bench.report.curves import curves_plot
from zoo.bench.report.page import PICTURES, rendered
from zoo.bench.report.pictures import Picture, picture
from zoo.bench.report.plots import Drawing, plain, written
from zoo.bench.report.runs import Run, different

RATE = "train/images_per_second"
MAGNIFIED, WIDEST = 3, 1024  # times, and pixels that a magnified sheet may have
ON_THE_WAY = 4  # steps whose sheets are shown besides the last


class Sheets(NamedTuple):
    """The sample sheets of some runs at one step, or their last ones."""

    title: str
    shown: list[tuple[Run, int, Picture]]


def runs_page(runs: Sequence[Run], title: str = "Training runs") -> str:
    """The comparison of runs, as HTML; it loads nothing, as `page`'s."""
    names = list(dict.fromkeys(name for run in runs for name in run.curves))
    shared = len(set().union(*(run.settings for run in runs)))
    rows = different(runs)
    return rendered(
        "runs.html", title, runs=runs, told=_told(runs), columns=_columns(names),
        plots=[(name, _plot(runs, name)) for name in sorted(names, key=_first)],
        rows=rows, shared=shared - len(rows), sheets=list(_sheets(runs)), seconds=_seconds, last=_last,
        length=_length, magnified=_magnified,
    )  # fmt: skip


def _told(runs: Sequence[Run]) -> str:
    done = sum(run.finished for run in runs)
    return f"{len(runs)} training run{'s' if len(runs) != 1 else ''}, {done} finished"


def _first(name: str) -> tuple[bool, bool, str]:
    """Losses first, of validation before those of training."""
    return "loss" not in name, not name.startswith("validation"), name


def _columns(names: Sequence[str]) -> list[str]:
    """The scalars whose last values the table of runs has."""
    return [n for n in sorted(names, key=_first) if n.startswith("validation/") or n in ("train/loss", RATE)]


def _plot(runs: Sequence[Run], name: str) -> Drawing:
    return curves_plot([(run.name, run.curves.get(name, ())) for run in runs], name)


def _seconds(run: Run) -> str:
    """`12 min`, of training."""
    return "unknown" if run.seconds is None else _said(run.seconds)


def _said(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{plain(seconds / size, 3)} {unit}"
    return written(seconds, "s", 3)


def _length(run: Run) -> str:
    """What a run's number of steps is beside: those to come, or why it ended."""
    if run.stopped:
        return "stopped early"
    if run.fits is None:
        return "" if run.steps is None else f"of {run.steps}"
    if run.finished:
        return f"fitted to {_said(run.fits)}"
    return f"of {_said(run.fits)}" if run.steps is None else f"of about {run.steps}, {_said(run.fits)}"


def _magnified(one: Picture) -> int:
    """How many times as large as it is a sheet is shown: those of small images three times."""
    return max(1, min(MAGNIFIED, WIDEST // max(one.width, 1)))


def _last(run: Run, name: str) -> str:
    curve = run.curves.get(name)
    return "–" if not curve else plain(curve[-1][1])


def _sheets(runs: Sequence[Run]) -> Iterator[Sheets]:
    """The last sheet of each run; then those of steps at which at least two have one."""
    room = float(PICTURES)
    steps = sorted(step for step in set().union(*(run.sheets for run in runs)) if _at(runs, step) > 1)
    chosen = [steps[(2 * i + 1) * len(steps) // (2 * ON_THE_WAY)] for i in range(min(ON_THE_WAY, len(steps)))]
    for step in (None, *dict.fromkeys(chosen)):
        shown: list[tuple[Run, int, Picture]] = []
        for run in runs:
            at = max(run.sheets, default=None) if step is None else step
            if at is None or at not in run.sheets:
                continue
            found = picture(run.folder, run.sheets[at])
            room -= len(found.uri or "")
            if room < 0:
                found = Picture(uri=None, reason="left out: the page has no room for more images")
            shown.append((run, at, found))
        if shown:
            yield Sheets("The last of each run" if step is None else f"At step {step}", shown)


def _at(runs: Sequence[Run], step: int) -> int:
    return sum(step in run.sheets for run in runs)
