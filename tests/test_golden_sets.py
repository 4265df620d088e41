"""Tests of the mark `gold`: a set that is not there is said to be not there, and copies are copies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import golden_sets

ROOT = Path(__file__).parents[1]
# Recorded for zoo with the originals' code, or cut from a larger set of ../shared/golden; the folder has none of them.
OWN = {
    "ddpm/whole_numbers", "edm/skip_ncsnpp", "iddpm/whole_numbers", "sampling/guided_diffusion_excerpt",
    "sampling/ldm_excerpt", "score_sde/ncsnpp_skip_ve", "score_sde/ncsnpp_skip_vp",
}  # fmt: skip
TESTS = """
import pytest

from tests import golden_sets


@pytest.mark.gold("family/large")
def test_of_a_marked_set():
    assert golden_sets.folder("family/large").is_dir()


@pytest.mark.parametrize("name", golden_sets.cases("ldm/autoencoder_vq", "family/other"))
def test_of_each_set(name):
    assert golden_sets.folder(name).is_dir()


def test_of_an_unmarked_set():
    with pytest.raises(LookupError, match=r"mark the test with pytest\\.mark\\.gold\\('family/large'\\)"):
        golden_sets.folder("family/large")
"""


def run(folder, tests, *options, shared):
    """pytest's exit status and output for a file of tests, with sets in the folder `shared`."""
    file = folder / "test_it.py"
    file.write_text(tests)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest"]
    environment = {**os.environ, "ZOO_GOLDEN": str(shared), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(file)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_gold_tests_without_their_sets_are_counted_and_named(tmp_path):
    status, said = run(tmp_path, TESTS, shared=tmp_path / "nothing")
    assert (status, "2 passed, 2 skipped" in said) == (0, True), said
    (line,) = [line for line in said.splitlines() if line.startswith("NOT RUN")]
    assert line.startswith(f"NOT RUN: 2 gold tests; {tmp_path / 'nothing'} ")
    assert line.endswith("family/large, family/other")


@pytest.mark.slow
def test_gold_tests_run_where_their_sets_are(tmp_path):
    for name in ("large", "other"):
        (tmp_path / "family" / name).mkdir(parents=True)
        (tmp_path / "family" / name / "config.json").write_text("{}")
    status, said = run(tmp_path, TESTS, shared=tmp_path)
    assert (status, "4 passed" in said, "NOT RUN" in said) == (0, True, False), said
    assert "2 passed, 2 deselected" in run(tmp_path, TESTS, "-m", "not gold", shared=tmp_path)[1]


@pytest.mark.slow
def test_every_other_skipped_test_is_named_too(tmp_path):
    skipped = "import pytest\n\n\ndef test_it():\n    pytest.skip('there is no moon')\n"
    assert "NOT RUN: 1 test; there is no moon" in run(tmp_path, skipped, shared=tmp_path)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "error"), [("'ldm/autoencoder_vq'", "is in tests/golden; take the mark"), ("", "names no set")]
)
def test_a_wrong_mark_is_refused(tmp_path, mark, error):
    wrong = f"import pytest\n\n\n@pytest.mark.gold({mark})\ndef test_it():\n    pass\n"
    status, said = run(tmp_path, wrong, shared=tmp_path)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert error in said


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_copies_are_the_shared_sets_byte_for_byte():
    names = {c.parent.relative_to(golden_sets.COPIED).as_posix() for c in golden_sets.COPIED.glob("*/*/config.json")}
    shared = {name for name in names if (golden_sets.SHARED / name).is_dir()}
    if not shared:
        pytest.skip(f"no recorded outputs in {golden_sets.SHARED} to compare those in tests/golden with")
    assert names - shared == OWN
    for name in shared:
        assert files(golden_sets.COPIED / name) == files(golden_sets.SHARED / name), name
