"""Benchmark records as a page and as CSV: leaderboard, Pareto fronts, samples, profile, run against run.

    records = read_records([Path("benchmarks/results")])
    Path("report.html").write_text(page(records))

The page is made by a template and needs neither torch nor a network. Records are untrusted until they are checked: see
`zoo.records.benchmark_record` (fields), `pictures` (paths) and `page` (text, and what a browser may run).
"""

from zoo.bench.report.csv_views import views, write_views
from zoo.bench.report.model import Cell, Column, Record, Row
from zoo.bench.report.page import page
from zoo.bench.report.records import read_record, read_records

__all__ = ["Cell", "Column", "Record", "Row", "page", "read_record", "read_records", "views", "write_views"]
