"""Tracked files stay within their sizes, so that a clone is quick and every weight that is added is thought about."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MIB = 2**20
# A clone, its data and the wheels it needs travel within 60 MiB to a machine with a GPU.
ALL = 36 * MIB
# The shipped weights: small models, so that every pipeline of the README works without a download.
WEIGHTS = 24 * MIB
# Recorded outputs, a small set or more of every family; the larger sets are read from elsewhere (the mark `gold`).
GOLDENS = 4 * MIB
# Code, docs with their images, recipes, records with their sheets: what the others leave of all.
OTHERS = 9 * MIB


def tracked():
    """Bytes of each tracked file, by its path in the repository."""
    try:
        top = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("tracked files were not measured; there is no git")
    if top.returncode or Path(top.stdout.strip()).resolve() != ROOT.resolve():
        pytest.skip(f"tracked files were not measured; {ROOT} is no clone: {top.stderr.strip()}")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name: (ROOT / name).lstat().st_size for name in listed.split("\0") if name and (ROOT / name).exists()}


def whose(name):
    """Which limit a file counts towards besides that of all."""
    if name.startswith("zoo/weights/"):
        return "weights"
    return "goldens" if name.startswith("tests/golden/") else "others"


@pytest.mark.parametrize(("part", "most"), [("weights", WEIGHTS), ("goldens", GOLDENS), ("others", OTHERS)])
def test_a_part_of_the_tracked_files_is_within_its_limit(part, most):
    sizes = {name: size for name, size in tracked().items() if whose(name) == part}
    largest = sorted(sizes, key=sizes.__getitem__)[-5:]
    assert 0 < sum(sizes.values()) <= most, f"{sum(sizes.values()) / MIB:.2f} MiB of {part}, the largest {largest}"


def test_all_tracked_files_are_within_their_limit():
    assert sum(tracked().values()) <= ALL, f"{sum(tracked().values()) / MIB:.2f} MiB"
