"""What a benchmark record is, field by field (docs/benchmarks.md), and the one reader of its files.

There are two: of a suite's run (`zoo bench`), and of a single benchmark (benchmarks/). Records are untrusted: strict
JSON of a known schema and of limited size. `filled` then holds every field that zoo
knows against its kind. Any of them may be null or missing, so that older records can be read too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.schema import strict_json
from zoo.schema.errors import UsageError
from zoo.schema.files import read_plain

SUITE_RECORD, SINGLE_RECORD = "zoo.suite-record/1", "zoo.benchmark/1"
LARGEST = 16 * 2**20  # bytes of one record
Form = Callable[[Any, str], Any] | Mapping[str, Any] | Sequence[Any]  # a kind; fields by name, "*" any; [of each]


def read_file(path: Path, schemas: Sequence[str] = (SUITE_RECORD, SINGLE_RECORD)) -> dict[str, Any]:
    """A record as it was written; UsageError names the file, and what is wrong with it."""
    try:
        text = read_plain(path, LARGEST)
    except OSError as error:
        raise UsageError(
            f"'{path}' can't be read ({error.strerror or error}); give a benchmark record", code="file-unreadable"
        ) from error
    if len(text) > LARGEST:
        raise UsageError(
            f"'{path}' has more bytes than a record, which has at most {LARGEST}; give a benchmark record",
            code="file-too-large",
        )
    try:
        value = strict_json.parse(text)
    except ValueError as error:
        raise UsageError(
            f"'{path}' is no JSON of a record: {error}; give a benchmark record", code="benchmark-record-damaged"
        ) from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema not in schemas:
        known = " or ".join(schemas)
        raise UsageError(
            f"'{path}' is no record that can be read: its schema is {schema!r:.60}, not {known}", code="schema-unknown"
        )
    return value


def filled(value: Any, form: Form, place: str) -> Any:
    """A copy of a value with every field of its form; UsageError with the place for one of another kind.

    What is missing is None where it is text, a number or a truth value, and else empty.
    """
    if isinstance(form, Mapping):
        given = {} if value is None else _of(value, dict, "an object", place)
        if "*" in form:
            return {key: filled(item, form["*"], _at(place, key)) for key, item in given.items()}
        return {**given, **{key: filled(given.get(key), inner, _at(place, key)) for key, inner in form.items()}}
    if isinstance(form, Sequence):
        listed = enumerate([] if value is None else _of(value, list, "a list", place))
        return [filled(_of(item, dict, "an object", f"{place}[{i}]"), form[0], f"{place}[{i}]") for i, item in listed]
    return form(value, place)


def text(value: Any, place: str) -> str | None:
    """A string."""
    return None if value is None else _of(value, str, "text", place)


def flag(value: Any, place: str) -> bool | None:
    """True or false."""
    return None if value is None else _of(value, bool, "true or false", place)


def number(value: Any, place: str) -> float | None:
    """A finite number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{place} is {_kind(value)}, not a number", code="benchmark-record-invalid")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise UsageError(f"{place} is no finite number; write null and a reason", code="benchmark-record-invalid")
    return found


def numbers(value: Any, place: str) -> list[float]:
    """A list of finite numbers, nulls left out."""
    found = [number(item, f"{place}[{i}]") for i, item in enumerate(anything(value, place))]
    return [item for item in found if item is not None]


def texts(value: Any, place: str) -> list[str]:
    """A list of strings."""
    return [_of(item, str, "text", f"{place}[{i}]") for i, item in enumerate(anything(value, place))]


def anything(value: Any, place: str) -> list[Any]:
    """A list of any values."""
    return [] if value is None else _of(value, list, "a list", place)


def said(value: Any, place: str) -> str | None:
    """Text, a number or a truth value, as text; a list has one a stage, and is joined."""
    if isinstance(value, list) and value and not any(isinstance(part, (dict, list)) for part in value):
        return " + ".join(map(as_text, value))
    if isinstance(value, (dict, list)):
        raise UsageError(f"{place} is {_kind(value)}, not text or a number", code="benchmark-record-invalid")
    return None if value is None else as_text(value)


def as_text(value: Any) -> str:
    """A JSON value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):  # a component with its settings: its name, and what is set
        named = [as_text(value["name"])] if "name" in value else []
        rest = {k: v for k, v in value.items() if k != "name" and v not in (None, False)}
        return " ".join(named + [k if v is True else f"{k}={as_text(v)}" for k, v in rest.items()])
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of(value: Any, kind: type, name: str, place: str) -> Any:
    if not isinstance(value, kind):
        raise UsageError(
            f"{place} is {_kind(value)}, not {name}; write it as docs/benchmarks.md says",
            code="benchmark-record-invalid",
        )
    return value


def _at(place: str, name: str) -> str:
    return f"{place}: {name}" if place.endswith("'") else f"{place}.{name}"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


MACHINE: Form = {
    "processor": text, "cores": said, "threads": said, "world_size": number,
    "accelerators": [{"name": text, "driver": said, "power_limit_watts": number}],
}  # fmt: skip
QUALITY_VALUE: Form = {
    "value": number, "reason": text, "better": text, "deviation": number, "interval": numbers, "seed_ranges": anything,
    "floor": {"value": number}, "pictures": {"size": said, "format": text},
    "reference": {"name": text, "split": text, "n": said, "pictures_sha256": text, "captions_sha256": text},
}  # fmt: skip
ROW: Form = {
    "id": text, "name": text, "kind": text, "group": text, "status": text, "reason": text, "notes": texts,
    "asked": {"part": text}, "random_weights": flag,
    "run": {
        "evaluations": number, "seeds": numbers, "labels": text, "reason": text,
        "stages": [{"name": text, "evaluations": number, "full_evaluations": number}],
    },
    "speed": {"images_per_second": number, "latency_seconds": {"p50": number, "p90": number}, "reason": text},
    "profile": {"seconds": {"*": number}, "of": text},
    "memory": {
        "host_peak_bytes": number, "host_before_bytes": number, "device_peak_bytes": number, "reason": text,
        "planned_weight_bytes": number, "planned_activation_bytes": number, "planned_reason": text,
    },
    "energy": {"joules_per_image": number, "reason": text},
    "work": {"share_of_peak": number, "reason": text},
    "quality": {"values": {"*": QUALITY_VALUE}, "reason": text, "samples": texts, "samples_seed": number},
    "check": {"what": text, "against": text, "largest": number},
}  # fmt: skip
PAIR: Form = {
    "name": text, "peer": text, "what": text, "ratio": number, "ratios": numbers, "reason": text,
    "agreement": {"largest_difference": number, "of": text, "tolerance": number, "agrees": flag},
}  # fmt: skip
SUITE_FORM: Form = {
    "suite": {"name": text, "kind": text, "summary": text, "settings": {"prompts": texts}},
    "run": {"started": text, "complete": flag}, "code": {"commit": text, "dirty": flag},
    "machine": MACHINE, "versions": {"torch": said, "cuda": said, "cudnn": said},
    "peaks": {"*": {}}, "noise": {"*": {"relative_spread": number}}, "rows": [ROW], "pairs": [PAIR],
}  # fmt: skip
SINGLE_FORM: Form = {
    "name": text, "date": text, "commit": text, "dirty": flag, "machine": MACHINE, "weights": {}, "settings": {},
    "versions": {"torch": said, "cuda": said, "cudnn": said}, "values": {},
}  # fmt: skip
# What is known of the values of two single benchmarks: the hit score, and generation.
HIT_FORM: Form = {
    "settings": {
        "evaluator": said, "split": said, "count": said, "data": said, "pipeline": text,
        "stages": [{"size": said, "sampler": {"name": text, "steps": said}, "guidance": [{"scale": said}]}],
    },
    "values": {
        "chance": number, "ceiling_same_size": {"hit": number},
        "generated": {
            **dict.fromkeys(("hit", "concept_at_1", "concept_at_5", "style"), number), "interval": numbers,
            "intervals": dict.fromkeys(("concept_at_1", "concept_at_5", "style"), numbers),
        },
    },
}  # fmt: skip
GENERATE_FORM: Form = {
    "settings": {"count": number, "model": said, "size": said, "steps": said, "dtype": said},
    "values": {"after_loading_seconds": {"*": {"median": number, "runs": numbers, "reason": text}}},
}  # fmt: skip


def planned_peaks(memory: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(host, device) bytes that a suite row's plan says for its measured peaks; None for a place without activations.

    A host's process holds weights, and other rows', before the measured call; a device's peak counts them.
    """
    weights, activations = memory.get("planned_weight_bytes"), memory.get("planned_activation_bytes")
    if weights is None or activations is None:
        return None, None
    if memory.get("device_peak_bytes") is not None:
        return None, weights + activations
    before = memory.get("host_before_bytes")
    return None if before is None else before + activations, None
