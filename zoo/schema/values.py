"""Whether a plain value fits a parameter's annotation.

An int is a float, a bool is neither; lists are accepted for tuples and sequences, text for paths. Annotations that say
nothing about plain values (a protocol, a tensor) accept anything: the component itself decides.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from math import inf
from typing import Any

from zoo.schema.signature import Module, Parameter

_MODULES = {"typing", "t", "collections", "abc", "builtins", "pathlib"}
_SEQUENCES = {"list", "List", "Sequence", "Iterable", "Collection", "tuple", "Tuple"}
_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping"}
_WRAPPERS = {"Annotated", "Final", "InitVar", "Required", "NotRequired"}
_SCALARS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "Path": "a path"}
_LINKS = 16
LARGEST = 2**64  # no component takes a number as large; each sets its own smaller bounds


def fits(value: Any, parameter: Parameter) -> bool:
    """Whether `value` may be given for `parameter`."""
    return parameter.type is None or _fits(value, parameter.type, parameter.scope, _LINKS)


def is_scalar(parameter: Parameter) -> bool:
    """Whether the annotation is one of the plain scalar types: such a parameter never takes a component."""
    parts = _union(parameter.type) if parameter.type is not None else []
    return bool(parts) and all(_name(p) in {*_SCALARS, "None", "Literal"} for p in parts)


def wanted(parameter: Parameter) -> str:
    """What the parameter takes, in words."""
    return _wanted(parameter.type, parameter.scope, _LINKS) if parameter.type is not None else "a value"


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and node.value is None:
        return "None"
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Attribute):
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        return node.attr if owner in _MODULES else ""
    return node.id if isinstance(node, ast.Name) else ""


def _unquote(node: ast.expr) -> ast.expr | None:
    """The annotation inside a text annotation."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return ast.parse(node.value, mode="eval").body
        except (SyntaxError, ValueError, RecursionError):
            return None
    return node


def _alias(node: ast.expr, scope: Module | None) -> tuple[ast.expr, Module] | None:
    """What a name means, where it is a type alias of its module."""
    found = scope.lookup(node.id) if scope is not None and isinstance(node, ast.Name) else None
    value = getattr(found[1], "value", None) if found else None
    return (value, found[0]) if found and isinstance(value, ast.expr) else None


def _union(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_union(node.left), *_union(node.right)]
    if isinstance(node, ast.Subscript) and _name(node) == "Union":
        return [part for item in _items(node) for part in _union(item)]
    if isinstance(node, ast.Subscript) and _name(node) == "Optional":
        return [*_union(node.slice), ast.Constant(value=None)]
    return [node]


def _items(node: ast.Subscript) -> list[ast.expr]:
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _fits(value: Any, annotation: ast.expr, scope: Module | None, links: int) -> bool:
    node = _unquote(annotation)
    if node is None or links == 0:
        return True
    parts = _union(node)
    if len(parts) > 1:
        return any(_fits(value, part, scope, links - 1) for part in parts)
    alias = _alias(node, scope)
    if alias is not None:
        return _fits(value, alias[0], alias[1], links - 1)
    name = _name(node)
    if name == "None":
        return value is None
    if name == "bool":
        return isinstance(value, bool)
    if name == "int":
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
    if name == "float":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (abs(value) < LARGEST or abs(value) == inf)  # this way round also refuses NaN
    if name in ("str", "Path"):
        return isinstance(value, str)
    if name in _MAPPINGS:
        inner = _items(node)[1:] if isinstance(node, ast.Subscript) else []
        return isinstance(value, Mapping) and all(_fits(v, t, scope, links - 1) for t in inner for v in value.values())
    if name in _SEQUENCES:
        if not isinstance(value, (list, tuple)):
            return False
        return not isinstance(node, ast.Subscript) or _items_fit(value, name, _items(node), scope, links)
    if isinstance(node, ast.Subscript):
        if name == "Literal":
            allowed = [item.value for item in _items(node) if isinstance(item, ast.Constant)]
            return any(value == a and type(value) is type(a) for a in allowed)
        if name in _WRAPPERS:
            return _fits(value, _items(node)[0], scope, links - 1)
    return True


def _items_fit(value: Any, name: str, types: list[ast.expr], scope: Module | None, links: int) -> bool:
    every = name not in ("tuple", "Tuple") or (
        len(types) == 2 and isinstance(types[1], ast.Constant) and types[1].value is Ellipsis
    )
    if every:
        return all(_fits(v, types[0], scope, links - 1) for v in value)
    return len(value) == len(types) and all(_fits(v, t, scope, links - 1) for v, t in zip(value, types, strict=True))


def _wanted(annotation: ast.expr, scope: Module | None, links: int) -> str:
    node = _unquote(annotation)
    if node is None or links == 0:
        return "another value"
    parts = _union(node)
    if len(parts) > 1:
        return " or ".join(_wanted(part, scope, links - 1) for part in parts)
    alias = _alias(node, scope)
    if alias is not None:
        return _wanted(alias[0], alias[1], links - 1)
    name = _name(node)
    if name == "None":
        return "null"
    if name == "Literal" and isinstance(node, ast.Subscript):
        return "one of " + ", ".join(ast.unparse(item) for item in _items(node))
    if name in _SCALARS:
        return _SCALARS[name]
    return f"a list ({ast.unparse(node)})" if name in _SEQUENCES else ast.unparse(node)
