"""Rows for people on a terminal, and for programs in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere one row a line, tabs between the columns and no heading."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i < len(columns) - 1)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    # Only the last column may wrap. Where the others alone don't fit, each row is a list of its cells.
    widths = [max(cell_len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    longest = max(cell_len(word) for *_, cell in (columns, *rows) for word in (cell.split() or [""]))
    if len(columns) > 3 and sum(width + 1 for width in widths[:-1]) + longest > console.width:
        for row in rows:
            pairs = Table(box=None, pad_edge=False, show_header=False)
            pairs.add_column(style="bold", no_wrap=True, min_width=max(map(len, columns)))
            pairs.add_column()
            for name, cell in zip(columns, row, strict=True):
                pairs.add_row(name, Text(cell))
            console.print(pairs)
            console.print()
        return
    console.print(table)
