"""docs/families.md: every variant has a row, and every test that the page names as its proof is there."""

import re
from pathlib import Path

from zoo.families.stable_diffusion.variants import VARIANTS

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "families.md").read_text()


def test_every_variant_has_a_row_and_every_proof_is_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") or line.startswith("| ")]
    named = " ".join(row.split("|")[1] for row in rows)
    assert {key for key in VARIANTS if f"`{key}`" not in named} == set()
    proofs = set(re.findall(r"`(test_\w+)`", PAGE))
    tests = "".join(file.read_text() for file in HERE.glob("test_*.py"))
    assert len(proofs) > 20
    assert {proof for proof in proofs if f"def {proof}(" not in tests} == set()
