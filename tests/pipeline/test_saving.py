"""Images written by hand keep their record, an open file is a place to save to, and a seed's samples can be split."""

import io
import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.processes import ended, started
from tests.refusals import refused
from zoo.pipeline.arrays import Arrays
from zoo.pipeline.generation import Generation
from zoo.records.reading import RECORD_KEY, read_record
from zoo.schema.errors import UsageError


@pytest.fixture(scope="module")
def pipe():
    return zoo.build("pixel-ddpm-32", sampler="ddim", steps=2)


def test_an_open_file_gets_a_png_with_its_record(pipe, tmp_path):
    made, file = pipe(n=1, seed=3), io.BytesIO()
    assert made.save(file) == []
    (tmp_path / "buffer.png").write_bytes(file.getvalue())
    assert read_record(tmp_path / "buffer.png")["seed"] == 3
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(made.images[0]))


def test_an_open_file_holds_one_image_or_a_sheet(pipe):
    made, file = pipe(n=2, seed=3), io.BytesIO()
    with refused("counts-differ", UsageError):
        made.save(file)
    made.save(file, grid=True)
    assert len(zoo_record(file)["images"]) == 2


@pytest.mark.parametrize(
    ("place", "code"),
    [
        (5, "output-type-wrong"), (io.StringIO(), "output-type-wrong"), ("a\0b.png", "output-unwritable"),
        ("a" * 300 + ".png", "name-too-long"), ("s/" * 2100 + "x.png", "name-too-long"),
    ],
    ids=["number", "text file", "NUL", "long name", "long path"],
)  # fmt: skip
def test_what_is_no_place_is_refused(pipe, place, code):
    with refused(code, UsageError):
        pipe(n=1).save(place)


def test_no_place_is_the_default_file_and_numbers_go_on(pipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [pipe(n=1).save()[0].name for _ in range(3)] == ["out.png", "out-1.png", "out-2.png"]


@pytest.mark.parametrize("columns", [0, -1, 1.5, "2", True, float("nan"), 10**30])
def test_a_sheet_has_a_number_of_columns(pipe, columns):
    made = pipe(n=2)
    if columns == 10**30:
        assert made.sheet(columns).size == made.sheet(2).size
    else:
        with refused("number-out-of-range", UsageError):
            made.sheet(columns)


def _numbered(folder, count, times):
    one = Generation(samples=torch.zeros(count), drawn=torch.zeros(count, 3, 8, 8), record={"images": [{}] * count})
    for _ in range(times):
        one.save(folder)
        one.save(folder / "a.png")


@pytest.mark.slow
def test_several_who_number_in_one_folder_lose_no_image(tmp_path):
    writers = [started(partial(_numbered, tmp_path / "new", 3, 10)) for _ in range(4)]
    assert ended(writers) == [0] * 4
    assert len(list((tmp_path / "new").glob("[0-9]*.png"))) == len(list((tmp_path / "new").glob("a-*.png"))) == 120


def zoo_record(file):
    return json.loads(Image.open(file).text[RECORD_KEY])


def test_what_pil_writes_keeps_its_own_record(pipe, tmp_path):
    made = pipe(n=2, seed=3)
    for i, image in enumerate(made.images):
        image.save(tmp_path / "by-pil.png")
        record = read_record(tmp_path / "by-pil.png")
        assert [entry["sample"] for entry in record["images"]] == [i]
        image.save(tmp_path / "by-pil.jpg")  # has no place for it


def test_arrays_go_into_an_open_file():
    made = Generation(samples=torch.ones(2, 1, 16), drawn=torch.ones(2, 1, 16), record={}, space=Arrays((16,)))
    file, picture = io.BytesIO(), io.BytesIO()
    made.save(file)
    made.save(picture, grid=True)
    assert np.load(io.BytesIO(file.getvalue())).shape == (2, 1, 16)
    assert Image.open(picture).format == "PNG"


def test_first_continues_where_another_call_ended(pipe):
    whole, half = pipe(n=4, seed=7), pipe(n=2, seed=7, first=2)
    torch.testing.assert_close(half.tensor, whole.tensor[2:], atol=1e-5, rtol=0)
    assert [entry["sample"] for entry in half.record["images"]] == [2, 3]
    assert not torch.allclose(half.tensor, whole.tensor[:2], atol=0.01)
    one = pipe(n=2, seed=[7, 7], first=3)
    torch.testing.assert_close(one.tensor, whole.tensor[[3, 3]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("first", [-1, 1.5, "2", True])
def test_first_is_a_number(pipe, first):
    with refused("request-invalid", UsageError):
        pipe(n=1, first=first)


def test_first_beside_given_noise_is_refused(pipe):
    with refused("option-conflict", UsageError):
        pipe(n=1, first=1, noise=torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("size", [[64], (32, 32, 32)])
def test_a_size_of_other_than_two_lengths_says_what_to_give(pipe, size):
    with refused("size-invalid", UsageError):
        pipe(n=1, size=size)
