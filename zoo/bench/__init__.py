"""Suites of configurations, measured in interleaved rounds, with quality and cost in one record.

| module | what it holds |
|---|---|
| `rows` | what a suite, a row and their settings are |
| `suite` | `zoo.suite/1`: a YAML file -> rows, checked without torch |
| `record` | a run's record, written so that a killed run loses no finished row |
| `machine` | processor, accelerators, versions, commit; the peak that this machine reaches |
| `needs` | memory and operations on the meta device, before anything runs |
| `measure` | rounds of timed calls; memory, energy, operations |
| `profile` | the time of a call by part |
| `estimate` | how long a suite takes, from one step of each kind of row |
| `row_kinds` | kinds of rows, and what measures each |
| `pipelines`, `checks` | what a row of each kind calls |
| `quality` | distances and hit scores of the same configuration |
| `run` | a suite from its first row to its last |
"""
