"""Tests bear the mark `peer` wherever they use another library that zoo is compared with."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PEERS = {"diffusers", "transformers", "open_clip", "torch_fidelity"}
# It only asks whether the library can be hidden.
NO_COMPARISON = {"test_what_a_bare_machine_lacks_is_hidden_while_the_archive_is_tried"}


def _peers_of(node: ast.AST) -> set[str]:
    """Names that an import of a peer binds."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PEERS:
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.Import):
        found = [alias for alias in node.names if alias.name.split(".")[0] in PEERS]
        return {alias.asname or alias.name.split(".")[0] for alias in found}
    return set()


def _words(node: ast.AST) -> set[str]:
    """Names that a piece of source uses: its variables, and its arguments, which are fixtures."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return names | {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}


def comparing(tree: ast.Module) -> set[str]:
    """Tests of a module that use a peer, directly or through what else the module defines."""
    peers = {name for node in tree.body for name in _peers_of(node)}
    parts = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts |= {one.id: node for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    using = {name for name, node in parts.items() if any(_peers_of(one) for one in ast.walk(node))}
    if not (using or peers):
        return set()
    words = {name: _words(node) for name, node in parts.items()}
    while more := {name for name in parts if words[name] & (using | peers)} - using:
        using |= more
    return {name for name in using if name.startswith("test_")} - NO_COMPARISON


def marked(tree: ast.Module, mark: str) -> set[str]:
    """Tests of a module that bear a mark, in whatever order decorators stand, or its `pytestmark`."""
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    whole = [
        node for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node.targets[0])
    ]

    def bears(node: ast.AST) -> bool:
        return any(
            isinstance(one, ast.Attribute) and ast.unparse(one) == f"pytest.mark.{mark}" for one in ast.walk(node)
        )

    if any(bears(node) for node in whole):
        return {test.name for test in tests}
    return {test.name for test in tests if any(bears(decorator) for decorator in test.decorator_list)}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_comparisons_with_peers_are_marked(path):
    tree = ast.parse(path.read_text())
    assert comparing(tree) <= marked(tree, "peer")


CODE = """
import torch
from diffusers import Theirs as Other

def theirs(): return Other()
@pytest.fixture
def made(): return theirs()
def test_a(made): pass
@pytest.mark.peer
@pytest.mark.slow
def test_b(): theirs()
def test_c(): import transformers
def test_d(): torch.ones(1)
"""


def test_a_comparison_is_seen_through_what_a_module_defines():
    tree = ast.parse(CODE)
    assert comparing(tree) == {"test_a", "test_b", "test_c"}
    assert marked(tree, "peer") == marked(tree, "slow") == {"test_b"}
    assert marked(ast.parse("pytestmark = [pytest.mark.peer]\n" + CODE), "peer") == {f"test_{x}" for x in "abcd"}
