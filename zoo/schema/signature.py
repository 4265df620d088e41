"""What a component takes, read from its source without importing it.

`zoo check` must refuse a wrong argument before torch is loaded, so the target's file is found by walking the specs
of its packages and parsed, not run. Functions, classes with `__init__`, dataclasses and named tuples are understood;
base classes, re-exports and type aliases are followed inside the same top-level package, and into zoo from a plugin.
What can't be read is `open`: it takes anything, and its own constructor decides.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.schema.errors import ConfigError

_FOLLOWED = 16  # links of a chain of base classes, re-exports or aliases
_PLAIN_DOC = re.compile(r'^(?:class|def) (\w+)(?:\([^()\n]*\))?:\n    """([^"\\]+)"""', re.MULTILINE)
_WHOLE = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_WORDS = {"None": None, "True": True, "False": False}
# Bases outside the package that add no constructor arguments of their own.
_BARE_BASES = {"object", "ABC", "Module", "Protocol", "Generic", "Enum"}


@dataclass(frozen=True)
class Parameter:
    """One argument; `default` is its source text, `type` the parsed annotation, as written in the module `scope`."""

    name: str
    required: bool
    default: str | None = None
    annotation: str | None = None
    type: ast.expr | None = field(default=None, compare=False, repr=False)
    scope: Module | None = field(default=None, compare=False, repr=False)

    def literal(self) -> Any:
        """The default as a value, None where it is not a literal."""
        return _literal(self.default or "None")


def _literal(text: str) -> Any:
    if _WHOLE.fullmatch(text):  # nearly all defaults are such, and compiling is slow
        return int(text)
    if text in _WORDS:
        return _WORDS[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


@dataclass(frozen=True)
class Signature:
    """What a component takes and declares."""

    summary: str = ""
    parameters: tuple[Parameter, ...] = ()
    open: bool = False  # takes arguments that aren't listed
    file: str | None = None
    line: int | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)  # literal class attributes
    methods: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments' names."""
        return tuple(p.name for p in self.parameters)


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed source file and what its top level defines."""

    name: str
    path: Path
    is_package: bool
    doc: str
    nodes: Mapping[str, ast.stmt]
    tree: ast.Module

    def lookup(self, name: str, links: int = _FOLLOWED) -> tuple[Module, ast.stmt] | None:
        """Where `name` is defined: through re-exports and `A = B`, inside this top-level package and zoo's own."""
        node = self.nodes.get(name)
        if node is None or links == 0:
            return None
        if isinstance(node, ast.ImportFrom):
            source = self._absolute(node)
            original = next(a.name for a in node.names if (a.asname or a.name) == name)
            if source.partition(".")[0] not in (self.name.partition(".")[0], "zoo"):
                return None
            try:
                return parse_module(source).lookup(original, links - 1)
            except ConfigError:
                return None
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            return self.lookup(node.value.id, links - 1) or (self, node)
        return self, node

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + (1 if self.is_package else 0)]
        return ".".join([*parts, node.module] if node.module else parts)


def find_source(module: str) -> Path | None:
    """The source file of a module, None if it has none (an extension); importing nothing, not even its packages.

    Raises ConfigError where there is no such module.
    """
    top, *rest = module.split(".")
    try:
        spec: ModuleSpec | None = find_spec(top) if top.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    for i, part in enumerate(rest, start=2):
        places = spec.submodule_search_locations if spec else None
        if places is None:
            spec = None
            break
        spec = PathFinder.find_spec(".".join(module.split(".")[:i]), list(places)) if part.isidentifier() else None
    if spec is None:
        raise ConfigError(f"there is no module '{module}'; install the package that has it", code="module-missing")
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def parse_module(module: str) -> Module:
    """Parse a module's source; ConfigError where it is missing or isn't Python."""
    path = find_source(module)
    if path is None:
        raise ConfigError(f"module '{module}' has no source that can be read", code="module-unreadable")
    try:
        return _parse(module, path, path.stat().st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"'{path}' can't be read ({error.strerror})", code="module-unreadable") from error


@lru_cache(maxsize=512)
def _parse(module: str, path: Path, _mtime: int) -> Module:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(
            f"'{path}'{line} is not Python ({type(error).__name__}: {error})", code="module-unreadable"
        ) from error
    nodes: dict[str, ast.stmt] = {}
    for node in top_level(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            nodes[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            nodes.update((alias.asname or alias.name, node) for alias in node.names)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            nodes[node.targets[0].id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            nodes[node.target.id] = node
        elif type(node).__name__ == "TypeAlias":  # Python 3.12's `type X = ...`
            nodes[node.name.id] = node  # type: ignore[attr-defined]
    doc = ast.get_docstring(tree) or ""
    return Module(name=module, path=path, is_package=path.name == "__init__.py", doc=doc, nodes=nodes, tree=tree)


def top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, without the conditions around them."""
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            yield from top_level([*node.body, *node.orelse])
        else:
            yield node


def read_signature(target: str | Any) -> Signature:
    """The signature of "module:attr", or of an object that is already imported."""
    if not isinstance(target, str):
        return _read_object(target)
    module_name, _, attr = target.partition(":")
    if find_source(module_name) is None:
        return Signature(open=True)
    module = parse_module(module_name)
    found = module.lookup(attr)
    if found is None:
        node = module.nodes.get(attr)
        if node is None and "__getattr__" not in module.nodes:
            raise ConfigError(
                f"module '{module_name}' defines no '{attr}'; mend the target '{target}'",
                code="component-target-invalid",
            )
        return Signature(open=True, file=str(module.path))
    home, node = found
    if isinstance(node, ast.ClassDef):
        return _read_class(home, node)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        parameters, is_open = _read_arguments(node.args, home, method=False)
        return Signature(
            summary=summary(ast.get_docstring(node) or home.doc), parameters=parameters, open=is_open,
            file=str(home.path), line=node.lineno, constants=_read_decorators(node),
        )  # fmt: skip
    return Signature(summary=summary(home.doc), open=True, file=str(home.path), line=node.lineno)


def read_summary(target: str | Any) -> str:
    """The signature's summary alone, for long lists: parsing the file only where a text search doesn't find it."""
    if isinstance(target, str):
        module, _, attr = target.partition(":")
        path = find_source(module)
        found = [] if path is None else _plain_docs(path, path.stat().st_mtime_ns).get(attr, [])
        if len(found) == 1:
            return summary(found[0])
    return read_signature(target).summary


@lru_cache(maxsize=512)
def _plain_docs(path: Path, _mtime: int) -> dict[str, list[str]]:
    """The docstrings below a file's `class` and `def` lines, by name."""
    docs: dict[str, list[str]] = {}
    for name, doc in _PLAIN_DOC.findall(path.read_text(encoding="utf-8", errors="replace")):
        docs.setdefault(name, []).append(doc)
    return docs


def summary(doc: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(doc.strip().partition("\n\n")[0].split())


def _last(node: ast.expr) -> str:
    """`dataclass` of `dataclasses.dataclass(frozen=True)`."""
    while isinstance(node, (ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _lineage(module: Module, node: ast.ClassDef) -> tuple[list[tuple[Module, ast.ClassDef]], bool]:
    """The class and its bases, nearest first; and whether a base could not be read."""
    line, hidden, queue = [], False, [(module, node)]
    while queue and len(line) < _FOLLOWED:
        home, current = queue.pop(0)
        line.append((home, current))
        for base in current.bases:
            found = home.lookup(base.id) if isinstance(base, ast.Name) else None
            if found and isinstance(found[1], ast.ClassDef):
                queue.append((found[0], found[1]))
            elif _last(base) not in _BARE_BASES | {"NamedTuple"}:
                hidden = True
    return line, hidden


@lru_cache(maxsize=512)
def _read_class(module: Module, node: ast.ClassDef) -> Signature:
    line, hidden = _lineage(module, node)
    parameters: tuple[Parameter, ...] = ()
    is_open = hidden
    for i, (home, current) in enumerate(line):
        method = next((n for n in current.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if _has_fields(current):
            fields: dict[str, Parameter] = {}
            for place, owner in reversed(line[i:]):
                if _has_fields(owner):
                    fields.update(_read_fields(owner, place))
            parameters = tuple(fields.values())
            break
        if method is not None:
            parameters, is_open = _read_arguments(method.args, home, method=True)
            break
    constants: dict[str, Any] = {}
    for _, current in reversed(line):
        constants.update(_read_constants(current))
    return Signature(
        summary=summary(ast.get_docstring(node) or module.doc), parameters=parameters, open=is_open,
        file=str(module.path), line=node.lineno, constants=constants,
        methods=frozenset(n.name for _, c in line for n in c.body if isinstance(n, ast.FunctionDef)),
    )  # fmt: skip


def _has_fields(node: ast.ClassDef) -> bool:
    return any(_last(d) == "dataclass" for d in node.decorator_list) or any(
        _last(b) == "NamedTuple" for b in node.bases
    )


def _read_fields(node: ast.ClassDef, home: Module) -> Iterator[tuple[str, Parameter]]:
    for item in node.body:
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
            continue
        if _last(item.annotation) in {"ClassVar", "KW_ONLY"}:
            continue
        default = item.value
        if isinstance(default, ast.Call) and _last(default.func) == "field":
            given = {k.arg: k.value for k in default.keywords}
            init = given.get("init")
            if isinstance(init, ast.Constant) and init.value is False:
                continue
            factory = given.get("default_factory")
            default = given.get("default") or (factory and ast.Call(func=factory, args=[], keywords=[]))
        yield item.target.id, _parameter(item.target.id, item.annotation, default, home)


def _read_constants(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for item in node.body:
        if isinstance(item, ast.Assign) and len(item.targets) == 1:
            target, value = item.targets[0], item.value
        elif isinstance(item, ast.AnnAssign) and item.value is not None and _last(item.annotation) == "ClassVar":
            target, value = item.target, item.value
        else:
            continue
        try:
            if isinstance(target, ast.Name):
                yield target.id, ast.literal_eval(value)
        except ValueError:
            continue


def _read_decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Any]:
    """What a function declares by `@declares(...)` (zoo.schema.declared)."""
    found: dict[str, Any] = {}
    for decorator in node.decorator_list:
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) and _last(decorator) == "declares" else ():
            try:
                found[str(keyword.arg)] = ast.literal_eval(keyword.value)
            except ValueError:
                continue
    return found


def _read_arguments(arguments: ast.arguments, home: Module, *, method: bool) -> tuple[tuple[Parameter, ...], bool]:
    ordered = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(ordered) - len(arguments.defaults))
    pairs = list(zip(ordered, [*defaults, *arguments.defaults], strict=True))[1 if method else 0 :]
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    return tuple(_parameter(a.arg, a.annotation, d, home) for a, d in pairs), arguments.kwarg is not None


def _parameter(name: str, annotation: ast.expr | None, default: ast.expr | None, home: Module) -> Parameter:
    return Parameter(
        name=name, required=default is None, default=None if default is None else ast.unparse(default),
        annotation=None if annotation is None else ast.unparse(annotation), type=annotation, scope=home,
    )  # fmt: skip


def _read_object(target: Any) -> Signature:
    import inspect

    text = summary(inspect.getdoc(target) or "")
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return Signature(summary=text, open=True)
    empty = inspect.Parameter.empty
    parameters = []
    for p in found:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        annotation = None if p.annotation is empty else inspect.formatannotation(p.annotation)
        annotation = p.annotation if isinstance(p.annotation, str) else annotation
        try:
            node = None if annotation is None else ast.parse(annotation, mode="eval").body
        except SyntaxError:
            node = None
        default = None if p.default is empty else repr(p.default)
        parameters.append(Parameter(p.name, p.default is empty, default, annotation, node))
    literal = (bool, int, float, str, tuple, list, dict)
    classes = reversed(target.__mro__) if isinstance(target, type) else (target,) if hasattr(target, "__dict__") else ()
    constants = {k: v for c in classes for k, v in vars(c).items() if isinstance(v, literal) and not k.startswith("__")}
    return Signature(
        summary=text, parameters=tuple(parameters), open=any(p.kind is p.VAR_KEYWORD for p in found),
        constants=constants, methods=frozenset(n for n in dir(target) if not n.startswith("_")),
    )  # fmt: skip
