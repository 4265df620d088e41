"""Packages put on the path as an installer does, without one: modules, and a .dist-info that says what they offer."""

from __future__ import annotations

import importlib
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from zoo.schema.registry import registry

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "zoo-example-plugin"


def write_info(site: Path, *, name: str, version: str, points: Mapping[str, str]) -> None:
    """A package's metadata, as a wheel has it."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[zoo.plugins]\n{lines}" if points else "")


def install_example(site: Path) -> None:
    """The example package, by what its pyproject says."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        shutil.copytree(EXAMPLE / package, site / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    about = project["project"]
    write_info(site, name=about["name"], version=about["version"], points=about["entry-points"]["zoo.plugins"])


@contextmanager
def on_the_path(site: Path, monkeypatch: pytest.MonkeyPatch, *packages: str) -> Iterator[Path]:
    """A folder of packages that this process finds, and a registry that knows them."""
    site.mkdir(exist_ok=True)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    registry.cache_clear()
    try:
        yield site
    finally:
        registry.cache_clear()
        for name in [n for n in sys.modules if n.partition(".")[0] in packages]:
            del sys.modules[name]
