"""Published values against one's own: the card's protocol, a user's weights and reference, and a verdict.

| verdict | means |
|---|---|
| agrees | no further from the published value than its tolerance |
| differs | further, better or worse |
| not comparable | measured, but not by the published protocol (another N, split, or key) |
| unavailable | something that it needs isn't there |

What is published stands in `zoo.evaluation.published`, what measuring it takes in `zoo.evaluation.requirements`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.config.published import Published
from zoo.evaluation.comparison import Evaluation, Value, evaluate
from zoo.evaluation.processes import started
from zoo.evaluation.published import Claim, claims, of_split
from zoo.evaluation.requirements import SCHEMA
from zoo.evaluation.shared_pass import Watch
from zoo.evaluation.weights import measure_weights
from zoo.schema.advice import option
from zoo.schema.errors import UsageError, WeightsError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A claim and its outcome."""

    pipeline: str  # or the weights that were measured by themselves
    published: Published
    verdict: str  # agrees, differs, not comparable, unavailable
    own: float | None = None
    error: float | None = None
    key: str | None = None
    why: str = ""
    beside: Mapping[str, float] = field(default_factory=dict)  # what else the metric returned: floors, other shares

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}


def reproduce(
    name: str, *, reference: Any = None, data: Any = None, protocol: str | None = None, n: int | None = None,
    device: Any = None, dtype: Any = None, batch_size: int | None = None, features: str | Path | None = None,
    forget: bool = False, watch: Watch | None = None,
) -> list[Outcome] | None:  # fmt: skip
    """Measure every claim of a pipeline or of weights by its own protocol.

    Args:
        reference: what the images are compared with; statistics, images, or `data` if not given.
        data: a dataset with the captions or labels that are drawn. protocol: of statistics files without one.
        n: fewer images than were published, to try; then nothing is comparable. features, forget: as `evaluate`'s.

    Returns None in all processes but the first, under torchrun.
    """
    return measure(
        claims(name), reference=reference, data=data, protocol=protocol, n=n, device=device, dtype=dtype,
        batch_size=batch_size, features=features, forget=forget, watch=watch,
    )  # fmt: skip


def measure(
    found_claims: Sequence[Claim], *, reference: Any = None, data: Any = None, protocol: str | None = None,
    n: int | None = None, device: Any = None, dtype: Any = None, batch_size: int | None = None,
    features: str | Path | None = None, forget: bool = False, watch: Watch | None = None,
) -> list[Outcome] | None:  # fmt: skip
    """The outcome of every claim; arguments as `reproduce`'s. Images that several are of are drawn once."""
    outcomes: dict[int, Outcome] = {}
    groups: dict[str, list[int]] = {}  # of one drawing and one extractor, measured at once
    for i, claim in enumerate(found_claims):
        groups.setdefault(claim.pictures + repr(claim.extractor), []).append(i)
    with started() as processes:
        for group in groups.values():
            first = found_claims[group[0]]
            p, metrics = first.published, [found_claims[i].metric for i in group]
            told, compared = (None if x is None else of_split(x, p.split) for x in (data, reference))
            compared = told if reference is None else compared
            try:
                if first.weights:
                    found = None
                    if processes.rank == 0:
                        found = _of_weights(first, compared, n=n, device=device)
                else:
                    found = evaluate(
                        first.pipeline, compared, metrics=[m for k, m in enumerate(metrics) if m not in metrics[:k]],
                        extractors=[first.extractor], n=n or p.n, ranges=p.ranges, protocol=protocol, seed=p.seed,
                        captions=told if reference is not None else None, batch_size=batch_size, device=device,
                        dtype=dtype, features=features, forget=forget, watch=watch, **first.chosen,
                    )  # fmt: skip
            except WeightsError as error:  # missing or damaged: the other claims may stand
                for i in group:
                    claim = found_claims[i]
                    outcomes[i] = Outcome(
                        pipeline=claim.name, published=claim.published, verdict="unavailable", why=str(error)
                    )
                continue
            if found is not None:
                outcomes |= {i: judge(found_claims[i], found) for i in group}
        return None if processes.rank > 0 else [outcomes[i] for i in range(len(found_claims))]


def _of_weights(claim: Claim, data: Any, *, n: int | None, device: Any) -> Evaluation:
    """Weights measured without a pipeline, as an evaluation."""
    if data is None:
        raise UsageError(
            f"'{claim.weights}' is measured on pictures; give them as {option('data')}", code="data-missing"
        )
    p = claim.published
    values = measure_weights(claim.weights, data, n=n or p.n, seed=p.seed, device=device)
    split = None if Path(str(data)).exists() else str(data).rpartition(":")[2]
    facts = {"weights": claim.weights, "captions": {"split": split}}
    return Evaluation(
        generated=facts, reference=None, extractors=[], values=values, absent=[], warnings=[], settings={}
    )


def judge(claim: Claim, found: Evaluation) -> Outcome:
    """The verdict on a claim."""
    p = claim.published
    value = next((v for v in found.values if _front(v) == p.metric), None)
    if value is None:
        absent = next((a for a in found.absent if a.metric == p.measured_by), None)
        why = str(absent) if absent is not None else f"{p.measured_by} gave no value called '{p.metric}'"
        return Outcome(pipeline=claim.name, published=p, verdict="unavailable", why=why)
    verdict, why = "differs", _not_comparable(p, found, value)
    if why:
        verdict = "not comparable"
    elif abs(value.value - p.value) <= p.tolerance:
        verdict = "agrees"
    beside = {v.key: v.value for v in found.values if v.metric == value.metric and v.key != value.key}
    return Outcome(
        pipeline=claim.name, published=p, verdict=verdict, own=value.value, error=value.error, key=value.key,
        why=why, beside=beside,
    )  # fmt: skip


def _not_comparable(p: Published, found: Evaluation, value: Value) -> str:
    """What differs between the published protocol and this one; empty if nothing does."""
    if value.count != p.n:
        return f"N is {value.count} where {p.n} was published"
    for side in (found.reference or {}, found.generated.get("captions") or {}):
        if p.split is not None and side.get("split") not in (None, p.split):
            return f"the split is '{side['split']}' where '{p.split}' was published"
    if p.key is not None and value.key != p.key:
        return f"the key is {value.key} where {p.key} was published"
    return ""


def _front(value: Value) -> str:
    """`precision` of `precision[...]@50000`, `fid-tf1` of `fid-tf1@50000`."""
    return value.key.partition("[")[0].partition("@")[0]
