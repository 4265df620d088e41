"""The benchmark of Stable Diffusion's parts, on tiny ones: what it measures, what it compares, and its table."""

import json

import pytest

from benchmarks import stable_diffusion as bench
from benchmarks.stable_diffusion_table import MISSING, table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("parts")
    bench.write(place, tiny=True)
    return place


@pytest.mark.slow
@pytest.mark.peer
def test_both_libraries_load_the_same_file_and_agree(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    for library in ("zoo", "diffusers"):
        found = bench.load_once(library, folder)
        assert 0 < found["load"] <= found["ready"]
    evaluated = bench.evaluate(folder, "float32", 2, 8)
    assert evaluated["plain"].keys() == {"zoo", "diffusers"}
    assert evaluated["fast"].keys() == {"zoo fast", "diffusers"}
    assert all(len(runs) == 2 for part in ("plain", "fast") for runs in evaluated[part].values())
    assert max(evaluated["apart"].values()) < 1e-5
    assert max(bench.agree(folder).values()) < 1e-5


@pytest.mark.slow
@pytest.mark.peer
def test_other_weights_are_seen(folder, tmp_path):
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    other = UNet2DConditionModel.from_pretrained(folder / "unet")
    with torch.no_grad():
        other.conv_out.weight += 0.01
    ours = bench.loader("zoo", folder)("unet").network
    x, context, at = torch.ones(1, 4, 8, 8), torch.ones(1, 3, 32), torch.full((1,), 501.0)
    with torch.no_grad():
        assert bench._apart(ours(x, at, context=context), other(x, at, encoder_hidden_states=context).sample) > 1e-5


def test_the_table_says_what_the_record_says(tmp_path):
    assert table(tmp_path) == MISSING

    def runs(*values):
        return {"median": sorted(values)[len(values) // 2], "runs": list(values)}

    loads = {
        name: {"load_seconds": runs(s, s), "ready_seconds": runs(2 * s, 2 * s), "peak_of_file": runs(1.01)}
        for name, s in (("zoo", 0.1), ("diffusers", 0.25))
    }
    evaluated = {
        "seconds": runs(2.0), "diffusers_seconds": runs(3.0), "times_faster": runs(1.4, 1.5, 1.6), "apart": 2e-6,
    }  # fmt: skip
    both = {"machine": {"processor": "a processor"}, "versions": {"torch": "2", "diffusers": "0"}}
    of_loads = {
        "bytes": 3_438_167_536, "first_load_seconds": 7.0, "load": loads, "explain_seconds": runs(0.4),
        "times_faster": {"load": runs(2.4, 2.5, 2.6), "ready": runs(2.5)}, "apart": {"text_encoder": 1e-6},
    }  # fmt: skip
    of_evaluations = {"bfloat16": {"zoo": evaluated, "zoo fast": evaluated}}
    for name, values in (("loads", of_loads), ("evaluations", of_evaluations)):
        record = {"values": values, "settings": {"rounds": 3, "side": 64}, **both}
        (tmp_path / f"stable-diffusion-{name}.json").write_text(json.dumps(record))
        said = table(tmp_path)
        assert ("evaluate it" in said) == (name == "evaluations")
    assert "| load the U-Net, its hash known | 0.10 s | 0.25 s | 2.50x (2.40 to 2.60) |" in said
    assert "| evaluate it in bfloat16, fast path | 2.00 s | 3.00 s | 1.50x (1.40 to 1.60) |" in said
    assert "3.44 GB" in said
    assert "U-Net in bfloat16 2.0e-06" in said
