"""Training runs, read from their folders: settings, curves, seconds and sample sheets.

A run's folder is what `zoo train` writes: run.json (the recipe, written out), scalars.csv, samples/step-N.png and
checkpoints. A run that is still going, or was ended, is read as far as it came. Folders are untrusted: see `pictures`
for images, `page` for text.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.records.benchmark_record import as_text, read_file
from zoo.schema.errors import UsageError
from zoo.schema.files import lines_of

RUN = "zoo.run/1"
LONGEST_LINE, MOST_LINES = 4096, 500_000  # of a file of scalars: bytes, and lines, a value each
MOST_CURVES = 300  # of a run; each is a picture in the page
UNDECIDED = 10**9  # steps that a run which fits a time begins with
_STEP = re.compile(r"[0-9]{1,18}")
SHEET = re.compile(r"step-(\d{1,12})\.png")
SAVED = re.compile(r"step-\d{1,12}")
_UNSAID = ("name", "summary", "card", "schema")  # of a recipe: what it is called, and not how it trains


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Args:
        settings: every key of its recipe by its path (`train.batch_size`), and the data's hash, device and versions.
        curves: by a scalar's name its values (step, value), in their order.
        step, steps: how far it came, and is to come. seconds: of training, over all sittings; None before a checkpoint.
        fits: the seconds that it is to fit, which set its steps; None where the recipe does. stopped: early, since its
        validation got no better.
        sheets: the sample sheets by step; prompts: of their images, where the recipe names them.
    """

    folder: Path
    name: str
    settings: Mapping[str, str]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    step: int
    steps: int | None
    seconds: float | None
    fits: float | None
    stopped: bool
    sheets: Mapping[int, str]
    prompts: Sequence[str]

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.stopped or (self.steps is not None and self.step >= self.steps)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The runs among some paths and right within them; UsageError where only some of the paths are runs."""
    found: dict[Path, list[Path]] = {}
    for path in paths:
        inner = sorted(p for p in path.iterdir() if _is_run(p)) if path.is_dir() else []
        found[path] = [path] if _is_run(path) else inner
    if not any(found.values()):
        return []
    other = next((path for path, runs in found.items() if not runs), None)
    if other is not None:
        raise UsageError(
            f"'{other}' is no training run (it has no run.json), and others are; report on them apart",
            code="benchmark-record-missing",
        )
    return list(dict.fromkeys(run for runs in found.values() for run in runs))


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file()


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of some folders, in that order, each with a name of its own."""
    names = [folder.absolute().name for folder in folders]
    called = [str(f) if names.count(name) > 1 else name for f, name in zip(folders, names, strict=True)]
    return [read_run(folder, name) for folder, name in zip(folders, called, strict=True)]


def read_run(folder: Path, name: str) -> Run:
    """One run; a UsageError names the file that can't be read."""
    record = read_file(folder / "run.json", (RUN,))
    recipe = _mapping(record.get("recipe"))
    sittings = record.get("sittings")
    last = _mapping(sittings[-1]) if isinstance(sittings, list) and sittings else {}
    # A later sitting may have other settings of the engine; the newest are what the run has now.
    settings = _flat({k: v for k, v in recipe.items() if k not in _UNSAID} | {"train": last.get("train") or {}})
    settings |= {
        "data, SHA-256": as_text(_mapping(last.get("data") or record.get("data")).get("sha256") or "unknown")[:12],
        "first weights, SHA-256": as_text(record.get("first_weights") or "unknown")[:12],
        "device": as_text(last.get("device") or "unknown"),
        **{f"version of {k}": as_text(v) for k, v in _mapping(last.get("versions")).items()},
    }
    curves = _curves(folder / "scalars.csv")
    train = _mapping(last.get("train"))
    saved_step, state = _saved(folder / "checkpoints")
    fits = _number(train.get("seconds")) or None
    patience, since = _whole(train.get("patience")), _whole(_mapping(state.get("stopping")).get("since"))
    logged = max((points[-1][0] for points in curves.values()), default=0)
    prompts = _mapping(recipe.get("objective")).get("sheet_prompts")
    return Run(
        folder=folder, name=name, settings=settings, curves=curves, step=max(saved_step, logged),
        steps=_whole(train.get("steps")) if fits is None else _fitted(_mapping(state.get("fitting")), fits),
        seconds=_number(state.get("seconds")), fits=fits,
        stopped=bool(patience) and (since or 0) >= (patience or 0), sheets=_sheets(folder / "samples"),
        prompts=[as_text(one) for one in prompts] if isinstance(prompts, list) else [],
    )  # fmt: skip


def _fitted(fitting: Mapping[str, Any], fits: float) -> int | None:
    """The steps that a run which fits a time has decided on; None where it hasn't, or was given more time since."""
    steps = _whole(_mapping(fitting.get("decided")).get("steps"))
    before = _number(fitting.get("seconds"))
    return steps if steps and steps < UNDECIDED and (before is None or fits <= before) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    # A JSON of 400 digits is a whole number that is no float.
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18
    return float(value) if known else None


def different(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The settings that runs don't share, with each run's; one that it doesn't have is "–"."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = [(key, [run.settings.get(key, "–") for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, inner in value.items():
        place = f"{path}.{key}" if path else str(key)
        if isinstance(inner, Mapping) and inner:
            found |= _flat(inner, place)
        else:
            found[place] = as_text(inner) if not isinstance(inner, (list, tuple)) else str(inner)
    return found


def _curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[int, float]]] = {}
    for number, line in enumerate(lines_of(path, LONGEST_LINE)):
        if number > MOST_LINES:
            raise UsageError(
                f"'{path}' has over {MOST_LINES} lines; report on a shorter run, or one that logs less often",
                code="file-too-large",
            )
        try:
            row = next(csv.reader([line.decode("utf-8", errors="replace")]))
        except csv.Error:  # a carriage return within
            continue
        if len(row) != 3 or not _STEP.fullmatch(row[0]):  # the heading
            continue
        try:
            value = float(row[2])
        except ValueError:
            continue
        if math.isfinite(value):
            found.setdefault(row[1], []).append((int(row[0]), value))
        if len(found) > MOST_CURVES:
            raise UsageError(
                f"'{path}' has values of over {MOST_CURVES} names; a run logs some tens", code="file-too-large"
            )
    return {name: sorted(points, key=lambda p: p[0]) for name, points in found.items()}


def _saved(folder: Path) -> tuple[int, Mapping[str, Any]]:
    """Step and state of the newest checkpoint whose manifest can be read; 0 and nothing where none can."""
    kept = (
        sorted((p for p in folder.glob("step-*") if SAVED.fullmatch(p.name)), reverse=True) if folder.is_dir() else []
    )
    for place in kept:
        try:
            manifest = read_file(place / "manifest.json", ("zoo.checkpoint/2",))
        except UsageError:
            continue
        return _whole(manifest.get("step")) or 0, _mapping(manifest.get("state"))
    return 0, {}


def _sheets(folder: Path) -> dict[int, str]:
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    found = {int(match[1]): f"samples/{name}" for name in names if (match := SHEET.fullmatch(name))}
    return dict(sorted(found.items()))
