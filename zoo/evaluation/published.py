"""What was published: of a pipeline, by its preset and its denoisers' cards, or of weights measured by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.config.cards import Card, card_names, read_card
from zoo.config.presets import SUFFIXES, preset_names, presets_with, read_preset
from zoo.config.published import Published, read_published
from zoo.evaluation.choice import ANY, default_extractor, facts_of
from zoo.evaluation.inputs.sources import kind_of
from zoo.evaluation.selection import EVALUATOR
from zoo.evaluation.weights import task_of
from zoo.schema.errors import UsageError
from zoo.schema.registry import registry
from zoo.schema.unknown import unknown


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published value, and the pipeline that draws what it is of, or else the weights that it is of."""

    published: Published
    pipeline: str = ""
    weights: str = ""

    @property
    def name(self) -> str:
        """The name of its pipeline or weights."""
        return self.pipeline or self.weights

    @property
    def metric(self) -> dict[str, Any]:
        """The metric as a block."""
        return {"name": self.published.measured_by, **self.published.settings}

    @property
    def extractor(self) -> Any:
        """The extractor that was named, or else the metric's own; never another that is installed."""
        if self.published.extractor is not None or self.weights:
            return self.published.extractor
        known = registry()
        facts = facts_of("metric", self.published.measured_by, known)
        named = default_extractor(facts.get("of", ANY), known, EVALUATOR)
        settings = (facts.get("seen_by") or {}).get(self.published.metric)
        return {"name": named, **settings} if settings else named

    @property
    def chosen(self) -> dict[str, Any]:
        """What it changes of the pipeline's config."""
        said = {key: getattr(self.published, key) for key in ("sampler", "steps", "guidance")}
        return {key: value for key, value in said.items() if value is not None}

    @property
    def pictures(self) -> str:
        """The same of claims whose images are the same."""
        p = self.published
        return repr((self.pipeline, self.weights, p.n, p.ranges, p.seed, p.split, self.chosen))


def claims(name: str) -> list[Claim]:
    """What is published for a pipeline (its own and its denoisers' cards'), or for weights; UsageError if nothing is.

    For weights: what their card says, and what the shipped pipelines that draw with them publish.
    """
    if name in card_names() or (name.endswith((".yaml", ".yml")) and _is_card(name)):
        found = _of_card(read_card(name), name)
    elif name in preset_names() or name.endswith(SUFFIXES):
        found = _of_pipeline(name)
    else:
        raise UsageError(unknown("pipeline or weights", name, [*preset_names(), *card_names()]), code="name-unknown")
    if not found:
        raise UsageError(
            f"'{name}' publishes no value; see docs/cards.md for what `published:` holds", code="published-missing"
        )
    return found


def _of_card(card: Card, name: str) -> list[Claim]:
    found = []
    for p in card.published:
        if p.pipeline is None and task_of(card) is None:
            raise UsageError(
                f"card '{name}' publishes a value and names no pipeline for it; ask for the pipeline's",
                code="published-missing",
            )
        found.append(Claim(pipeline=p.pipeline or "", weights="" if p.pipeline else name, published=p))
    for pipeline in presets_with(name):
        config, source = read_preset(pipeline)
        own = read_published(config.get("published"), source)
        found += [Claim(pipeline=pipeline, published=p) for p in own]
    return found


def _of_pipeline(name: str) -> list[Claim]:
    config, source = read_preset(name if name in preset_names() else Path(name))
    found = [Claim(pipeline=name, published=p) for p in read_published(config.get("published"), source)]
    own = str(config.get("name"))
    for stage in config.get("stages") or ():
        block = stage.get("denoiser") if isinstance(stage, Mapping) else None
        if isinstance(block, Mapping) and isinstance(block.get("weights"), str):
            of_card = read_card(block["weights"]).published
            found += [Claim(pipeline=name, published=p) for p in of_card if p.pipeline in (None, own)]
    return found


def _is_card(path: str) -> bool:
    from zoo.schema.safe_yaml import read_mapping

    return Path(path).is_file() and str(read_mapping(Path(path)).get("schema", "")).startswith("zoo.card/")


def of_split(what: Any, split: str | None) -> Any:
    """`data.zip` -> `data.zip:test`, where a value is published of a split and none was named."""
    if split is None or not isinstance(what, (str, Path)) or kind_of(what) != "pictures":
        return what
    return f"{what}:{split}" if Path(what).exists() else what
