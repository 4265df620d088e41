"""Absurd values in every mapping that zoo reads: a plain value or a typed error, 10,000 examples."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.reliability import mutants
from tests.config.test_safe_yaml import PLAIN, TOKENS
from zoo.schema.errors import ZooError
from zoo.schema.safe_yaml import parse_yaml

# Values that are closer to valid ones than random text.
WORDS = st.sampled_from(
    ["", "unet", "kl", "ddim", "karras", "cosine", "base", "text", "noise", "none", "../x", "1e9", "auto", "cpu", "\0"]
)
NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 0.5, -0.0, 1e-300, 1e300, 2**31, 10**9, 10**12, 2**63, float("1e-5")])
VALUES = PLAIN | WORDS | NUMBERS | st.lists(WORDS | NUMBERS, max_size=3)


def _places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a mapping."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [place for key, one in inner for place in [(*before, key), *_places(one, (*before, key))]]


def _put(value: Any, place: tuple[Any, ...], new: Any, how: str) -> None:
    """Replace, remove or add the value at a path, in place."""
    for key in place[:-1]:
        value = value[key]
    if how == "remove":
        del value[place[-1]]
    elif how == "add" and isinstance(value, dict):
        value[str(new)[:20]] = new
    else:
        value[place[-1]] = new


def run(home: Path, count: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """`count` examples: a third of texts, the rest of changed configs, recipes, suites, cards and records."""
    readers: dict[str, Callable[[Path], Any]] = {
        "config.yaml": mutants._config, "recipe.yaml": mutants._recipe, "suite.yaml": mutants._suite,
        "card.yaml": mutants._card, "record.json": mutants._benchmark,
    }  # fmt: skip
    mutants.kinds(home)  # puts the card there
    faults: list[str] = []
    seen = 0

    def examples(share: float) -> Any:
        phases, health = [Phase.generate], [HealthCheck.too_slow, HealthCheck.data_too_large]
        return settings(
            max_examples=math.ceil(count * share), deadline=None, database=None, phases=phases,
            suppress_health_check=health, derandomize=seed == 0,
        )  # fmt: skip

    @examples(1 / 3)
    @given(st.lists(TOKENS, max_size=40).map("".join) | st.text(max_size=60) | st.binary(max_size=60))
    def texts(text: Any) -> None:
        nonlocal seen
        seen += 1
        try:
            parse_yaml(text, source="fuzz")
        except ZooError:
            pass
        except BaseException as error:
            faults.append(f"text {text!r:.60}: untyped {type(error).__name__}: {error!s:.100}")

    texts()
    for name, read in readers.items():
        changed = _changed(home, name, read, faults)
        seen += changed(examples(2 / 3 / len(readers)))
    return {"cases": seen, "faults": faults}


def _changed(home: Path, name: str, read: Callable[[Path], Any], faults: list[str]) -> Callable[[Any], int]:
    """A function that reads a good file with one place changed, under Hypothesis' settings, and counts how often."""
    good = yaml.safe_load((home / name).read_text())
    places, path, seen = _places(good), home / f"fuzz-{name}", 0

    @given(st.sampled_from(places), VALUES, st.sampled_from(["replace", "replace", "remove", "add"]))
    def one(place: Any, new: Any, how: str) -> None:
        nonlocal seen
        seen += 1
        changed = json.loads(json.dumps(good))
        _put(changed, place, new, how)
        path.write_text(json.dumps(changed))
        try:
            read(path)
        except ZooError:
            pass
        except BaseException as error:
            said = f"{path.name}: {how} {new!r:.40} at {'.'.join(map(str, place))}"
            faults.append(f"{said}: untyped {type(error).__name__}: {error!s:.100}")

    def run_with(chosen: Any) -> int:
        chosen(one)()
        return seen

    return run_with
