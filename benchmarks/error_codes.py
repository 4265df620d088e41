"""The codes of zoo's errors, read from the source: docs/errors.md lists each with its class and a sentence that has it.

What a code means is written in that table by hand, and kept; everything else is written anew. A new code gets a row
without a meaning, which `--check` (and tests/test_errors.py) refuses.

    python -m benchmarks.error_codes            # bring docs/errors.md up to date
    python -m benchmarks.error_codes --check    # exit code 1 if it isn't
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
_TABLE = re.compile(r"(?<=<!-- errors -->\n).*?(?=<!-- /errors -->)", re.DOTALL)
_LONGEST = 96  # characters of an example


class Site(NamedTuple):
    """A place in the source that makes an error: the class's name, the code, and the sentence as far as it stands."""

    where: str
    kind: str
    code: str
    sentence: str | None


class Unclear(NamedTuple):
    """A place that makes an error whose code isn't in the source."""

    where: str
    why: str


@cache
def sources() -> dict[str, ast.Module]:
    """The modules of zoo/ and benchmarks/, by path."""
    files = sorted(path for part in ("zoo", "benchmarks") for path in (ROOT / part).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in files}


def kinds(modules: dict[str, ast.Module]) -> set[str]:
    """The names of `ZooError` and of every class below it."""
    found, before = {"ZooError"}, 0
    classes = [n for tree in modules.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    while before != len(found):
        before = len(found)
        found |= {c.name for c in classes if any(_name(base) in found for base in c.bases)}
    return found


def sites(modules: dict[str, ast.Module]) -> Iterator[Site | Unclear]:
    """Every place that makes an error.

    A code is a literal; or that of an error being handled, which goes on under another sentence; or the parameter
    `code` of the function around it, and then every call of that function is a place.
    """
    errors = kinds(modules)
    for path, tree in modules.items():
        handed: dict[str, str] = {}  # functions whose errors have the code that they are given, and the class
        for call, function in _calls(tree):
            kind = _name(call.func)
            of_handled = isinstance(call.func, ast.Call) and ast.unparse(call.func) == "type(error)"
            if kind not in errors and not of_handled:
                continue
            where, code = f"{path}:{call.lineno}", _code(call)
            if isinstance(code, ast.Name) and code.id == "code" and function is not None and kind:
                handed[function.name] = kind
            elif (of_handled or isinstance(code, ast.Attribute | ast.IfExp)) and _is_handled(code):
                continue
            else:
                yield _site(where, kind or "type(...)", code, call)
        for call, _ in _calls(tree):
            if (kind := handed.get(_name(call.func) or "")) is not None:
                yield _site(f"{path}:{call.lineno}", kind, _code(call), call)
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and _name(node.exc) in errors:
                yield Unclear(f"{path}:{node.lineno}", "a class is raised, without a sentence or a code")


def _site(where: str, kind: str, code: ast.expr | None, call: ast.Call) -> Site | Unclear:
    if code is None:
        return Unclear(where, "it has no code")
    if not isinstance(code, ast.Constant) or not isinstance(code.value, str):
        return Unclear(where, f"its code is {ast.unparse(code)}, no literal")
    if not KEBAB.fullmatch(code.value):
        return Unclear(where, f"its code '{code.value}' isn't kebab-case of two words or more")
    return Site(where, kind, code.value, _sentence(call.args[0]) if call.args else None)


def _name(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _code(call: ast.Call) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg == "code"), None)


def _is_handled(code: ast.expr | None) -> bool:
    """`error.code`, the code of an error that is being handled."""
    return isinstance(code, ast.Attribute) and code.attr == "code" and _name(code.value) == "error"


def _calls(tree: ast.AST, function: ast.FunctionDef | None = None) -> Iterator[tuple[ast.Call, ast.FunctionDef | None]]:
    """Every call, with the function that it stands in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield node, function
        yield from _calls(node, node if isinstance(node, ast.FunctionDef) else function)


def _sentence(node: ast.expr) -> str | None:
    """The sentence with … for what only a run knows; None where that is all of it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else _sentence_of(v) for v in node.values]
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp):
        return f"{_sentence(node.left) or '…'}{_sentence(node.right) or '…'}"
    return _unknown(node)


def _sentence_of(value: ast.expr) -> str:
    return (isinstance(value, ast.FormattedValue) and _unknown(value.value)) or "…"


def _unknown(node: ast.expr) -> str | None:
    """The sentence of `zoo.schema.unknown.unknown`."""
    if not isinstance(node, ast.Call) or _name(node.func) != "unknown":
        return None
    return f"unknown {_sentence(node.args[0]) or '…'} '…', did you mean '…'?"


def rows(found: Sequence[Site], meanings: dict[str, str]) -> list[tuple[str, str, str, str]]:
    """Code, classes, meaning and the example that says most within a line, by code."""
    listed = []
    for code in sorted({site.code for site in found}):
        mine = [site for site in found if site.code == code]
        said = sorted(
            {s for site in mine if (s := site.sentence)}, key=lambda s: (s.count("…") > 3, abs(len(s) - 55), s)
        )
        example = said[0] if said else ""
        example = example if len(example) <= _LONGEST else example[: _LONGEST - 1].rsplit(" ", 1)[0] + " …"
        listed.append((code, ", ".join(sorted({site.kind for site in mine})), meanings.get(code, ""), example))
    return listed


def meanings(page: str) -> dict[str, str]:
    """What the page says that each code means."""
    lines = re.findall(r"^\| `([a-z0-9-]+)` \| [^|]* \| ([^|]*?) *\|", page, re.MULTILINE)
    return dict(lines)


def written(page: str) -> str:
    """The page with its table as the source has it."""
    found = [site for site in sites(sources()) if isinstance(site, Site)]
    lines = ["| code | class | what is wrong | a sentence that has it |", "| --- | --- | --- | --- |"]
    for code, kind, meaning, example in rows(found, meanings(page)):
        shown = (
            example.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("`", "'").replace("_", "\\_")
        )
        lines.append(f"| `{code}` | {kind} | {meaning} | {shown} |")
    return _TABLE.sub(lambda _: "\n".join(lines) + "\n", page)


def faults(page: str) -> list[str]:
    """What is wrong with the source's codes, and with the page."""
    told = [f"{site.where}: {site.why}" for site in sites(sources()) if isinstance(site, Unclear)]
    told += [f"docs/errors.md: '{code}' has no meaning" for code, said in meanings(written(page)).items() if not said]
    if page != written(page):
        told.append("docs/errors.md isn't what the source has; run python -m benchmarks.error_codes")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something is wrong")
    asked = parser.parse_args(arguments)
    page = PAGE.read_text("utf-8")
    if not asked.check:
        page = written(page)
        PAGE.write_text(page, "utf-8")
    told = faults(page)
    print("\n".join(told), end="\n" if told else "", file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
