"""Kinds of rows: the models that rows of a kind may name, and the function that measures them.

zoo has two. Others are passed to `read_suite`, as the repository's comparisons with other
libraries do (`benchmarks/peers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RowKind:
    """One kind of rows."""

    measure: str  # module:function, imported when such rows run; called with the run and the rows of one group
    models: tuple[str, ...] | None = None  # what `model` may name where that is no pipeline; None: pipelines
    together: bool = False  # whether rows of one group take turns; else a row compares within itself
    packages: tuple[str, ...] = ()  # whose versions the record holds beside zoo's own


PIPELINES = RowKind(measure="zoo.bench.run:measure_pipelines", together=True)
ROW_KINDS: Mapping[str, RowKind] = {"pipelines": PIPELINES, "checks": RowKind(measure="zoo.bench.checks:compare")}
