"""Two sets of images, or a pipeline and real ones -> every requested value, with its N and its error.

    found = evaluate("latent-text2img", "emoji.zip:test", metrics=["fd", "prdc", "clip"], n=500)
    for value in found.values:
        print(value.key, value.value, value.error)

Images go straight to features, each seen once by all extractors; features are kept by shards, so a run that was
killed goes on from there, and under torchrun every process fills its own shards (`features` names the folder).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.acceleration.device import requested
from zoo.data.image_sets import FolderPictures, SomePictures
from zoo.evaluation.extractors.features import BATCH, KEEP, Features
from zoo.evaluation.extractors.statistics_file import save_statistics as write_statistics
from zoo.evaluation.inputs.references import truth_of
from zoo.evaluation.inputs.sources import Drawing, Source, kind_of, open_source, some_of
from zoo.evaluation.measurement import part, with_texts
from zoo.evaluation.metrics.hit_score import Judge
from zoo.evaluation.metrics.pairs import Pairs
from zoo.evaluation.processes import Processes, own_device, started
from zoo.evaluation.refusals import doubts, needs_captions, refused
from zoo.evaluation.selection import Absent, Asked, Job, Plan, alone, plan
from zoo.evaluation.shared_pass import Run, Watch
from zoo.evaluation.shown import COLUMNS, deviation, explained
from zoo.images.display import table_html
from zoo.schema.advice import option
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.notes import preformatted
from zoo.schema.places import check_place
from zoo.schema.registry import registry
from zoo.schema.version import __version__

SCHEMA = "zoo.evaluation/1"
FEWEST_EXTRAPOLATED = 20  # images
LARGEST = 10**9  # images, and ranges of them
PARTS = 3  # disjoint parts of a single range that its error bar is over


@dataclass(frozen=True, kw_only=True)
class Value:
    """A number under its key. `error` is the standard deviation between `ranges` disjoint sets of `range_count`."""

    metric: str
    key: str
    value: float
    count: int  # N: generated images that one value is of
    error: float | None = None
    ranges: int | None = None
    range_count: int | None = None
    values: tuple[float, ...] = ()  # of each range
    better: str | None = None  # "lower" or "higher", where the metric declares it


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured, what wasn't, and why."""

    generated: Mapping[str, Any]
    reference: Mapping[str, Any] | None
    extractors: Sequence[Mapping[str, str]]
    values: Sequence[Value]
    absent: Sequence[Absent]
    warnings: Sequence[str]
    settings: Mapping[str, Any]
    statistics: str | None = None  # the file that was written
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 where anything was measured or written; else 2 if a request was wrong, 1 if only weights are missing."""
        if self.values or self.statistics:
            return 0
        return 2 if any(a.meanwhile is None for a in self.absent) else 1

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """The values for people: the key, the value, and its standard deviation between how many sets."""
        return [(v.key, f"{v.value:.6g}", deviation(v.error, v.ranges, v.range_count)) for v in self.values]

    @property
    def reading(self) -> str:
        """Which values are better, and what those beside a distance are, in a line."""
        return explained((v.key, v.better) for v in self.values)

    def _said(self) -> str:
        warned = [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(filter(None, [*map(str, self.absent), self.reading, *warned, self.statistics]))

    def __repr__(self) -> str:
        return "\n".join([*("  ".join(row) for row in self.rows), self._said()])

    def _repr_html_(self) -> str:
        return (table_html(COLUMNS, self.rows, "") if self.values else "") + preformatted(self._said())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"schema": SCHEMA, **asdict(self), "versions": {"zoo": __version__, "torch": torch.__version__}}


def evaluate(
    a: Any, b: Any = None, *, metrics: Sequence[Asked] | None = None, extractors: Sequence[Any] = (),
    n: int | None = None, ranges: int = 1, split: str | None = None, captions: Any = None, seed: int = 0,
    size: int | None = None, background: str | None = None, protocol: str | None = None, overrides: Any = None,
    sampler: str | None = None, steps: int | None = None, guidance: float | None = None,
    batch_size: int | None = None, device: Any = None, dtype: Any = None,
    features: str | Path | None = None, forget: bool = False, batch: int = BATCH, keep: int = KEEP,
    save_statistics: str | Path | None = None, watch: Watch | None = None,
) -> Evaluation | None:  # fmt: skip
    """Measure `a` (generated) against `b` (real): folders, zips, splits, statistics, pipelines, images.

    Args:
        metrics, extractors: names, blocks or objects; see `zoo.evaluation.selection` for which goes with which. Without
            metrics the default one, a Fréchet distance; with an empty list none.
        n: images of `a` that a value is of; all of a folder, and as many as `b` has of a pipeline, if not given.
        ranges: disjoint ranges of n images, of consecutive samples where they are drawn; values are their mean.
        split: of `b`. captions: a dataset that says what to draw, where `b` isn't one.
        size: pixels a side that folders' images are made; those of a pipeline's reference are made its size.
        background: "white" for transparent images. protocol: of statistics files without one.
        overrides, sampler, steps, guidance: of the pipeline's config. seed, batch_size, dtype: of the drawing.
        device: of all networks.
        features: the folder in which features are kept and found again; `forget` removes them once all is measured.
        batch: images an extractor sees in one call.
        save_statistics: write those of `b` (of `a`, without a `b`) here.

    Returns None in all processes but the first, where torchrun started several.
    """
    begun = time.perf_counter()
    if save_statistics is not None:
        check_place(save_statistics)
    place = own_device(device)
    if not (1 <= ranges <= LARGEST and (n is None or 1 <= n <= LARGEST) and batch >= 1):
        raise UsageError(
            f"{ranges} ranges of {n} pictures can't be measured; give 1 to {LARGEST} of each", code="count-out-of-range"
        )
    drawing = Drawing(
        seed=seed, overrides=overrides, sampler=sampler, steps=steps, guidance=guidance, batch_size=batch_size,
        device=place, dtype=dtype,
    )  # fmt: skip
    with started() as processes:
        if processes.world > 1 and features is None:
            raise UsageError(
                f"several processes meet in a folder; give one that all of them see as {option('features')}",
                code="features-folder-missing",
            )
        kinds = [kind_of(side) for side in (a, b) if side is not None]
        pipes = [side for side, kind in zip((a, b), kinds, strict=False) if kind == "pipeline"]
        drawn_size = drawing.size(pipes[0]) if pipes else None
        default = [registry().default("metric")]
        made = plan(metrics or default, extractors, device=place)
        if metrics is not None and not metrics:  # statistics alone
            made.jobs.clear()
        saving = save_statistics is not None
        if saving and not made.extractors and made.absent:
            raise WeightsError(str(made.absent[0]), code="extractor-unavailable")
        seeing = [i for i, e in enumerate(made.extractors) if not isinstance(e, Pairs)]
        if saving and len(seeing) != 1:
            raise UsageError(
                f"statistics are of one extractor and here are {len(seeing)}; name one", code="extractor-ambiguous"
            )
        how: dict[str, Any] = {"size": size or drawn_size, "background": background, "protocol": protocol}
        told = None if captions is None else open_source(captions, **how)
        if b is None:
            reference = None
        elif kinds[1] == "pipeline":
            reference = drawing.draw(b, told, None, n, 1)
        else:
            reference = open_source(b, split=split, **how)
        if kinds[0] == "pipeline":
            generated = drawing.draw(a, told or reference, reference, n, ranges)
        else:
            how["size"] = size
            generated = open_source(a, **how)
            if n is not None and generated.pictures is not None:
                generated = some_of(generated, n * ranges)
        count = _range_count(generated, n, ranges)
        made.jobs[:] = [job for job in made.jobs if not refused(job, made, generated, reference, count)]
        if made.jobs and not saving:
            made.drop_idle()
        if any(isinstance(made.extractors[job.extractor], Pairs) for job in made.jobs):
            truth, how_paired = truth_of(generated, reference)
            generated = replace(generated, truth=truth, facts={**generated.facts, "stand_for": how_paired})
        both = [side for side in (generated, reference) if side is not None]
        run = Run(
            plan=made, processes=processes, folder=None if features is None else Path(features), batch=batch,
            keep=keep, watch=watch, saving=saving,
        )  # fmt: skip
        needed = both if made.jobs else both[-1:] if saving else []
        for side in needed:  # of both, before either is drawn or read for minutes
            if isinstance(side.pictures, (FolderPictures, SomePictures)):
                side.pictures.look()
        for side in needed:
            run.fill(side)
        processes.wait()
        if processes.rank > 0:
            return None
        seen = {id(side): run.features(side) for side in needed}
        values: list[Value] = []
        for job in made.jobs:
            sides = [seen[id(side)][job.extractor] for side in both]
            values += _measure(
                job, made, generated, sides, ranges=ranges, count=count, consecutive=kinds[0] == "pipeline"
            )
        if made.jobs:
            sizes = [count, *([] if reference is None else [reference.count])]
            made.warnings += doubts(made.jobs, [seen[id(side)] for side in both], sizes)
        written = None
        if save_statistics is not None:
            written = _write(seen[id(both[-1])][seeing[0]], both[-1], save_statistics)
        for side in needed if forget else ():
            run.forget(side)
        return _evaluation(
            made, both, [seen[id(side)][0] if id(side) in seen else None for side in both], values,
            settings={
                "metrics": [job.name for job in made.jobs], "ranges": ranges, "n": count, "batch": batch,
                "device": str(place), **requested(device),
            }, processes=processes,
            statistics=written, seconds=time.perf_counter() - begun,
        )  # fmt: skip


def _write(features: Features | None, side: Source, path: str | Path) -> str:
    if features is None or side.pictures is None:
        raise UsageError(
            f"'{side.name}' is statistics already, and they are made from pictures; give the pictures",
            code="statistics-only",
        )
    return str(write_statistics(features, path))


def _evaluation(
    made: Plan, both: Sequence[Source], seen: Sequence[Features | None], values: Sequence[Value], *,
    settings: Mapping[str, Any], processes: Processes, statistics: str | None, seconds: float,
) -> Evaluation:  # fmt: skip
    facts = [_facts(side, features) for side, features in zip(both, seen, strict=True)]
    return Evaluation(
        generated=facts[0], reference=facts[1] if len(facts) > 1 else None,
        extractors=[{"name": e.name, "sha256": e.sha256} for e in made.extractors], values=values, absent=made.absent,
        warnings=[*made.warnings, *_warnings(both, seen)], settings={**settings, "world": processes.world},
        statistics=statistics, seconds=round(seconds, 3),
    )  # fmt: skip


def _range_count(source: Source, n: int | None, ranges: int) -> int:
    """N of one range."""
    if source.pictures is None:
        if ranges > 1:
            raise UsageError(
                f"'{source.name}' is statistics, which can't be split into ranges; give the pictures",
                code="statistics-only",
            )
        return source.count
    count = n if n is not None else source.count // ranges
    if count < 1:
        raise UsageError(
            f"'{source.name}' has {source.count} pictures and can't be split into {ranges} ranges",
            code="images-too-few",
        )
    return count


def _measure(
    job: Job, made: Plan, generated: Source, sides: Sequence[Features | None], *, ranges: int, count: int,
    consecutive: bool,
) -> list[Value]:  # fmt: skip
    """A metric's values; a refusal by the metric itself goes to `made.absent`."""
    ours, theirs = sides[0], sides[1] if len(sides) > 1 else None
    assert ours is not None
    try:
        if needs_captions(job):
            ours = _captioned(
                ours, made.extractors[job.extractor], generated, judged=getattr(job.metric, "judged", False)
            )
        metric = _within_reach(job.metric, ours, count)
        if ranges == 1:
            runs = [metric(ours, theirs)]
            third = count // PARTS
            enough = third >= int(getattr(metric, "fewest", 1)) and bool(ours.arrays)
            pieces = [range(i, third * PARTS, PARTS) for i in range(PARTS)] if enough else []
            errors = [alone(metric)(part(ours, piece), theirs) for piece in pieces]
        else:
            total = count * ranges
            cut = [range(i * count, (i + 1) * count) if consecutive else range(i, total, ranges) for i in range(ranges)]
            runs = errors = [metric(part(ours, piece), theirs) for piece in cut]
            third = count
    except UsageError as error:
        made.absent.append(Absent(metric=job.name, why=str(error)))
        return []
    better = getattr(job.metric, "better", None)
    return [replace(_value(job.name, key, runs, errors, third), better=better) for key in runs[0]]


def _within_reach(metric: Any, features: Features, count: int) -> Any:
    """The metric without an extrapolation, which needs more images than these, and features."""
    out = getattr(metric, "infinity", False) and (count < FEWEST_EXTRAPOLATED or not features.arrays)
    return replace(metric, infinity=False) if out else metric


def _value(
    name: str, key: str, runs: Sequence[Mapping[str, float]], errors: Sequence[Mapping[str, float]], size: int
) -> Value:
    values = tuple(float(run[key]) for run in runs)
    what = key.rpartition("@")[0]
    bar = [v for run in errors for k, v in run.items() if k.rpartition("@")[0] == what and "-deviation" not in k]
    told = len(bar) > 1 and "-floor" not in key  # of real images alone, and so the same beside every range
    return Value(
        metric=name, key=key, value=float(np.mean(values)), count=int(key.rpartition("@")[2]), values=values,
        error=float(np.std(bar, ddof=1)) if told else None, ranges=len(bar) if told else None,
        range_count=size if told else None,
    )  # fmt: skip


def _captioned(features: Features, clip: Any, source: Source, *, judged: bool) -> Features:
    """The features with the rows that the images were drawn for, if the metric needs them."""
    assert source.rows is not None
    if not hasattr(getattr(clip, "extractor", clip), "texts"):
        raise UsageError(f"extractor '{clip.name}' has no text tower; use a CLIP", code="text-tower-missing")
    if judged:
        return replace(features, asked=list(source.rows), judge=Judge(clip, source.every))
    return with_texts(features, clip, [str(row["text"]) for row in source.rows])


def _facts(source: Source, features: Features | None) -> dict[str, Any]:
    """A side for the record."""
    facts = dict(source.facts)
    if features is not None and source.pictures is not None:
        facts |= {"pictures_sha256": features.pictures_sha256, "sizes": dict(features.sizes),
                  "notes": dict(features.notes)}  # fmt: skip
    return facts


def _warnings(sides: Sequence[Source], seen: Sequence[Features | None]) -> list[str]:
    """Defaults that were chosen, and reasons to trust the numbers less."""
    said: list[str] = []
    for source, features in zip(sides, seen, strict=True):
        if features is None:
            continue
        notes = sorted(features.notes.items()) if source.pictures is not None else []
        said += [f"'{source.name}': {note} ({count})" for note, count in notes]
        if len(features.sizes) > 1:
            sizes = ", ".join(f"{count} of {size}" for size, count in sorted(features.sizes.items())[:4])
            said.append(
                f"'{source.name}' has pictures of {len(features.sizes)} sizes ({sizes}), each shown as it is; "
                f"{option('size')} makes them one size"
            )
    sizes = [next(iter(f.sizes)) for f in seen if f is not None and len(f.sizes) == 1]
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        said.append(
            f"pictures of {sizes[0]} are compared with pictures of {sizes[1]}; {option('size')} makes them one size"
        )
    return said
