import importlib
import sys

import pytest

from tests.config import toys
from zoo.registry import Registry


@pytest.fixture
def components(tmp_path, monkeypatch) -> Registry:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield toys.write_package(folder)
    assert "toys_for_zoo" not in sys.modules  # nothing here may import a component
