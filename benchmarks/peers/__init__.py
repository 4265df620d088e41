"""zoo beside other libraries, in turn: `python -m benchmarks.peers SUITE`.

| module | what it compares |
|---|---|
| `exported` | a whole text pipeline that diffusers can read: one evaluation, one decode, the pipeline |
| `cell` | everything else, on fresh weights made on the device: the sampling loop, one decode; eager and compiled |
| `networks`, `loops`, `ways` | diffusers' networks with zoo's tensors, both loops, and how each row runs them |
| `kernels` | kernels a step |
| `ahead`, `compilations` | compilations before a suite, and their seconds |
| `agreement`, `entries` | what a comparison says, and what a cell writes |
| `metrics`, `metric_libraries` | Inception features, FID and KID beside other libraries of metrics |
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.bench.row_kinds import ROW_KINDS as ZOOS
from zoo.bench.row_kinds import RowKind
from zoo.bench.rows import Row

if TYPE_CHECKING:
    from zoo.bench.run import Run

SUITES = Path(__file__).parent / "suites"
ROW_KINDS = {
    **ZOOS,
    "diffusers": RowKind(measure="benchmarks.peers:compare", packages=("diffusers", "transformers")),
    "metrics": RowKind(
        measure="benchmarks.peers.metrics:compare", models=("inception-2015",), together=True,
        packages=("torch-fidelity", "torchmetrics", "clean-fid"),
    ),
}  # fmt: skip


def compare(run: Run, rows: list[Row]) -> None:
    """Every row against diffusers."""
    from benchmarks.peers import cell, exported
    from zoo.bench import record

    for row in rows:
        reason = None
        try:
            (exported if exported.holds(row) else cell).compare_row(run, row)
        except Exception as error:  # of building it, or of another library
            reason = cell.said(error)
        if reason is not None:
            run.record["rows"].append(record.row_of(row, "failed", reason))
        run.save()  # a device that is past use ends the process in what follows
        cell.release(row.asked.device)
