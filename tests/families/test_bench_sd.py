"""`zoo bench sd --data COCO --weights PATH`: one command, here with tiny weights and a folder of COCO's form."""

import json

import pytest
from PIL import Image

from tests.families.written import stable_diffusion
from tests.refusals import refused
from zoo.cli.main import run
from zoo.data.image_folder import ImageFolder

COUNT = 6


@pytest.fixture
def coco(tmp_path):
    """Pictures of two splits, each with several captions, the one with the least number not first."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("val2014", "train2014"):
        (root / split).mkdir()
        names = [f"COCO_{split}_{i:012}.jpg" for i in range(COUNT)]
        for i, name in enumerate(names):
            Image.new("RGB", (40, 32), (40 * i, 100, 200 - 20 * i)).save(root / split / name)
        said = [
            {"image_id": i, "id": 2 * i + k, "caption": f" caption {k} of {i}\n"} for i in range(COUNT) for k in (1, 0)
        ]
        held = {"images": [{"id": i, "file_name": n} for i, n in enumerate(names)], "annotations": said}
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(held))
    return root


def test_cocos_own_folder_is_read_with_one_caption_a_picture(coco):
    rows = ImageFolder(path=str(coco), split="test", size=16).rows
    assert [row["text"] for row in rows] == [f"caption 0 of {i}" for i in range(COUNT)]
    assert rows[2]["file_name"] == "val2014/COCO_val2014_000000000002.jpg"
    assert len(ImageFolder(path=str(coco), size=16).rows) == 2 * COUNT
    (coco / "annotations" / "captions_val2014.json").write_text('{"images": [], "annotations": [3]}')
    with refused("metadata-unreadable", naming="captions_val2014.json"):
        ImageFolder(path=str(coco), size=16)


@pytest.mark.peer
@pytest.mark.slow
def test_one_command_measures_a_models_own_weights_on_coco(coco, tmp_path, capsys):
    stable_diffusion().save_pretrained(tmp_path / "model")
    small = ("settings.quality={samples: 4, extractor: random, metrics: [fd], hit: false}", "settings.repeats=1",
             "settings.warm_up=0", "matrix.0.steps=2", "matrix.0.batch=2", "matrix.0.fast=false",
             "settings.sheets=false")  # fmt: skip
    options = [word for value in small for word in ("--set", value)]
    command = ["bench", "sd", "--data", str(coco), "--weights", str(tmp_path / "model"), *options, "--device", "cpu"]
    assert run([*command, "--out", str(tmp_path / "out"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["record"]["rows"]
    assert row["status"] == "measured", row["reason"]
    (value,) = row["quality"]["values"].values()
    assert value["n"] == 4
    assert value["reference"]["n"] == COUNT
    assert row["speed"]["latency_seconds"]["p50"] > 0
