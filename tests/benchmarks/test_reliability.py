"""A few trials of every part of `python -m benchmarks.reliability`, and that its judge sees what is wrong."""

from __future__ import annotations

import json

import pytest

from benchmarks.reliability import __main__ as command
from benchmarks.reliability import good
from benchmarks.reliability.trial import Found, tried

FINE = Found(0, "", True, 0.1, 1.0, [], [])


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in command.PARTS if part not in ("saves", "training")])
def test_a_few_trials_of_each_part_find_nothing(part, tmp_path):
    found = command.PARTS[part](tmp_path, 0.002 if part in ("mutants", "fuzz") else 0.04)
    assert found["cases"] > 0
    assert found["faults"] == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (FINE._replace(code=None), "hung"), (FINE._replace(code=-9), "ended with -9"),
        (FINE._replace(code=1, stderr="error: unexpected KeyError: 'a'; run again"), "untyped"),
        (FINE._replace(code=2, printed=False), "without a sentence"), (FINE._replace(seconds=1.2), "slow"),
        (FINE._replace(grown=66.0), "large"), (FINE._replace(begun=["os.system"]), "began os.system"),
        (FINE._replace(outside=["/a"]), "wrote /a"),
    ],
)  # fmt: skip
def test_the_judge_sees_each_fault(found, said):
    assert FINE.faults(FINE) == []
    (fault,) = found.faults(FINE)
    assert said in fault


def test_a_sentence_and_what_a_verb_prints_are_no_faults():
    assert FINE._replace(code=2, stderr="error: no such file; give one", printed=False).faults(FINE) == []
    assert FINE._replace(code=1).faults(FINE) == []


@pytest.mark.slow
def test_a_trial_sees_what_is_written_outside(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text(json.dumps(good.CONFIG))
    outside = tmp_path / "outside.png"
    inside, beyond = tried(
        [["generate", "a", "--model", "config.yaml", "-o", o] for o in ("a.png", str(outside))], home
    )
    assert inside.faults() == []
    assert outside.exists()
    assert any("wrote" in fault for fault in beyond.faults())


def test_a_record_keeps_the_parts_of_other_sittings(tmp_path):
    for name, faults in (("plugins", []), ("disks", ["one"])):
        command._keep(tmp_path / "r.json", name, {"cases": 3, "faults": faults})
    values = json.loads((tmp_path / "r.json").read_text())["values"]
    assert {name: value["faults"] for name, value in values.items()} == {"plugins": 0, "disks": 1}
    assert values["disks"]["first_faults"] == ["one"]
