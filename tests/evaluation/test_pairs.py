"""PSNR and SSIM of `zoo evaluate`: which picture stands for which, and the numbers of the pairs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.refusals import refused
from tests.tiny import tiny_cascade, tiny_pipeline
from zoo.data.image_sets import ArrayPictures
from zoo.diffusion.draws import stream
from zoo.evaluation import build_extractor, evaluate, psnr, ssim
from zoo.evaluation.extractors import features as shards_module
from zoo.evaluation.measurement import measure

TOY = {"name": "random", "width": 4, "size": 16, "layers": 2}


def array(count, seed, size=16):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def write(folder, pictures, names):
    folder.mkdir(exist_ok=True)
    for picture, name in zip(pictures, names, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / name)
    return folder


def unit(pictures):
    return torch.from_numpy(np.asarray(pictures)) / 255.0


def both(found):
    assert not found.absent, found.absent
    return {v.metric: v for v in found.values}


def near(pictures, seed, spread=20):
    noise = np.random.default_rng(seed).integers(-spread, spread + 1, pictures.shape)
    return (pictures.astype(int) + noise).clip(0, 255).astype(np.uint8)


def test_the_functions_agree_with_torchmetrics():
    real = array(3, 1, size=24)
    drawn = np.stack([near(real[i], i, spread) for i, spread in enumerate((3, 20, 90))])
    # torchmetrics 1.9 with data_range=1: PSNR of each picture, averaged; SSIM by `return_full_image`, 5 pixels cut off
    # each side (it averages over a reflected border, too, where the window leaves the picture; nobody else does).
    assert psnr(unit(drawn), unit(real)) == pytest.approx(PSNR, rel=1e-6)
    assert ssim(unit(drawn), unit(real)) == pytest.approx(SSIM, rel=1e-6)


PSNR, SSIM = 27.84763926937596, 0.9337168640843232


def test_files_stand_for_the_files_of_their_names_in_any_order_and_format(tmp_path):
    real = array(9, 1)
    drawn = near(real, 2)
    names = [f"{'below/' if i % 2 else ''}{8 - i}" for i in range(9)]
    a = write(tmp_path / "a", drawn[:7], [f"{n}.png" for n in names[:7]])
    b = write(tmp_path / "b", real[::-1], [f"{n}.bmp" for n in reversed(names)])  # and two that nothing stands for
    found = evaluate(a, b, metrics=["psnr", "ssim", "fd"], extractors=[TOY])
    values = {v.key: v for v in found.values}
    assert values["psnr[rgb]@7"].value == pytest.approx(psnr(unit(drawn[:7]), unit(real[:7])), rel=1e-6)
    assert values["ssim[rgb]@7"].value == pytest.approx(ssim(unit(drawn[:7]), unit(real[:7])), rel=1e-6)
    assert values["psnr[rgb]@7"].error is not None
    assert found.generated["stand_for"] == "pictures of the same name or place"
    alone = evaluate(a, b, metrics=["fd"], extractors=[TOY])
    assert [v.value for v in found.values if v.metric == "fd"] == [v.value for v in alone.values]


def test_a_split_is_paired_by_its_rows_names(tmp_path):
    real = array(6, 1)
    data = write(tmp_path / "data", real, [f"{i}.png" for i in range(6)])
    rows = [{"file_name": f"{i}.png", "text": f"thing {i}", "split": "test" if i > 1 else "train"} for i in range(6)]
    (data / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in reversed(rows)))
    drawn = near(real, 3)
    values = both(evaluate(write(tmp_path / "a", drawn[2:], ["2.png", "3.png", "4.png", "5.png"]), f"{data}:test",
                           metrics=["psnr"]))  # fmt: skip
    assert values["psnr"].value == pytest.approx(psnr(unit(drawn[2:]), unit(real[2:])), rel=1e-6)
    some = both(evaluate(tmp_path / "a", f"{data}:test", metrics=["psnr"], n=2))["psnr"]
    kept = sorted(int(i) for i in stream(0, "pictures").permutation(4)[:2])
    assert some.value == pytest.approx(psnr(unit(drawn[2:][kept]), unit(real[2:][kept])), rel=1e-6)
    train = evaluate(tmp_path / "a", f"{data}:train", metrics=["psnr"])
    assert "'2.png' in" in str(train.absent[0])
    assert "which has no file of that name" in str(train.absent[0])
    assert train.exit_code == 2


def test_pictures_without_names_go_by_place_and_ranges_are_disjoint():
    real = array(12, 1)
    drawn = near(real, 4)
    found = both(evaluate(drawn, real, metrics=["psnr", "ssim"], ranges=3))
    parts = [psnr(unit(drawn[i::3]), unit(real[i::3])) for i in range(3)]
    assert found["psnr"].values == pytest.approx(parts, rel=1e-6)
    assert found["psnr"].error == pytest.approx(np.std(parts, ddof=1), rel=1e-3)
    assert (found["ssim"].count, found["ssim"].ranges) == (4, 3)
    assert both(evaluate(real, real, metrics=["psnr", "ssim"]))["ssim"].value == 1.0
    few = both(evaluate(drawn, real, metrics=["psnr"], keep=5))["psnr"]  # of moments alone
    assert few.value == pytest.approx(psnr(unit(drawn), unit(real)), rel=1e-6)


@pytest.fixture
def captions(tmp_path):
    real = array(5, 7, size=16)
    folder = write(tmp_path / "captions", real, [f"{i}.png" for i in range(5)])
    rows = [{"file_name": f"{i}.png", "text": f"thing {i}"} for i in range(5)]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return folder, real


def test_what_an_enlarging_pipeline_drew_stands_for_the_picture_that_it_was_shown_small(captions):
    folder, real = captions
    pipe = tiny_cascade(sizes=(8, 16), steps=1).stage(1)
    found = evaluate(pipe, folder, metrics=["psnr", "ssim"], n=8, seed=3)
    values = both(found)
    order = [int(i) for i in stream(0, "captions").permutation(5)]
    places = [order[i % 5] for i in range(8)]
    true = unit(real[places])
    small = torch.nn.functional.interpolate(true, (8, 8), mode="area")
    made = pipe([f"thing {i}" for i in places], image=small, seed=3).tensor.mul(255).round() / 255
    assert values["psnr"].value == pytest.approx(psnr(made, true), rel=1e-4)
    assert values["ssim"].value == pytest.approx(ssim(made, true), rel=1e-3)
    assert found.generated["stand_for"] == "the pictures that were shown small"


def test_features_of_pairs_are_of_one_truth_and_go_on_where_they_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD", 4)
    drawn, first, second = (ArrayPictures(array(10, seed)) for seed in (1, 2, 3))
    values = [
        [v.value for v in evaluate(drawn, other, metrics=["psnr", "fd"], extractors=[TOY], features=folder).values]
        for folder in (None, tmp_path, tmp_path)
        for other in (first, second)
    ]
    assert values[0] == values[2] == values[4]
    assert values[1] == values[3] == values[5]
    assert values[0][0] != values[1][0]


def test_what_stands_for_nothing_is_refused_and_the_rest_is_measured(tmp_path, captions):
    def why(a, b=None, metrics=("psnr",), **settings):
        found = evaluate(a, b, metrics=[*metrics, "fd"] if b is not None else metrics, extractors=[TOY], **settings)
        assert [v.metric for v in found.values if v.metric == "fd"] or b is None
        return " ".join(str(a) for a in found.absent)

    x = array(4, 1)
    assert "give these as a second side" in why(x)
    folder, _ = captions
    assert "stands for no picture, since it doesn't enlarge one" in why(tiny_pipeline(steps=1), folder, n=4)
    a = write(tmp_path / "a", x, ["0.png", "1.png", "2.png", "2.bmp"])
    b = write(tmp_path / "b", x, ["0.png", "1.png", "2.png", "3.png"])
    assert "'2.bmp' and '2.png'" in why(a, b)
    assert "has several files of that name" in why(write(tmp_path / "c", x[:2], ["2.tiff", "0.png"]), a)
    assert "which has no file" in why(x, b)
    made = evaluate(b, metrics=[], extractors=[TOY], save_statistics=tmp_path / "b.npz")
    assert made.statistics is not None
    assert "no pictures with names" in why(a, tmp_path / "b.npz")
    assert "it needs pictures, and" in why(tmp_path / "b.npz", b)
    write(tmp_path / "d", array(3, 2, size=12), ["0.png", "1.png", "2.png"])
    assert "3 pictures of" in why(tmp_path / "d", b)
    assert "differ in size" in why(tmp_path / "d", b, ["ssim"])
    assert why(tmp_path / "d", b, ["psnr", "ssim"], size=12) == ""
    said = why(tmp_path / "d", b, ["psnr", "ssim"], size=8)
    assert said.startswith("ssim: refused: SSIM's window is 11 pixels wide, and 3 of")
    assert "psnr: " not in said


def test_features_of_single_pictures_have_neither(tmp_path):
    from zoo.evaluation.extractors.features import extract

    features = extract(ArrayPictures(array(4, 1)), build_extractor(**TOY))
    with refused("pairs-missing"):
        measure(["psnr"], features)


def test_statistics_are_written_beside_pairs(tmp_path):
    x = array(6, 1)
    found = evaluate(near(x, 2), x, metrics=["psnr", "fd"], extractors=[TOY], save_statistics=tmp_path / "x.npz")
    again = evaluate(near(x, 2), tmp_path / "x.npz", metrics=["fd"], extractors=[TOY])
    assert found.statistics is not None
    assert again.values[0].value == pytest.approx(next(v.value for v in found.values if v.metric == "fd"), rel=1e-6)
