"""Variants of a judge: an image seen in several places, the mean of weights, and the table of what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from benchmarks import judge_table
from benchmarks.judge_variants import Shifted, mean_of
from zoo.config.cards import read_card

AVERAGE = Path(__file__).resolve().parents[2] / "recipes/emoji/average.py"


class Corner:
    """A CLIP that sees the upper left pixel alone, as red or not."""

    texts = None

    def images(self, images):
        red = images[:, 0, 0, 0].float() / 255
        return torch.stack([red, 1 - red], dim=1)


def test_a_shifted_image_is_seen_five_times_with_white_coming_in():
    images = torch.zeros(1, 3, 100, 100, dtype=torch.uint8)
    found = Shifted(Corner()).images(images)
    # The corner is white, so red, in the two of five that move it inwards.
    assert found[0].tolist() == pytest.approx((torch.tensor([2.0, 3.0]) / 13**0.5).tolist(), abs=1e-6)
    white = torch.full((1, 3, 100, 100), 255, dtype=torch.uint8)
    assert Shifted(Corner()).images(white)[0].tolist() == [1.0, 0.0]


def test_the_mean_of_weights_is_written_with_what_it_is_the_mean_of(tmp_path):
    card = read_card("emoji-evaluator")
    told = [sys.executable, str(AVERAGE), "emoji-evaluator", "emoji-evaluator", "--name", "mean", "--folder", tmp_path]
    subprocess.run(told, check=True, capture_output=True, cwd=AVERAGE.parents[2])
    made = read_card(str(tmp_path / "mean.yaml"))
    assert [part["sha256"] for part in made.raw["provenance"]["mean_of"]] == [card.sha256] * 2
    assert made.raw["file"]["dtype"] == "int8"
    assert "published" not in made.raw
    images = torch.randint(0, 256, (2, 3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    once, twice = (zoo.load(name).images(images) for name in ("emoji-evaluator", str(tmp_path / "mean.yaml")))
    assert (once * twice).sum(dim=1).min() > 0.999  # the same but for a second rounding to eight bits
    torch.testing.assert_close(mean_of(["emoji-evaluator"] * 2).images(images), once, rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_are_not_averaged(tmp_path):
    told = [sys.executable, str(AVERAGE), "emoji-evaluator", "emoji-kl-f4", "--name", "mean", "--folder", tmp_path]
    done = subprocess.run(told, capture_output=True, text=True, cwd=AVERAGE.parents[2])
    assert done.returncode == 1
    assert "average sittings of one network" in done.stderr


def test_the_table_of_variants_says_what_a_judge_that_never_hits_would_reach(tmp_path):
    assert judge_table.variants(tmp_path) == judge_table.MISSING
    reader = {"agreement": 0.7, "kappa": 0.25, "both": 1, "reader_only": 2, "judge_only": 1, "neither": 6, "count": 10}
    val = {"hit": 0.5, "concept_at_5": 0.6, "style": 0.7}
    record = {"values": {"shipped": {"val": val, "other_hand": {"concept_at_5": 0.4}, "blind": reader}}}
    (tmp_path / "variants-of-the-judge.json").write_text(json.dumps(record))
    told = judge_table.variants(tmp_path)
    assert "| shipped | 50.0 % | 60.0 % | 70.0 % | 40.0 % | 70 %, 0.25 |" in told
    assert "never hits would agree with the reader on `blind` 70 %" in told
