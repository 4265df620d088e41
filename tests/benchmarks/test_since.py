"""What a checkout is held against an earlier commit by."""

from __future__ import annotations

from benchmarks import since


def test_ratios_are_of_the_turns_and_not_of_the_medians():
    found = since.compared({"before": [1.0, 2.0, 4.0], "now": [2.0, 2.0, 2.0]})
    assert found["ratio"]["median"] == 1.0
    assert found["ratio"]["runs"] == [2.0, 1.0, 0.5]
    assert found["now"]["median"] == 2.0


def test_both_commits_read_the_earlier_ones_weights(tmp_path):
    (tmp_path / "zoo" / "presets").mkdir(parents=True)
    preset = "conditioners: {text: {weights: emoji-clip}}\nstages: [{denoiser: {weights: emoji-latent-64}}]\n"
    (tmp_path / "zoo" / "presets" / "a.yaml").write_text(preset)
    text = since._config(tmp_path, "a").read_text()
    weights = tmp_path / "zoo" / "weights"
    assert f"weights: {weights}/emoji-clip.yaml}}" in text
    assert f"weights: {weights}/emoji-latent-64.yaml}}" in text
