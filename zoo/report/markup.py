"""HTML and SVG by construction: text is escaped unless it was made here, so no record puts an element on the page."""

from __future__ import annotations

import html
import re
from typing import TypeAlias

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*\Z")
_VOID = frozenset({"meta", "img", "input", "link"})
LONGEST = 400  # characters of one text; what a record says beyond that no page has room for


class Markup(str):
    """Text that is markup already; only this module's functions make it."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Markup | list[Markup] | None"
Attribute: TypeAlias = "str | int | float | bool | None"


def visible(text: object, longest: int = LONGEST) -> str:
    """A text as it may be shown: what can't be seen or turns writing round becomes U+FFFD, what is too long ends."""
    said = str(text)
    shown = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in said[: longest + 1])
    return shown[:longest] + "…" if len(said) > longest else shown


def escape(text: object, longest: int = LONGEST) -> Markup:
    """A text as markup, which shows it and nothing else."""
    return Markup(html.escape(visible(text, longest), quote=True))


def number(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def element(tag: str, *children: Child, **attributes: Attribute) -> Markup:
    """<tag attributes>children</tag>; `class_` is class, `aria_label` aria-label; None and False leave one out."""
    parts = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        assert _NAME.match(name), f"'{name}' is no attribute"
        if value is True:
            parts.append(f" {name}")
        elif value is not None and value is not False:
            shown = value if isinstance(value, Markup) else escape(number(value) if isinstance(value, float) else value)
            parts.append(f' {name}="{shown}"')
    assert _NAME.match(tag), f"'{tag}' is no element"
    if tag in _VOID:
        return Markup(f"<{tag}{''.join(parts)}>")
    return Markup(f"<{tag}{''.join(parts)}>{join(children)}</{tag}>")


def join(children: tuple[Child, ...] | list[Markup]) -> Markup:
    """Children one after another; strings are escaped, None is nothing."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, list):
            parts.append(join(child))
        elif child is not None:
            parts.append(child if isinstance(child, Markup) else escape(child))
    return Markup("".join(parts))


def region(inside: Markup, name: str, **attributes: Attribute) -> Markup:
    """A wide thing in a box of its own that scrolls, also by keyboard, so that the page never does."""
    return element("div", inside, class_="scroll", tabindex=0, role="region", aria_label=name, **attributes)


def key(text: str) -> Markup:
    """A metric's key, which may be broken before its parts."""
    parts = re.split(r"(?<=[\[,])|(?=@)", visible(text))
    return element("code", own("<wbr>".join(escape(part) for part in parts)), class_="key")


def own(text: str) -> Markup:
    """Markup written by zoo's own source: the style sheet, the script, a data URI. Never of what was read."""
    return Markup(text)
