"""Which metrics can't be measured on two sides, found before anything is drawn or extracted for them; and of which
the images were too few for the number to mean much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.evaluation.choice import ANY
from zoo.evaluation.extractors.features import Features
from zoo.evaluation.inputs.references import truth_of
from zoo.evaluation.inputs.sources import Source
from zoo.evaluation.metrics.pairs import LAYER as PAIRS
from zoo.evaluation.selection import Absent, Job, Plan
from zoo.schema.errors import UsageError

FEW = 50  # images of a side, under which no value of sets means much


def refused(job: Job, made: Plan, generated: Source, reference: Source | None, count: int) -> bool:
    """Why a metric can't be measured on these sides, found before anything is extracted."""
    extractor, fewest = made.extractors[job.extractor], int(getattr(job.metric, "fewest", 1))
    small = getattr(job.metric, "smaller", None)
    mend = "give more" if small is None else f"give more, or a smaller `{small}` of {job.name} (it is part of the key)"
    why = None
    if getattr(job.metric, "of", ANY) == PAIRS:
        why = _no_pairs(generated, reference)
    elif generated.statistics is not None and generated.count == 0:
        why = f"'{generated.name}' doesn't say of how many pictures it is, and every value has its N; give the pictures"
    elif job.metric.paired and reference is None:
        why = "it compares two sets of pictures; give a second one"
    elif generated.pictures is not None and count < fewest:
        why = f"it needs {fewest} pictures of each set, and {count} of '{generated.name}' are measured at once; {mend}"
    elif job.metric.paired and reference is not None and reference.pictures is not None and reference.count < fewest:
        why = f"it needs {fewest} pictures of each set, and '{reference.name}' has {reference.count}; {mend}"
    elif needs_captions(job) and generated.rows is None:
        why = f"it needs what the pictures of '{generated.name}' were asked to show; give metadata.jsonl beside them"
    elif getattr(job.metric, "judged", False) and not _has_concepts(generated):
        why = (
            f"it needs rows with 'concept', 'name' and 'text' and five concepts or more, and those of "
            f"'{generated.name}' have not all of that"
        )
    else:
        for source in (generated, reference if job.metric.paired else None):
            if source is not None and source.pictures is None:
                why = why or _unfit(source, job, extractor)
    if why is not None:
        made.absent.append(Absent(metric=job.name, why=why))
    return why is not None


def doubts(jobs: Sequence[Job], seen: Sequence[Sequence[Features | None]], counts: Sequence[int]) -> list[str]:
    """A sentence for each metric of sets that was measured on too few images.

    Args:
        seen: of each side, its features by extractor. counts: images a side, of one value.
    """
    said: list[str] = []
    for job in jobs:
        if not job.metric.paired or getattr(job.metric, "of", ANY) == PAIRS or len(counts) < 2:
            continue
        n, layer = min(counts), job.metric.layers[0]
        features = seen[0][job.extractor]
        moments = {} if features is None else features.moments
        width = len(moments[layer].mean) if getattr(job.metric, "statistics", False) and layer in moments else 0
        if n <= width:
            said.append(
                f"'{job.name}' of {n} images says little: a covariance of {width} features needs more images than "
                f"features, {10 * width:,} or so for a number to quote; kid is unbiased with fewer"
            )
        elif n < FEW:
            said.append(
                f"'{job.name}' of {n} images says little: other images may give another value; take {FEW} or more"
            )
    return said


def _no_pairs(generated: Source, reference: Source | None) -> str | None:
    """Why images have no references."""
    try:
        truth_of(generated, reference)
    except UsageError as error:
        return str(error)
    return None


def _unfit(source: Source, job: Job, extractor: Any) -> str | None:
    """Why statistics don't serve a metric."""
    found = source.statistics
    assert found is not None
    if (found.extractor, found.sha256) != (extractor.name, extractor.sha256):
        return (
            f"the statistics '{source.name}' are of {found.extractor}@{found.sha256[:8]}, and this is of "
            f"{extractor.name}@{extractor.sha256[:8]}; give those of one extractor"
        )
    lacking = sorted(set(job.metric.layers) - set(found.moments))
    if lacking:
        return f"the statistics '{source.name}' have no layer '{lacking[0]}'; make them again with this metric"
    if not getattr(job.metric, "statistics", False) and not found.arrays:
        return f"it needs features, and '{source.name}' holds statistics; give the pictures"
    return None


def needs_captions(job: Job) -> bool:
    """Whether a metric needs the captions or rows that images were drawn for."""
    return bool(getattr(job.metric, "captions", False))


def _has_concepts(source: Source) -> bool:
    rows = [*source.every, *(source.rows or ())]
    whole = all(isinstance(r.get(k), str) for r in rows for k in ("concept", "name", "text"))
    return whole and len({r["concept"] for r in source.every}) >= 5
