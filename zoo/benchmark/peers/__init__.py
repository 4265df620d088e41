"""The same networks in zoo and in diffusers, in turn.

| module | what it compares |
|---|---|
| `exported` | a whole text pipeline that diffusers can read: one evaluation, one decode, the pipeline |
| `cell` | everything else, on fresh weights made on the device: the sampling loop, one decode; eager and compiled |
| `networks`, `loops`, `ways` | diffusers' networks with zoo's tensors, both loops, and how each row runs them |
| `kernels`, `ahead` | kernels a step; compilations before a suite, and their seconds |
| `agreement` | what a comparison says |
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from zoo.benchmark.peers.agreement import agreement, pair
from zoo.benchmark.suite import Row

if TYPE_CHECKING:
    from zoo.benchmark.run import Run

__all__ = ["agreement", "compare", "pair"]
LATE = "its time was over before it began"


def compare(run: Run, rows: list[Row]) -> None:
    """Every row of a group against diffusers; those that differ by the fast path alone are one cell."""
    from zoo.benchmark import record
    from zoo.benchmark.peers import cell, exported

    for _, some in groupby(rows, key=lambda row: replace(row.asked, fast=False)):
        together = list(some)
        if cell.late(run):
            run.record["rows"] += [record.row_of(row, "not reached", LATE) for row in together]
        elif exported.holds(together[0]):
            exported.compare(run, together)
        else:
            try:
                cell.compare_cell(run, together)
            except Exception as error:  # of building it: nothing is measured yet
                there = {row["id"] for row in run.record["rows"]}
                run.record["rows"] += [
                    record.row_of(row, "failed", cell.said(error))
                    for row in together
                    if not any(identity.startswith(row.id) for identity in there)
                ]
                cell.release(together[0].asked.device)
        run.save()
