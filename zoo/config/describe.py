"""Names by pattern, and what a name means, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from zoo.config.cards import card_names, read_card
from zoo.config.models import model_names, models_folder, read_model
from zoo.config.presets import preset_names, presets_with, read_preset
from zoo.config.published import read_published
from zoo.schema.advice import spoken
from zoo.schema.declared import DECLARED
from zoo.schema.errors import UsageError, ZooError
from zoo.schema.notes import preformatted
from zoo.schema.papers import papers_of
from zoo.schema.registry import KINDS, Entry, Registry, registry
from zoo.schema.signature import summary
from zoo.schema.unknown import unknown

WIDTH = 74  # columns of a fact's lines
LONGEST = 60  # lines of a fact
FILE_KINDS = ("pipeline", "model", "weights")


@dataclass(frozen=True)
class Described:
    """A parameter as people read it; `default` is source text, None where a value must be given."""

    name: str
    type: str | None
    default: str | None


@dataclass(frozen=True)
class Description:
    """What a name means; `str()` is for people, `to_dict()` for programs."""

    kind: str
    name: str
    summary: str
    source: str
    broken: str | None = None
    parameters: tuple[Described, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.kind}/{self.name}", f"  {self.summary}" if self.summary else "", f"  source: {self.source}"]
        lines.append(f"  broken: {self.broken}" if self.broken else "")
        if self.parameters:
            lines.append("  parameters:")
        for p in self.parameters:
            default = "  (must be given)" if p.default is None else f" = {p.default}"
            lines.append(f"    {p.name}{f': {p.type}' if p.type else ''}{default}")
        for key, value in self.facts.items():
            if key in ("published", "papers"):
                lines += [f"  {key}:", *(f"    {line}" for line in value)]
            else:
                lines += _written(key, value)
        return "\n".join(line for line in lines if line)

    __repr__ = __str__  # in a console too

    def _repr_html_(self) -> str:
        return preformatted(str(self))


def names(kind: str | None = None, pattern: str = "*", *, components: Registry | None = None) -> list[str]:
    """The names of a kind, or of everything as kind/name; broken plugins are left out."""
    known = registry() if components is None else components
    kind = None if kind is None else one_of_kind(kind)
    if kind is not None:
        if kind not in (*KINDS, *FILE_KINDS):
            raise UsageError(unknown("kind", kind, (*FILE_KINDS, *KINDS)), code="kind-unknown")
        listed = {"pipeline": preset_names, "model": model_names, "weights": card_names}
        every = listed[kind]() if kind in listed else known.names(kind)
        return [name for name in every if fnmatchcase(name, pattern)]
    return [
        f"{k}/{name}"
        for k in (*FILE_KINDS, *KINDS)
        for name in names(k, components=known)
        if fnmatchcase(name, pattern) or fnmatchcase(f"{k}/{name}", pattern)
    ]


def one_of_kind(word: str) -> str:
    """The kind that a word names, in the plural too: `samplers`, `families`, `step-caches`; else the word."""
    plain = word.lower().replace("-", "_")
    ways = (word, plain, plain.removesuffix("s"), plain.removesuffix("ies") + "y")
    return next((way for way in ways if way in (*FILE_KINDS, *KINDS)), word)


def listing(kind: str | None = None, pattern: str = "*", *, components: Registry | None = None) -> list[Description]:
    """A short description of everything that matches, broken plugins too."""
    known = registry() if components is None else components
    kind = None if kind is None else one_of_kind(kind)
    found = []
    for key in names(kind, pattern, components=known):
        k, _, name = (f"{kind}/{key}" if kind else key).partition("/")
        try:
            short = {"pipeline": _describe_pipeline, "model": _describe_model, "weights": _describe_card}
            found.append(_summarize(known.entry(k, name)) if k in KINDS else short[k](name))
        except ZooError as error:  # a card or a target that can't be read
            found.append(Description(k, name, "", "", broken=str(error)))
    for entry in known:
        if entry.broken and kind in (None, entry.kind) and (fnmatchcase(entry.name, pattern)):
            found.append(Description(entry.kind, entry.name, "", entry.source, broken=entry.broken))
    return found


def describe(name: str, *, components: Registry | None = None) -> Description:
    """What "kind/name" or a pipeline's name means."""
    known = registry() if components is None else components
    if not isinstance(name, str):
        raise UsageError(f"a name is text like 'sampler/ddim', not {name!r}", code="name-invalid")
    kind, slash, rest = name.partition("/")
    kind, rest = (one_of_kind(kind), rest) if slash else ("pipeline", name)
    if kind == "pipeline":
        if rest in preset_names():
            return _describe_pipeline(rest)
        if not slash and rest in model_names():
            return _describe_model(rest)
        raise UsageError(
            unknown("pipeline", rest, preset_names()) if slash else _unknown_word(rest, known), code="name-unknown"
        )
    if kind == "model":
        return _describe_model(rest)
    if kind == "weights":
        return _with_pipelines(_describe_card(rest))
    entry = known.entry(kind, rest) if kind in KINDS else None
    if entry is None:
        raise UsageError(unknown("kind", kind, (*FILE_KINDS, *KINDS)), code="kind-unknown")
    if entry.broken:
        return Description(kind, rest, "", entry.source, broken=entry.broken)
    signature = entry.signature()
    parameters = tuple(Described(p.name, p.annotation, p.default) for p in signature.parameters)
    facts = {
        fact: signature.constants[fact]
        for fact in (*DECLARED["any"], *DECLARED.get(kind, ()))
        if fact in signature.constants
    }
    if "papers" in facts:
        facts["papers"] = [str(paper) for paper in papers_of(facts["papers"])]
    return replace(_summarize(entry), parameters=parameters, facts=facts)


def _summarize(entry: Entry) -> Description:
    target = entry.target if isinstance(entry.target, str) else repr(entry.target)
    return Description(entry.kind, entry.name, entry.summary(), f"{target} ({entry.source})")


def _describe_pipeline(name: str) -> Description:
    config, source = read_preset(name)
    facts = {key: config[key] for key in ("conditioners", "stages", "safety") if config.get(key)}
    published = read_published(config.get("published"), source)
    if published:
        facts["published"] = [str(p) for p in published]
    return Description("pipeline", name, summary(str(config.get("summary") or "")), source, facts=facts)


def _describe_model(name: str) -> Description:
    """A published model whose weights are the user's."""
    model = read_model(name)
    shown = {
        key: model.raw[key]
        for key in ("variant", "files", "answers", "sampled", "licence", "sources")
        if key in model.raw
    }
    facts = {
        **shown,
        "looked for in": str(models_folder()),
        "or": spoken(f"zoo.build('{name}', weights=PATH)", f"--model {name} --weights PATH"),
    }
    published = read_published(model.raw.get("published"), str(model.source))
    if published:
        facts["published"] = [str(p) for p in published]
    return Description("model", name, summary(model.summary), str(model.source), facts=facts)


def _describe_card(name: str) -> Description:
    card = read_card(name)
    shown = {k: v for k, v in card.raw.items() if k not in ("schema", "summary", "published") and v is not None}
    if card.published:
        shown["published"] = [str(p) for p in card.published]
    return Description("weights", card.name, summary(card.summary), str(card.path), facts=shown)


def _with_pipelines(found: Description) -> Description:
    """A card's description, with the published values of the shipped pipelines that use the weights."""
    pipelines = presets_with(found.name)
    said = list(found.facts.get("published") or ())
    for name in pipelines:
        config, source = read_preset(name)
        said += [f"{name}: {p}" for p in read_published(config.get("published"), source)]
    facts = {**found.facts, **({"pipelines": pipelines} if pipelines else {}), **({"published": said} if said else {})}
    return replace(found, facts=facts)


def _unknown_word(word: str, known: Registry) -> str:
    """A bare name that isn't a pipeline may be a component's, or a typo."""
    kinds = [entry.kind for entry in known if entry.name == word] + ["weights"] * (word in card_names())
    if kinds:
        return f"'{word}' is no pipeline; say '{kinds[0]}/{word}'"
    return unknown("name", word, [*preset_names(), *model_names(), *names(components=known)])


def _written(key: str, value: Any) -> list[str]:
    """A fact's lines: text and numbers behind its name, the rest as YAML."""
    if not isinstance(value, (Mapping, list, tuple)):
        return [f"  {key}: {value}"]
    from zoo.schema.safe_yaml import to_yaml

    lines = to_yaml({key: json.loads(json.dumps(value, default=str))}, width=WIDTH, compact=True).splitlines()
    more = [] if len(lines) <= LONGEST else [f"  ... {len(lines) - LONGEST} lines more: --json"]
    return [f"  {line}" for line in [*lines[:LONGEST], *more]]
