"""The same networks in zoo and in diffusers, in turn.

| module | what it compares |
|---|---|
| `exported` | a whole text pipeline that diffusers can read: one evaluation, one decode, the pipeline |
| `cell` | everything else, on fresh weights made on the device: the sampling loop, one decode; eager and compiled |
| `networks`, `loops`, `ways` | diffusers' networks with zoo's tensors, both loops, and how each row runs them |
| `kernels` | kernels a step |
| `ahead`, `compilations` | compilations before a suite, and their seconds |
| `agreement`, `entries` | what a comparison says, and what a cell writes |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.benchmark.peers.agreement import agreement, pair
from zoo.benchmark.suite import Row

if TYPE_CHECKING:
    from zoo.benchmark.run import Run

__all__ = ["agreement", "compare", "pair"]


def compare(run: Run, rows: list[Row]) -> None:
    """Every row against diffusers."""
    from zoo.benchmark import record
    from zoo.benchmark.peers import cell, exported

    for row in rows:
        reason = None
        try:
            (exported if exported.holds(row) else cell).compare_row(run, row)
        except Exception as error:  # of building it, or of another library
            reason = cell.said(error)
        if reason is not None:
            run.record["rows"].append(record.row_of(row, "failed", reason))
        cell.release(row.asked.device)
        run.save()
