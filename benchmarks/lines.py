"""Logical lines of zoo/ and benchmarks/: without docstrings, comments and blanks, as ruff formats them.

    python -m benchmarks.lines              # a line a folder
    python -m benchmarks.lines REVISION     # the same beside a commit of the repository, and the difference

Source is parsed and written anew before it is formatted, so neither a comma at the end of a list nor a comment that
switches the formatter off changes the count: it depends on what the code says alone. The installed ruff formats both
sides, with lines as long as pyproject.toml has them.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from benchmarks.record import ROOT

COUNTED = ("zoo", "benchmarks")


def bare(source: str) -> str:
    """Python source without its docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Expr(ast.Constant(...)))
    return ast.unparse(tree) + "\n"


def sources(revision: str | None = None) -> dict[str, str]:
    """Python files of `COUNTED` by their paths: those that git tracks, or those of a commit."""
    if revision is None:
        listed = subprocess.run(["git", "ls-files", "-z", *COUNTED], cwd=ROOT, check=True, capture_output=True)
        paths = [path for path in listed.stdout.decode().split("\0") if path.endswith(".py")]
        return {path: (ROOT / path).read_text() for path in paths if (ROOT / path).exists()}
    made = subprocess.run(["git", "archive", revision, *COUNTED], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.name.endswith(".py")}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def count(files: Mapping[str, str]) -> dict[str, int]:
    """Logical lines of each file."""
    width = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
    with tempfile.TemporaryDirectory() as place:
        for name, source in files.items():
            path = Path(place) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(bare(source))
        subprocess.run(["ruff", "format", "--quiet", "--isolated", "--line-length", str(width), place], check=True)
        texts = {name: (Path(place) / name).read_text() for name in files}
    return {name: sum(bool(line.strip()) for line in text.splitlines()) for name, text in texts.items()}


def folders(lines: Mapping[str, int]) -> Counter[str]:
    """Lines by folder, of the first two levels."""
    found: Counter[str] = Counter()
    for name, number in lines.items():
        found["/".join(name.split("/")[:-1][:2])] += number
    return found


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description="Logical lines of zoo/ and benchmarks/.")
    parser.add_argument("revision", nargs="?", help="a commit to compare with")
    options = parser.parse_args()
    now = folders(count(sources()))
    then = folders(count(sources(options.revision))) if options.revision else None

    def row(name: str, ours: int, theirs: int | None) -> str:
        if theirs is None:
            return f"{name:28} {ours:6}"
        share = f"{ours / theirs - 1:+8.1%}" if theirs else " " * 8
        return f"{name:28} {ours:6} {theirs:6} {ours - theirs:+6} {share}"

    for name in sorted(now.keys() | (then or {}).keys()):
        print(row(name, now[name], None if then is None else then[name]))
    print(row("all", now.total(), None if then is None else then.total()))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr.decode() if error.stderr else ''}".rstrip())
