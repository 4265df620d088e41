"""Lines are counted as the code says them, however it is laid out."""

from __future__ import annotations

from benchmarks.lines import bare, count

CODE = '''
"""A module."""

# Why.
import os


class A:
    """A class."""


def f(x: int) -> int:
    """A function."""
    text = """kept
    as it is"""
    return [
        1,
        2,
    ][x]  # fmt: skip


def g() -> None:
    """Nothing."""
'''


def test_docstrings_comments_blanks_and_layout_are_not_counted():
    assert '"""' not in bare(CODE)
    # import, class, def, text, return, def: an empty body stands on its head's line
    assert count({"zoo/a.py": CODE}) == {"zoo/a.py": 6}
    assert count({"zoo/a.py": CODE.replace("import os", "import os\nimport sys")}) == {"zoo/a.py": 7}
    long = "x = [" + ", ".join(f"'a long element {i}'" for i in range(10)) + "]\n"
    assert count({"zoo/a.py": long, "zoo/b/c.py": ""}) == {"zoo/a.py": 12, "zoo/b/c.py": 0}
