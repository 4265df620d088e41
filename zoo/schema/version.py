"""The versions of zoo, Python and packages, for whatever writes them down."""

from __future__ import annotations

__version__ = "0.1.0"


def installed(*packages: str) -> dict[str, str | None]:
    """Python's version and those of packages, from their metadata: nothing is imported; None where one is missing."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
