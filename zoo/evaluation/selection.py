"""The request: metrics and extractors by name, and which metric is of which extractor's features.

A metric declares what it is of: the 2015 Inception, a CLIP, or pairs of images, whatever extractors were named; all
others are of any extractor, and are measured under each that was named. Where none was named that is the default
extractor (the 2015 Inception) if its weights are there, else the shipped evaluator, with a note. A metric whose
weights aren't there is listed with what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch

from zoo.config.blocks import check_block
from zoo.config.cards import card_names, read_card
from zoo.evaluation.choice import ANY, default_extractor, metric_block, served_by
from zoo.evaluation.extractors.extractor import MAIN, Named
from zoo.evaluation.extractors.weight_file import Unavailable
from zoo.evaluation.metrics.metrics import Metric
from zoo.evaluation.metrics.pairs import LAYER as PAIRS
from zoo.evaluation.metrics.pairs import Pairs
from zoo.evaluation.shown import asked_under
from zoo.schema.errors import UsageError
from zoo.schema.registry import Registry, registry
from zoo.schema.unknown import unknown

EVALUATOR = "emoji-evaluator"  # the extractor that ships with zoo
Asked = str | Mapping[str, Any] | Metric


@dataclass(frozen=True, kw_only=True)
class Job:
    """A metric and the extractor whose features it is of."""

    name: str
    metric: Metric
    extractor: int  # of `Plan.extractors`


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A metric that can't be measured here: why, what to use instead, and whether only weights are missing."""

    metric: str
    why: str
    meanwhile: str | None = None

    def __str__(self) -> str:
        word = "refused" if self.meanwhile is None else "unavailable"
        said = "" if self.meanwhile is None else f", meanwhile: {self.meanwhile}"
        return f"{self.metric}: {word}: {self.why}{said}"


@dataclass
class Plan:
    """What will be measured; `absent` what won't."""

    extractors: list[Any] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def layers(self, extractor: int) -> set[str]:
        """What is to be extracted by one of the extractors."""
        return {layer for job in self.jobs if job.extractor == extractor for layer in job.metric.layers} or {MAIN}

    def drop_idle(self) -> None:
        """Leave out extractors that no metric is measured by any more."""
        used = sorted({job.extractor for job in self.jobs})
        self.extractors = [self.extractors[i] for i in used]
        self.jobs = [replace(job, extractor=used.index(job.extractor)) for job in self.jobs]


def read_metric(asked: Asked, known: Registry) -> tuple[str, Metric, str | None]:
    """A metric's name, the metric, and the extractor in its name (`fd-resnet`), if any.

    Fréchet distances come with their floor, and extrapolated, unless a block says otherwise.
    """
    if not isinstance(asked, (str, Mapping)):
        return type(asked).__name__, asked, None
    block, under = metric_block(asked, known)
    return block["name"], with_all(metric_of(block), said=block), under


def metric_of(block: Mapping[str, Any]) -> Metric:
    """The metric of a checked block."""
    arguments = {key: value for key, value in block.items() if key != "name"}
    return registry().load("metric", block["name"])(**arguments)


def with_all(metric: Metric, *, said: Mapping[str, Any]) -> Metric:
    """The metric with floor, halves and extrapolation on, where the metric has them and the block doesn't set them."""
    return _switched(metric, True, said)


def alone(metric: Metric) -> Metric:
    """The metric without floor and extrapolation, for error bars."""
    return replace(_switched(metric, False, {}), floor=False) if hasattr(metric, "floor") else metric  # type: ignore[type-var]


def _switched(metric: Metric, on: bool, said: Mapping[str, Any]) -> Metric:
    if not is_dataclass(metric):
        return metric
    there = {f.name for f in fields(metric)} & {"halves", "infinity"}
    return replace(metric, **{name: on for name in there if name not in said})  # type: ignore[type-var]


def build(asked: Any, known: Registry, device: torch.device) -> Any:
    """An extractor by the name of its card or of its component, as a block, or as it is; on the device."""
    if hasattr(asked, "images"):
        return asked
    if isinstance(asked, str) and (asked in card_names() or asked.endswith((".yaml", ".yml"))):
        import zoo

        card = read_card(asked)
        if card.kind != "extractor":
            raise UsageError(
                f"the weights '{asked}' are of kind '{card.kind}' where an extractor is needed",
                code="weights-kind-wrong",
            )
        return Named(extractor=zoo.load(asked, device=device), name=card.name, sha256=card.sha256)
    name = asked if isinstance(asked, str) else str(asked.get("name"))
    if name not in known.names("extractor"):
        cards = [c for c in card_names() if read_card(c).kind == "extractor"]
        raise UsageError(unknown("extractor", name, [*known.names("extractor"), *cards]), code="component-unknown")
    block = check_block(asked, kind="extractor", where="extractor", registry=known)
    made = known.load("extractor", name)(**{k: v for k, v in block.items() if k != "name"})
    return made.to(device) if isinstance(made, torch.nn.Module) else made


def plan(metrics: Sequence[Asked], extractors: Sequence[Any], *, device: torch.device) -> Plan:
    """Build every extractor that is needed and there; wrong weights are refused here, missing ones listed."""
    known, made = registry(), Plan()
    asked = [read_metric(m, known) for m in metrics]
    builder = _Builder(made, known, device)
    named = [_name(e) for e in extractors]
    for name, metric, under in asked:
        of = getattr(metric, "of", ANY)
        fitting = [e for e in extractors if of == ANY or of in served_by(e, known)]
        wanted = fitting if under is None else [e for e in extractors if _name(e) == under]
        if under is not None and not wanted:
            wanted = [under]
        if not wanted:
            wanted = [builder.default(of)]
        for extractor in wanted:
            try:
                number = builder.get(extractor)
            except Unavailable as error:
                said = str(error).partition("unavailable: ")[2] or str(error)
                serving = next((n for n in named if n != _name(extractor)), EVALUATOR)
                target = getattr(metric, "instead", None)  # of another extractor's features
                instead = name if target is None else known.name_of("metric", target)
                made.absent.append(Absent(metric=name, why=said, meanwhile=asked_under(instead, serving)))
            else:
                made.jobs.append(Job(name=name, metric=metric, extractor=number))
    return made


class _Builder:
    """Each extractor is built once."""

    def __init__(self, plan: Plan, known: Registry, device: torch.device) -> None:
        self.plan, self.known, self.device = plan, known, device
        self.numbers: dict[str, int] = {}
        self.said = False
        self.pairs = Pairs()

    def default(self, of: str) -> str | Pairs:
        if of == PAIRS:
            return self.pairs
        first = default_extractor(of, self.known, EVALUATOR)
        if of != ANY or first == EVALUATOR:
            return first
        try:
            self.get(first)
        except Unavailable:
            if not self.said:
                self.plan.warnings.append(f"the weights of {first} aren't there, so {EVALUATOR} is the extractor")
            self.said = True
            return EVALUATOR
        return first

    def get(self, asked: Any) -> int:
        key = repr(asked) if isinstance(asked, (str, Mapping)) else str(id(asked))
        if key not in self.numbers:
            found = build(asked, self.known, self.device)
            same = [(e.name, e.sha256) for e in self.plan.extractors]
            if (found.name, found.sha256) in same:
                self.numbers[key] = same.index((found.name, found.sha256))
            else:
                self.numbers[key] = len(self.plan.extractors)
                self.plan.extractors.append(found)
        return self.numbers[key]


def _name(extractor: Any) -> str:
    if isinstance(extractor, (str, Mapping)):
        return extractor if isinstance(extractor, str) else str(extractor.get("name"))
    return str(extractor.name)
