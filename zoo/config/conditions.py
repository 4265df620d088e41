"""What a stage is conditioned on: which conditioner fills which field of a `Condition`, and how several join.

`listens` is a list of conditioners' names, each of which then fills all that it gives, or a mapping by field:

    listens: {tokens: {join: width, of: [clip-l, clip-g]}, vector: [clip-g, sizes], label: group}

Tokens join by `width` (side by side, position by position: SDXL) or by `length` (one after the other), vectors by
width; scalars have names of their own. A conditioner declares `fills`: field -> the facts whose product is its width (a
list counts as its length), an empty list where it has none. A field whose fact is null isn't filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from zoo.config.parts import Part, StageParts, whole
from zoo.schema.errors import ConfigError
from zoo.schema.plain import show
from zoo.schema.unknown import unknown

SOURCES = ("prompts", "labels", "image", "request")
# How the conditioners of a field may join; a field with none has one.
JOINS: Mapping[str, tuple[str, ...]] = {
    "tokens": ("width", "length"), "vector": ("width",), "label": (), "image": ("width", "length"), "concat": (),
    "level": (), "scalars": ("names",),
}  # fmt: skip
WIDTHS = {"tokens": "context_width", "vector": "vector_width"}  # of networks, and of contracts


def conditioners_of(listens: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """The conditioners that a stage listens to, each once, in the order in which they are named."""
    if not isinstance(listens, Mapping):
        return tuple(listens)
    return tuple(dict.fromkeys(name for field in listens for name in givers(listens, field)))


def givers(listens: Mapping[str, Any], field: str) -> list[str]:
    """The conditioners of one field, where `listens` is a mapping by field."""
    said = listens[field]
    return [said] if isinstance(said, str) else list(said["of"] if isinstance(said, Mapping) else said)


def join_of(listens: Mapping[str, Any], field: str) -> str | None:
    """How several conditioners of a field join."""
    said = listens[field]
    return said["join"] if isinstance(said, Mapping) else (JOINS[field] or (None,))[0]


def check_listens(listens: Any, conditioners: Sequence[str], where: str) -> list[str] | dict[str, Any]:
    """`listens` as written, its form and names checked; ConfigError with the fix."""
    if isinstance(listens, Mapping):
        return {field: _check_field(field, said, conditioners, f"{where}.{field}") for field, said in listens.items()}
    if not isinstance(listens, list):
        raise ConfigError(
            f"{where} is {show(listens)}; write a list of conditioners' names, or a mapping of {', '.join(JOINS)}",
            code="listens-invalid",
        )
    for name in listens:
        _check_name(name, conditioners, where)
    return list(listens)


def _check_field(field: Any, said: Any, conditioners: Sequence[str], where: str) -> Any:
    if field not in JOINS:
        raise ConfigError(f"{where}: {unknown('field of a condition', field, JOINS)}", code="condition-field-unknown")
    joins, join = JOINS[field], None
    of = said
    if isinstance(said, Mapping):
        extra = next((key for key in said if key not in ("join", "of")), None)
        if extra is not None or "of" not in said:
            raise ConfigError(
                f"{where} is {show(said)}; write {{join: width, of: [NAME, NAME]}}", code="listens-invalid"
            )
        of, join = said["of"], said.get("join")
    names = [of] if isinstance(of, str) else of
    if not isinstance(names, list) or not names:
        raise ConfigError(
            f"{where} is {show(said)}; write the name of a conditioner, or a list of names", code="listens-invalid"
        )
    for name in names:
        _check_name(name, conditioners, where)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{where} names the conditioner '{twice}' twice; take one out", code="entries-repeated")
    if len(names) > 1 and not joins:
        raise ConfigError(
            f"{where} names {' and '.join(names)}, and {field} has one giver; keep one of them",
            code="listens-invalid",
        )
    if join is not None and join not in joins:
        raise ConfigError(f"{where}.join: {unknown('join', join, joins)}", code="choice-unknown")
    if len(names) == 1:
        return names[0]
    if join is None and len(joins) > 1:
        raise ConfigError(
            f"{where} names {' and '.join(names)} and not how they join; write {{join: width, of: {show(names)}}} "
            "(side by side), or join: length (one after the other)",
            code="condition-join-missing",
        )
    return {"join": join, "of": list(names)} if len(joins) > 1 else list(names)


def _check_name(name: Any, conditioners: Sequence[str], where: str) -> None:
    if name not in conditioners:
        raise ConfigError(f"{where}: {unknown('conditioner', name, conditioners)}", code="conditioner-unknown")


def filled(part: Part) -> dict[str, int | None]:
    """The fields that a conditioner fills, with their widths as far as its facts state them."""
    fills = part["fills"]
    if not isinstance(fills, Mapping):
        found = {"tokens": part["context_width"] or part["width"], "vector": part["vector_width"]}
        return {field: width for field, width in found.items() if whole(width)}
    widths: dict[str, int | None] = {}
    for field, rule in fills.items():
        values = [part[fact] for fact in ([rule] if isinstance(rule, str) else rule)]
        if any(value is None for value in values) and all(f in part.facts for f in _facts(rule)):
            continue
        told = part[WIDTHS.get(field, "")]  # by a card's contract
        sizes = [len(value) if isinstance(value, (list, tuple)) else value for value in values]
        widths[field] = told if whole(told) else prod(sizes) if sizes and all(whole(s) for s in sizes) else None
    return widths


def _facts(rule: str | Sequence[str]) -> Sequence[str]:
    return [rule] if isinstance(rule, str) else rule


def check_conditions(parts: StageParts) -> None:
    """Refuse conditioners that fill the same field, or not what the network was trained with."""
    listens, stage = parts.stage["listens"], f"stage '{parts.name}'"
    named = dict(zip(conditioners_of(listens), parts.conditioners, strict=True))
    given = {name: filled(part) for name, part in named.items()}
    if isinstance(listens, Mapping):
        by_field = {field: givers(listens, field) for field in listens}
        _check_given(stage, by_field, named, given)
    else:
        by_field = {field: [n for n, fields in given.items() if field in fields] for field in JOINS}
        _check_alone(stage, by_field, named, given)
    _check_widths(parts, by_field, named, given)


def _check_alone(
    stage: str, by_field: Mapping[str, list[str]], named: Mapping[str, Part], given: Mapping[str, dict[str, int | None]]
) -> None:
    for field, names in by_field.items():
        if len(names) < 2 or field == "scalars":
            continue
        one, two = names[:2]
        said = f"{{join: width, of: [{one}, {two}]}}" if "length" in JOINS[field] else f"[{one}, {two}]"
        fix = f"{field}: {said}" if JOINS[field] else f"{field}: {one}"
        others = "".join(
            f", {other}: {next(n for n in given if other in given[n])}"
            for other in JOINS if other != field and any(other in fields for fields in given.values())
        )  # fmt: skip
        raise ConfigError(
            f"{stage}: {named[one].label} and {named[two].label} both give {field} and nothing says how they join; "
            f"write it field by field, like listens: {{{fix}{others}}}",
            code="condition-join-missing",
        )


def _check_given(
    stage: str, by_field: Mapping[str, list[str]], named: Mapping[str, Part], given: Mapping[str, dict[str, int | None]]
) -> None:
    for field, names in by_field.items():
        for name in names:
            if field not in given[name] and isinstance(named[name]["fills"], Mapping):
                there = ", ".join(given[name]) or "nothing"
                raise ConfigError(
                    f"{stage} listens to {named[name].label} for {field} and that gives {there}; name another",
                    code="condition-field-missing",
                )


def _check_widths(
    parts: StageParts, by_field: Mapping[str, list[str]], named: Mapping[str, Part],
    given: Mapping[str, dict[str, int | None]],
) -> None:  # fmt: skip
    network, stage = parts.network, f"stage '{parts.name}'"
    width, vector = network["context_width"], network["vector_width"]
    if whole(width) and not parts.conditioners:
        raise ConfigError(
            f"{stage}: {network.label} attends to tokens of width {width} and the stage listens to no conditioner; "
            "name one in listens",
            code="conditioner-missing",
        )
    for field, fact in WIDTHS.items():
        names, wanted = by_field.get(field) or [], network[fact]
        widths = [given[name].get(field) for name in names]
        if not whole(wanted) or not names or not all(whole(w) for w in widths):
            continue
        listens = parts.stage["listens"]
        by_length = isinstance(listens, Mapping) and join_of(listens, field) == "length"
        if by_length and len(set(widths)) > 1:
            told = " and ".join(f"{named[n].label} {w}" for n, w in zip(names, widths, strict=True))
            raise ConfigError(
                f"{stage}: {field} join by length and have several widths, {told}; join them by width",
                code="condition-width-unfit",
            )
        total = widths[0] if by_length else sum(w for w in widths if w is not None)
        if total != wanted:
            reads = "attends to tokens" if field == "tokens" else "takes a vector"
            who = " and ".join(named[n].label for n in names)
            raise ConfigError(
                f"{stage}: {network.label} {reads} of width {wanted} and {who} "
                f"{'gives' if len(names) == 1 else 'together give'} {total}; listen to the conditioner"
                f"{'' if len(names) == 1 else 's'} it was trained with",
                code="condition-width-unfit",
            )
    tokens = [named[name] for name in by_field.get("tokens") or [] if whole(given[name].get("tokens"))]
    deaf = "context_width" in network.facts and width is None and not whole(vector)
    if deaf and tokens and not network["classes"]:
        raise ConfigError(
            f"{stage} listens to {tokens[0].label} and {network.label} takes no condition; take it out of listens",
            code="condition-unread",
        )
