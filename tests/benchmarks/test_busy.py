"""benchmarks.busy: a process of each kind draws as that kind says."""

from benchmarks import busy


def test_a_warm_process_draws_by_the_python_interface_and_says_how_long_each_image_took():
    assert 0.0 < busy.warm("1 thread", 1, limit=120.0) < 120.0


def test_a_process_that_takes_longer_than_the_limit_counts_as_that_long():
    assert busy.warm("default", 1, limit=0.05) == 0.05
