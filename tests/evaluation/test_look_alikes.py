"""The rule by which images leave a score: all but equal pixels, found without looking at every pair."""

import json

import numpy as np
import torch
from PIL import Image

from tests.refusals import refused
from zoo.evaluation.inputs.duplicates import LIMIT, kept_places, look_alikes, nearest_difference
from zoo.evaluation.inputs.sources import open_source


def noise(count, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(20, 236, (count, 3, 32, 32), dtype=np.uint8))


def test_the_rule_is_the_mean_difference_over_all_pixels():
    others = noise(5, 0)
    images = torch.cat([others[2:3], others[3:4] + 3, others[4:5] + 5, noise(1, 1)])
    least, place = nearest_difference(images, others)
    assert place.tolist() == [2, 3, -1, -1]
    assert least.tolist() == [0.0, 3.0, float("inf"), float("inf")]
    assert look_alikes(images, others).tolist() == [True, True, False, False]
    assert look_alikes(images, others, limit=5.0).tolist() == [True, True, True, False]


def test_no_pair_within_the_limit_is_missed():
    others = noise(4, 2)
    draw = np.random.default_rng(3)
    shaken = others.short() + torch.from_numpy(draw.integers(-8, 9, tuple(others.shape), dtype=np.int16))
    images = shaken.clamp(0, 255).to(torch.uint8)
    apart = (images.short() - others.short()).abs().float().mean(dim=(1, 2, 3))
    assert look_alikes(images, others, limit=float(apart.max()) + 1e-3).all()
    assert not look_alikes(images, others, limit=float(apart.min()) - 1e-3).any()
    assert float(apart.min()) > LIMIT


def test_other_sizes_are_refused():
    with refused("image-shape-wrong"):
        look_alikes(noise(1, 0), noise(1, 0)[:, :, :16, :16])


def test_a_split_is_named_without_what_looks_like_another(tmp_path):
    draw = np.random.default_rng(0)
    arrays = [draw.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(5)]
    arrays[3] = arrays[1].copy()  # a test row that is a training image
    rows = []
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"thing {i}", "split": "train" if i < 2 else "test"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert kept_places(str(tmp_path), "test", "train") == (0, 2)
    source = open_source(f"{tmp_path}:test-unlike-train", size=16)
    assert [row["file_name"] for row in source.rows] == source.names == ["2.png", "4.png"]
    assert source.facts["split"] == "test-unlike-train"
    assert torch.equal(source.pictures([1])[0], torch.from_numpy(arrays[4].transpose(2, 0, 1).copy()))
    with refused("data-empty"):
        open_source(f"{tmp_path}:test-unlike-nothing")
