"""Published values against one's own: the card's protocol, a user's weights and reference, and a verdict.

| verdict | means |
|---|---|
| agrees | no further from the published value than its tolerance |
| differs | further, better or worse |
| not comparable | measured, but not by the published protocol (another N) |
| unavailable | something that it needs isn't there |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from zoo.config.cards import card_names, read_card
from zoo.config.check import resolve
from zoo.config.presets import preset_names, read_preset
from zoo.config.published import Published, read_published
from zoo.config.unknown import unknown
from zoo.errors import UsageError, WeightsError, ZooError
from zoo.evaluation.asked import EVALUATOR, build, metric_of
from zoo.evaluation.comparison import Evaluation, Value, evaluate
from zoo.evaluation.drawn import evaluations_of
from zoo.evaluation.inception import NAME as INCEPTION
from zoo.evaluation.processes import own_device, started
from zoo.evaluation.sources import open_source
from zoo.evaluation.together import Watch
from zoo.pipeline import Pipeline
from zoo.registry import registry
from zoo.request import hears

SCHEMA = "zoo.reproduction/1"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published value and the pipeline that it is of."""

    pipeline: str
    published: Published

    @property
    def metric(self) -> dict[str, Any]:
        """The metric as a block."""
        return {"name": self.published.measured_by, **self.published.settings}

    @property
    def extractor(self) -> Any:
        """The extractor that was named, or else the metric's own: never what happens to be there."""
        if self.published.extractor is not None:
            return self.published.extractor
        if self.published.metric == "fid-clean":
            return {"name": INCEPTION, "resize": "clean"}
        return EVALUATOR if getattr(metric_of(self.metric), "of", "any") == "clip" else INCEPTION

    @property
    def chosen(self) -> dict[str, Any]:
        """What it changes of the pipeline's config."""
        said = {key: getattr(self.published, key) for key in ("sampler", "steps", "guidance")}
        return {key: value for key, value in said.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A claim and what became of it."""

    pipeline: str
    published: Published
    verdict: str  # agrees, differs, not comparable, unavailable
    own: float | None = None
    error: float | None = None
    key: str | None = None
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Need:
    """What reproducing a claim takes; nothing of it was run but a few timed steps."""

    pipeline: str
    published: Published
    weights: Sequence[Mapping[str, Any]]  # name, bytes, there, lacking
    extractor: str  # its name and hash, or what it needs
    reference: str
    images: int
    evaluations: int | None  # of the denoisers, of all images; None if weights are missing
    seconds: float | None  # of drawing them on this device, extrapolated; None if unknown

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}


def claims(name: str) -> list[Claim]:
    """What is published for a pipeline (its own and its denoisers' cards'), or on a card; UsageError if nothing is."""
    if name in card_names():
        card = read_card(name)
        found = [Claim(pipeline=p.pipeline or "", published=p) for p in card.published]
        if any(not c.pipeline for c in found):
            raise UsageError(f"card '{name}' publishes a value and names no pipeline for it; ask for the pipeline's")
    elif name in preset_names() or name.endswith((".yaml", ".yml", ".json")):
        config, source = read_preset(Path(name) if name not in preset_names() else name)
        found = [Claim(pipeline=name, published=p) for p in read_published(config.get("published"), source)]
        own = str(config.get("name"))
        for stage in config.get("stages") or ():
            block = stage.get("denoiser") if isinstance(stage, Mapping) else None
            if isinstance(block, Mapping) and isinstance(block.get("weights"), str):
                of_card = read_card(block["weights"]).published
                found += [Claim(pipeline=name, published=p) for p in of_card if p.pipeline in (None, own)]
    else:
        raise UsageError(unknown("pipeline or weights", name, [*preset_names(), *card_names()]))
    if not found:
        raise UsageError(f"'{name}' publishes no value; see docs/cards.md for what `published:` holds")
    return found


def reproduce(
    name: str, *, reference: Any = None, data: Any = None, protocol: str | None = None, n: int | None = None,
    device: Any = None, dtype: Any = None, batch_size: int | None = None, features: str | Path | None = None,
    forget: bool = False, watch: Watch | None = None,
) -> list[Outcome] | None:  # fmt: skip
    """Measure every claim by its own protocol.

    Args:
        reference: what the pictures are compared with; statistics, pictures, or `data` if not given.
        data: a dataset with the captions or labels that are drawn. protocol: of statistics that don't say.
        n: fewer pictures than were published, to try; then nothing is comparable. features, forget: as `evaluate`'s.

    Returns None in all processes but the first, under torchrun.
    """
    outcomes: dict[int, Outcome] = {}
    found_claims, compared = claims(name), data if reference is None else reference
    groups: dict[str, list[int]] = {}  # of one drawing and one extractor, measured at once
    for i, claim in enumerate(found_claims):
        p = claim.published
        groups.setdefault(repr((p.n, p.ranges, p.seed, claim.chosen, claim.extractor)), []).append(i)
    with started() as processes:
        for group in groups.values():
            first = found_claims[group[0]]
            p, metrics = first.published, [found_claims[i].metric for i in group]
            try:
                found = evaluate(
                    first.pipeline, compared, metrics=[m for k, m in enumerate(metrics) if m not in metrics[:k]],
                    extractors=[first.extractor], n=n or p.n, ranges=p.ranges, protocol=protocol, seed=p.seed,
                    captions=data if reference is not None else None, batch_size=batch_size, device=device,
                    dtype=dtype, features=features, forget=forget, watch=watch, **first.chosen,
                )  # fmt: skip
            except WeightsError as error:  # missing or damaged: the other claims may stand
                for i in group:
                    claim = found_claims[i]
                    outcomes[i] = Outcome(
                        pipeline=claim.pipeline, published=claim.published, verdict="unavailable", why=str(error)
                    )
                continue
            if found is not None:
                outcomes |= {i: judge(found_claims[i], found) for i in group}
        return None if processes.rank > 0 else [outcomes[i] for i in range(len(found_claims))]


def judge(claim: Claim, found: Evaluation) -> Outcome:
    """The verdict on a claim."""
    p = claim.published
    value = next((v for v in found.values if _front(v) == p.metric), None)
    if value is None:
        absent = next((a for a in found.absent if a.metric == p.measured_by), None)
        why = str(absent) if absent is not None else f"{p.measured_by} gave no value called '{p.metric}'"
        return Outcome(pipeline=claim.pipeline, published=p, verdict="unavailable", why=why)
    verdict, why = "differs", ""
    if value.count != p.n:
        verdict, why = "not comparable", f"N is {value.count} where {p.n} was published"
    elif abs(value.value - p.value) <= p.tolerance:
        verdict = "agrees"
    return Outcome(
        pipeline=claim.pipeline, published=p, verdict=verdict, own=value.value, error=value.error, key=value.key,
        why=why,
    )  # fmt: skip


def _front(value: Value) -> str:
    """`precision` of `precision[...]@50000`, `fid-tf1` of `fid-tf1@50000`."""
    return value.key.partition("[")[0].partition("@")[0]


def needs(
    name: str, *, reference: Any = None, data: Any = None, protocol: str | None = None, device: Any = None,
    dtype: Any = None, batch_size: int = 8,
) -> list[Need]:  # fmt: skip
    """What every claim takes: weights, extractor, reference, pictures, network evaluations, time."""
    place = own_device(device)
    compared = data if reference is None else reference
    return [_need(claim, compared, protocol, place, dtype, batch_size) for claim in claims(name)]


def _need(
    claim: Claim, reference: Any, protocol: str | None, device: torch.device, dtype: Any, batch_size: int
) -> Need:
    p = claim.published
    images = p.n * p.ranges
    weights = _weights(claim.pipeline)
    evaluations = seconds = None
    if all(w["there"] for w in weights):
        import zoo

        pipe = zoo.build(_config(claim.pipeline), device=device, dtype=dtype, **claim.chosen)
        evaluations = images * evaluations_of(pipe)
        seconds = seconds_of(pipe, evaluations, images, batch_size=min(batch_size, images))
    return Need(
        pipeline=claim.pipeline, published=p, weights=weights, extractor=_extractor(claim, device),
        reference=_reference(reference, protocol), images=images, evaluations=evaluations, seconds=seconds,
    )  # fmt: skip


def _config(name: str) -> str | Path:
    return Path(name) if name.endswith((".yaml", ".yml", ".json")) else name


def _weights(pipeline: str) -> list[dict[str, Any]]:
    """Every weight file of a pipeline, and whether it is there and as large as its card says."""
    config, _ = read_preset(_config(pipeline))
    blocks = [*(config.get("conditioners") or {}).values()]
    for stage in config["stages"]:
        blocks += [stage.get("denoiser"), stage.get("autoencoder")]
    names = [b["weights"] for b in blocks if isinstance(b, Mapping) and "weights" in b]
    found = []
    for name in dict.fromkeys(names):
        card = read_card(name)
        size = card.file.stat().st_size if card.file.is_file() else None
        found.append({
            "name": card.name, "file": card.file.name, "bytes": card.bytes, "sha256": card.sha256,
            "there": size == card.bytes,
        })  # fmt: skip
    if all(f["there"] for f in found):
        resolve(_config(pipeline))  # all else that can be wrong with the pipeline
    return found


def _extractor(claim: Claim, device: torch.device) -> str:
    """Its name and hash, or the sentence that says what is missing."""
    try:
        found = build(claim.extractor, registry(), device)
    except ZooError as error:
        return str(error)
    return f"{found.name}@{found.sha256[:8]}, there"


def _reference(reference: Any, protocol: str | None) -> str:
    if reference is None:
        return "none was given: the data with captions, or reference statistics, of the published protocol"
    try:
        source = open_source(reference, protocol=protocol)
    except ZooError as error:
        return str(error)
    return f"'{source.name}' with {source.count or 'an unknown number of'} pictures, there"


def seconds_of(pipe: Pipeline, evaluations: int, images: int, *, batch_size: int) -> float | None:
    """How long drawing takes: a line through two short runs, one step and three; None where they can't be run."""
    asked: dict[str, Any] = {"n": batch_size}
    stage = pipe.stages[0]
    if any(hears(c) == "labels" for c in pipe.conditioners.values()):
        asked["labels"] = 0
    if stage.enlarges:
        asked["image"] = torch.full((3, stage.small_size or stage.size, stage.small_size or stage.size), 0.5)
    points: list[tuple[int, float]] = []
    try:
        for steps in (1, 1, 3):  # the first warms up
            begun = perf_counter()
            made = pipe(**asked, steps=steps, batch_size=batch_size)
            asked_of = sum(int(s["evaluations"]) for s in made.record["stages"])
            points.append((asked_of, perf_counter() - begun))
    except ZooError:  # a sampler whose table can't be so short, a network that gives NaN
        return None
    (few, short), (many, long) = points[1:]
    if many <= few:
        return None
    slope = max(0.0, (long - short) / (many - few))
    rest = max(0.0, short - slope * few)
    return images / batch_size * rest + slope * evaluations / batch_size
