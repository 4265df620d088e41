"""What drawing an image will take, before any weight is there, and the settings that fit into a given memory.

Settings are tried from those that leave images as they are to those that change them, and among equals from the
quickest: bfloat16 changes images by rounding, eight bits a little more, tiles where they meet. What Python, torch or a
CUDA context take is `RESERVE`, kept free beside the pipeline.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zoo.bench.needs import WIDTHS, How, Needs, needs_of, unread
from zoo.config.check import resolve
from zoo.config.models import find_model, model_names, read_model
from zoo.families.stand_in import write_stand_in
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.unknown import unknown

RESERVE = 600_000_000  # bytes
_PRECISIONS = ("float32", "bfloat16")  # that are tried where none is given
_CHANGED = {"bfloat16": 1, "float16": 1, "int8": 2, "tiles": 4}  # how much images are, in the order of trying
_DECODE_TIME = {"whole": 1.0, "rows": 1.1, "tiles": 1.5}
_MOVING = 5_000  # operations in the time that a byte takes to a device: 100 TFLOP/s over 20 GB/s
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a pipeline takes. how: as was requested, or with less memory where a limit was given; None where nothing
    that was tried fits, and `least` is what would be needed."""

    name: str
    size: tuple[int, ...]
    evaluations: int
    needs: Needs
    asked: How
    how: How | None
    limit: int | None = None
    least: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        how = self.how or self.asked
        parts = [
            {
                "name": part.name, "kind": part.kind, "parameters": part.parameters,
                "weight_bytes": part.weight_bytes(how), "activation_bytes": part.peak_bytes(how),
                "operations": part.operations, "calls": part.calls,
            }
            for part in self.needs.parts
        ]  # fmt: skip
        return {
            "schema": "zoo.plan/1", "name": self.name, "size": list(self.size), "evaluations": self.evaluations,
            "operations_an_image": self.needs.operations, "parts": parts, "settings": asdict(how),
            "weight_bytes": self.needs.weight_bytes(how), "peak_bytes": self.needs.peak_bytes(how),
            "reserve_bytes": RESERVE, "memory_bytes": self.limit, "least_bytes": self.least,
            "fits": None if self.limit is None else self.how is not None,
            "alternatives": [
                asdict(other) | {"peak_bytes": self.needs.peak_bytes(other)} for other in alternatives(self)
            ],
        }  # fmt: skip


def read_bytes(text: str) -> int:
    """`8GB`, `8 GiB`, `800M` or a number of bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0.0:
        raise UsageError(f"'{text[:40]}' is no amount of memory; give one like 8GB", code="option-value-invalid")
    return int(float(found[1]) * _UNITS[found[2]])


def read_pixels(text: str | None) -> int | tuple[int, ...] | None:
    """`1024` or `768x1024`: each axis of the samples."""
    if text is None:
        return None
    axes = text.lower().split("x")
    if not all(axis.isdecimal() and axis.isascii() and int(axis) > 0 for axis in axes):
        raise UsageError(f"size is '{text[:40]}'; give pixels, or like 768x1024", code="size-invalid")
    return int(axes[0]) if len(axes) == 1 else tuple(map(int, axes))


@contextmanager
def shortcuts_of(config: Any, shortcuts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The shortcuts, with a stand-in for the file of a published model that isn't there."""
    given = {key: value for key, value in shortcuts.items() if value is not None}
    if not isinstance(config, str) or config not in model_names() or "weights" in given:
        yield given
        return
    model = read_model(config)
    try:
        find_model(model)
    except WeightsError:
        with tempfile.TemporaryDirectory() as folder:
            yield given | {"weights": write_stand_in(model.variant, Path(folder) / model.files[0])}
    else:
        yield given


def plan(
    config: Any, overrides: Any = None, *, size: int | tuple[int, ...] | None = None, batch: int = 1,
    precision: str | None = None, memory: int | None = None, **shortcuts: Any,
) -> Plan:  # fmt: skip
    """What a pipeline takes: by name, by file, or a config.

    memory: bytes that there are; then settings are looked for that fit. The precision is float32, or with `memory`
    free, where none is given.
    """
    if precision is not None and precision not in WIDTHS:
        raise UsageError(unknown("precision", precision, WIDTHS), code="choice-unknown")
    if batch < 1:
        raise UsageError(f"batch is {batch}; give 1 or more", code="number-out-of-range")
    with shortcuts_of(config, shortcuts) as given:
        resolved = resolve(config, overrides, given)
        pipe = unread(resolved)
        needs = needs_of(pipe, size=size)
    asked = How(precision=precision or "float32", batch=batch)
    evaluations = sum(part.calls for part in needs.parts if part.kind == "denoiser")
    made = Plan(
        name=str(resolved.config["name"]), size=pipe.stages[-1].lengths(size), needs=needs, evaluations=evaluations,
        asked=asked, how=asked, limit=memory,
    )  # fmt: skip
    if memory is None:
        return made
    tried = settings(made, (precision,) if precision else _PRECISIONS)
    fits = [how for how in tried if needs.peak_bytes(how) + RESERVE <= memory]
    return replace(made, how=fits[0] if fits else None, least=min(needs.peak_bytes(how) for how in tried) + RESERVE)


def settings(made: Plan, precisions: tuple[str, ...]) -> list[How]:
    """What is tried, the best first."""
    ways = {way: None for part in made.needs.parts for way in part.activations}
    batches = [made.asked.batch]
    while batches[-1] > 1:
        batches.append((batches[-1] + 1) // 2)
    found = [
        How(precision=precision, batch=batch, offload=offload, decode=decode, weights=weights)
        for precision in precisions for batch in batches for offload in (False, True)
        for decode in ways for weights in (None, "int8")
    ]  # fmt: skip
    return sorted(found, key=lambda how: (_changed(how), _time(made.needs, how)))


def _changed(how: How) -> int:
    return sum(_CHANGED.get(str(value), 0) for value in (how.precision, how.weights, how.decode))


def _time(needs: Needs, how: How) -> float:
    """What an image takes, in operations of float32; a smaller batch uses a device a little less well."""
    work = sum(
        part.operations * part.calls * (_DECODE_TIME[how.decode] if part.kind == "autoencoder" else 1.0)
        for part in needs.parts
    )
    moved = needs.weight_bytes(how) * _MOVING / how.batch if how.offload else 0.0
    return work * (WIDTHS[how.precision] / 4) * (1.05 if how.weights else 1.0) * (1 + 0.05 / how.batch) + moved


def alternatives(made: Plan) -> list[How]:
    """What takes less memory, step by step, with each precision."""
    ways = {way for part in made.needs.parts for way in part.activations}
    rows = "rows" if "rows" in ways else "whole"
    plain = [How(precision=precision, batch=made.asked.batch) for precision in _PRECISIONS]
    less = [replace(plain[1], offload=True), replace(plain[1], offload=True, decode=rows)]
    return list(dict.fromkeys([*plain, *less, replace(less[1], weights="int8", batch=1)]))


def arguments(how: How) -> tuple[list[str], dict[str, Any]]:
    """Settings as the options of `zoo generate`, and as the arguments of `zoo.build`."""
    memory = {"offload": how.offload, "decode": how.decode, "weights": how.weights}
    memory = {key: value for key, value in memory.items() if value not in (False, None, "whole")}
    options = [] if how.precision == "float32" else ["--dtype", how.precision]
    options += ["--offload"] if how.offload else []
    options += [] if how.decode == "whole" else ["--decode", how.decode]
    options += [] if how.weights is None else ["--quantize", how.weights]
    options += [] if how.batch == 1 else ["--batch-size", str(how.batch)]
    built = {} if how.precision == "float32" else {"dtype": how.precision}
    return options, built | ({"memory": memory} if memory else {})
