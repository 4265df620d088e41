import importlib
import sys

import pytest

from tests.config import toys
from zoo.schema.registry import Registry


@pytest.fixture
def components(tmp_path, monkeypatch) -> Registry:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield toys.write_package(folder)
    came = {name for name in sys.modules if name.startswith("toys_for_zoo")}
    assert came <= {"toys_for_zoo", "toys_for_zoo.walking"}  # nothing here may import what isn't planned with
