"""Benchmark records as a page and as CSV: leaderboard, Pareto fronts, samples, profile, run against run; and a page of
training runs.

    records = read_records([Path("benchmarks/results")])
    Path("report.html").write_text(page(records))
    Path("runs.html").write_text(runs_page(read_runs(run_folders([Path("runs")]))))

The page is made by a template and needs neither torch nor a network. Records are untrusted until they are checked: see
`zoo.records.benchmark_record` (fields), `pictures` (paths) and `page` (text, and what a browser may run).
"""

from zoo.bench.report.csv_views import views, write_views
from zoo.bench.report.model import Cell, Column, Record, Row
from zoo.bench.report.page import page
from zoo.bench.report.records import read_record, read_records
from zoo.bench.report.runs import Run, read_run, read_runs, run_folders
from zoo.bench.report.runs_page import runs_page

__all__ = [
    "Cell", "Column", "Record", "Row", "Run", "page", "read_record", "read_records", "read_run", "read_runs",
    "run_folders", "runs_page", "views", "write_views",
]  # fmt: skip
