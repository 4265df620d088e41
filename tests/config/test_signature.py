"""Signatures are read from source; what they refuse is what the constructor would."""

from typing import ClassVar

import pytest

from tests.config.toys import TARGETS
from tests.refusals import refused
from zoo.config.blocks import check_block
from zoo.schema.errors import ConfigError
from zoo.schema.signature import find_source, read_signature
from zoo.schema.values import fits

TYPED = """
from __future__ import annotations
import typing as t
from collections.abc import Mapping, Sequence
from typing import Literal, Optional, Union
from toys_for_types.aliases import Mode

Pair = tuple[int, int]
Alias = Pair

def take(
    whole: int = 0, real: float = 0.0, flag: bool = False, text: str = "", maybe: int | None = None,
    either: Union[int, str] = 1, optional: Optional[float] = None, word: Literal["a", "b", 3] = "a",
    pair: Alias = (1, 2), many: Sequence[int] = (), table: dict[str, float] | None = None, anything: Tensor = None,
    mode: Mode = "x", dotted: t.Literal["q"] = "q", quoted: "int | None" = None, untyped=None,
    rows: tuple[float, ...] = (), path: Path = ".", sampler: str = "none",
): ...
"""

CASES = {
    "whole": ([1, -3], [1.0, True, "1", None, [1]]),
    "real": ([1, 1.5], [True, "1.5", None, float("nan")]),
    "flag": ([True, False], [0, 1, "true", None]),
    "text": (["", "x"], [1, None, ["x"], True]),
    "maybe": ([None, 2], [2.5, "2"]),
    "either": ([1, "x"], [None, 1.5, True]),
    "optional": ([None, 1], ["x"]),
    "word": (["a", "b", 3], ["c", 3.0, True, None]),
    "pair": ([[1, 2], (1, 2)], [[1], [1, 2, 3], [1, "x"], "12", 1]),
    "many": ([[], [1, 2, 3]], [["x"], "abc", 1, {"a": 1}, [True]]),
    "table": ([None, {}, {"a": 1}], [{"a": "x"}, [1]]),
    "anything": ([1, "x", None, [1]], []),
    "mode": (["x", "y"], ["z", 1]),
    "dotted": (["q"], ["r"]),
    "quoted": ([None, 1], ["x"]),
    "untyped": ([1, "x", None], []),
    "rows": ([[], [1.0, 2]], [["x"], 1]),
    "path": (["data/x"], [1, None]),
}


@pytest.fixture
def typed(tmp_path, monkeypatch):
    package = tmp_path / "toys_for_types"
    package.mkdir()
    (package / "__init__.py").write_text("from .typed import take as taken\n")
    (package / "typed.py").write_text(TYPED)
    (package / "aliases.py").write_text("from typing import Literal\nMode = Literal['x', 'y']\n")
    monkeypatch.syspath_prepend(tmp_path)
    return read_signature("toys_for_types.typed:take")


@pytest.mark.parametrize("name", CASES)
def test_values_are_held_against_annotations(typed, name):
    parameter = next(p for p in typed.parameters if p.name == name)
    right, wrong = CASES[name]
    assert [v for v in right if not fits(v, parameter)] == []
    assert [v for v in wrong if fits(v, parameter)] == []


def test_a_signature_through_a_reexport_is_the_same(typed):
    assert read_signature("toys_for_types:taken").names == typed.names


def test_an_argument_called_like_a_kind_but_typed_as_text_takes_text(components, typed):
    components.register("guidance", "typed", "toys_for_types.typed:take")
    block = check_block({"name": "typed", "sampler": "free text"}, kind="guidance", where="x", registry=components)
    assert block["sampler"] == "free text"


def test_dataclasses_constructors_and_inheritance_are_read(components):
    walk = components.entry("sampler", "walk").signature()
    assert walk.names == ("steps", "eta", "grid", "order")
    assert [p.default for p in walk.parameters] == ["10", "0.0", "Even()", "'up'"]
    assert walk.summary == "Walks."
    net = components.entry("network", "net").signature()
    assert net.names == (
        "in_channels",
        "context_width",
        "size_multiple",
        "vector_width",
        "wide",
        "classes",
        "null_class",
        "level",
    )
    assert components.entry("guidance", "needy").signature().parameters[0].required
    assert components.entry("autoencoder", "codec").signature().constants == {"factor": 4}


def test_reading_imports_no_package(components):
    """The fixture's package raises on import, and the fixture asserts that it never was."""
    for kind, names in TARGETS.items():
        for name in names:
            components.entry(kind, name).signature()


def test_an_object_and_its_source_have_the_same_arguments():
    from zoo.schema.safe_yaml import parse_yaml

    of_object, of_source = read_signature(parse_yaml), read_signature("zoo.schema.safe_yaml:parse_yaml")
    assert of_object.names == of_source.names
    assert [p.required for p in of_object.parameters] == [p.required for p in of_source.parameters]


@pytest.mark.parametrize(
    ("target", "refusal"),
    [
        ("absent_package:X", "module-missing"),
        ("zoo.absent:X", "module-missing"),
        ("zoo.schema.safe_yaml:absent", "component-target-invalid"),
        ("zoo.schema.errors.deeper:X", "module-missing"),
        ("1x:X", "module-missing"),
    ],
)
def test_a_target_that_is_not_there_is_told(target, refusal):
    with refused(refusal, ConfigError):
        read_signature(target)


def test_source_that_is_no_python_is_told(tmp_path, monkeypatch):
    (tmp_path / "toys_broken.py").write_text("def (:\n")
    (tmp_path / "toys_deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("toys_broken", "toys_deep"):
        with refused("module-unreadable", ConfigError, naming=name):
            read_signature(f"{name}:X")


def test_a_module_without_source_takes_anything():
    assert find_source("math") is None
    assert read_signature("math:sqrt").open


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("wlak", "component-unknown: walk"),
        ({"name": "walk", "eat": 0.5}, "argument-unknown: eta"),
        ({"name": "walk", "hidden": 1}, "argument-unknown"),
        ({"name": "walk", "shared": 1}, "argument-unknown"),
        ({"name": "walk", "steps": "many"}, "argument-type-wrong: walk"),
        ({"name": "walk", "steps": True}, "argument-type-wrong"),
        ({"name": "walk", "order": "sideways"}, "argument-type-wrong: up"),
        ({"name": "walk", "grid": "evn"}, "component-unknown: evn"),
        ({"name": "walk", "grid": {"name": "karras", "bnd": 1}}, "argument-unknown: bend"),
        ({"name": "walk", "grid": None}, "block-invalid: x.grid"),
        ({"name": "walk", "grid": {"bend": 1}}, "block-name-missing: x.grid"),
        ({"eta": 1}, "block-name-missing"),
        ({"name": 5}, "block-name-missing"),
        (5, "block-invalid"),
        (None, "block-invalid"),
        ([], "block-invalid"),
    ],
)
def test_a_wrong_block_is_refused_by_one_sentence_that_names_the_mend(components, block, said):
    with refused(said, ConfigError) as error:
        check_block(block, kind="sampler", where="x", registry=components)
    assert "\n" not in str(error.value)


def test_a_missing_argument_is_named(components):
    with refused("argument-missing", naming="'known'"):
        check_block("needy", kind="guidance", where="x", registry=components)


def test_blocks_are_written_out_in_full(components):
    block = check_block({"grid": "karras", "name": "walk"}, kind="sampler", where="x", registry=components)
    assert block == {"name": "walk", "grid": {"name": "karras"}}


def test_what_a_component_declares_is_read_from_its_source_or_the_class_that_is_here(components):
    free = components.entry("guidance", "classifier-free").signature().constants
    assert free["needs"] == ("null",)
    assert free["neutral"] == {"scale": 1.0}  # a ClassVar, as linters want of a mapping

    class Base:
        once = "it is enough"
        needs: ClassVar[tuple[str, ...]] = ("labels",)

    class Here(Base):
        neutral: ClassVar[dict[str, float]] = {"scale": 0.0}

    said = read_signature(Here).constants
    assert {k: said[k] for k in ("once", "needs", "neutral")} == {
        "once": "it is enough", "needs": ("labels",), "neutral": {"scale": 0.0},
    }  # fmt: skip
